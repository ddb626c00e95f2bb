import { z } from 'zod'
import { badRequest } from '../errors.ts'
import type { ListQuery, Page } from '../services/model.ts'
import { booleanParameter, readBoolean, text } from './fields.ts'
import { MATCHES_NOTHING } from './filters.ts'
import type { Links } from './links.ts'
import { at, type Client, isAdminOnly, minorOf, since, strictSince, type Version } from './microversion.ts'
import { shorten, WHOLE_SENTENCE } from './validation.ts'

/** As upstream's osapi_max_limit. */
export const PAGE_SIZE_MAX = 1000

const OFFSET_MAX = 2_147_483_647

/** What a list of one resource can be asked for. */
export interface Listing {
  query: z.ZodObject
  /** Keys that `sort` may name, with the microversion since when. */
  sortKeys: Readonly<Record<string, number>>
  /**
   * Attributes that every row of ours has with the same value (no groups, no migration): a filter for another value
   * finds nothing, without asking the service.
   */
  constants: Readonly<Record<string, string>>
  /** Texts that a row may be without: `None` looks for those that are. */
  nullable: readonly string[]
  /** Filters that everybody may use; what `resource_filters` tells. */
  filterNames: readonly string[]
  /** From when on filters are checked. */
  strictSince: number
  /** From when on a filter that nobody knows finds nothing, until it is refused; null ignores it. */
  unknownFindsNothingSince: number | null
}

export interface ListRequest {
  query: ListQuery
  count: boolean
  /** True when a filter excludes every row. */
  nothing: boolean
}

interface ListingOptions {
  filters: Record<string, z.ZodType>
  sortKeys: readonly string[]
  /** Sort keys that came later than the list. */
  sortKeysSince?: Readonly<Record<string, Version>>
  constants?: Record<string, string>
  nullable?: readonly string[]
  /** From when on unknown filters are refused, 3.31 for most resources; null never refuses them. */
  strict?: Version | null
  /** False for lists that upstream does not count: `with_count` is an unknown filter of theirs. */
  counts?: boolean
  /** From when on the list has pages, an order and filters; before, they are ignored. */
  pagesSince?: Version
  /** From when on a filter that nobody knows finds nothing, where that is not since there are pages. */
  unknownFindsNothingSince?: Version
}

/**
 * The query of a list, with upstream's rules for filters. One that a client of this version may not know is dropped before
 * 3.31 and refused from then on. Administrators may name any attribute, and one that we do not have finds nothing.
 */
export function listing(options: ListingOptions): Listing {
  const pagesSince = options.pagesSince ?? '3.0'
  const paging = {
    limit: pageNumber('limit').optional(),
    offset: pageNumber('offset').optional(),
    marker: text(255).optional(),
    sort: text(1024).optional(),
    sort_key: text(255).optional(),
    sort_dir: text(255).optional(),
  }
  const query = z.object({
    ...Object.fromEntries(Object.entries(paging).map(([name, field]) => [name, since(pagesSince, field)])),
    all_tenants: z.string().optional(),
    ...(options.counts === false ? {} : { with_count: since('3.45', booleanParameter('with_count')) }),
    ...options.filters,
  })
  const sortKeys = Object.entries({
    ...Object.fromEntries(options.sortKeys.map((key) => [key, '3.0' as Version])),
    ...options.sortKeysSince,
  })
  const strict = options.strict === undefined ? '3.31' : options.strict
  const emptySince = options.unknownFindsNothingSince ?? options.pagesSince
  return {
    query: strict === null ? query.loose() : strictSince(strict, query.loose(), { admin: false }),
    sortKeys: Object.fromEntries(sortKeys.map(([key, version]) => [key, minorOf(version)])),
    constants: options.constants ?? {},
    nullable: options.nullable ?? [],
    filterNames: Object.entries(options.filters).flatMap(([name, field]) => (isAdminOnly(field) ? [] : [name])),
    strictSince: strict === null ? Number.POSITIVE_INFINITY : minorOf(strict),
    unknownFindsNothingSince: emptySince === undefined ? null : minorOf(emptySince),
  }
}

/** Turns a validated query into what the service is asked. Throws InvalidInput for a sort that makes no sense. */
export function toListRequest(list: Listing, query: Record<string, unknown>, client: Client): ListRequest {
  const known = at(list.query, client).shape as Record<string, z.ZodType> // without what came later, or is for administrators
  const { limit, offset, marker, sort, sort_key, sort_dir, all_tenants, with_count, ...given } = Object.fromEntries(
    Object.entries(query).filter(([key]) => Object.hasOwn(known, key) || !Object.hasOwn(list.query.shape, key)),
  )
  if (list.strictSince <= client.minor && Object.keys(given).some((key) => !isAscii(key)))
    throw badRequest(ASCII_REASON)
  const allProjects = client.admin && meansAll(all_tenants as string | undefined)
  if (!allProjects) delete given.project_id // the own project, whatever is asked for
  const filters: Record<string, ListQuery['filters'][string]> = {}
  // To an administrator, a count that came later or never is an attribute that no row has.
  let nothing = client.admin && 'with_count' in query && !('with_count' in known)
  for (const [key, value] of Object.entries(given)) {
    if (value === undefined) continue
    if (value === MATCHES_NOTHING) nothing = true
    else if (Object.hasOwn(list.constants, key)) nothing ||= String(value).toLowerCase() !== list.constants[key]
    else if (value === 'None' && list.nullable.includes(key) && Object.hasOwn(known, key)) filters[key] = null
    else if (Object.hasOwn(known, key) || isLike(key, list, known, client)) filters[key] = value as string
    else nothing ||= client.admin || (list.unknownFindsNothingSince ?? Number.POSITIVE_INFINITY) <= client.minor
  }
  return {
    query: {
      limit: Math.min((limit as number | undefined) ?? PAGE_SIZE_MAX, PAGE_SIZE_MAX),
      offset: (offset as number | undefined) ?? 0,
      marker: (marker as string | undefined) ?? null,
      sort: parseSort({ sort, sort_key, sort_dir } as SortParameters, list, client),
      filters,
      allProjects,
    },
    count: with_count === true,
    nothing,
  }
}

/** Only administrators are asked what they mean by `all_tenants`; from others it is ignored. */
function meansAll(word: string | undefined): boolean {
  const read = word === undefined ? false : readBoolean(word)
  if (read === null) throw badRequest(`Value '${shorten(word!)}' for 'all_tenants' is not a boolean.`)
  return read
}

/** `status~`: administrators may look for a part of any text that is stored. */
function isLike(key: string, list: Listing, known: Readonly<Record<string, z.ZodType>>, { admin }: Client): boolean {
  if (!admin || !key.endsWith('~')) return false
  const whole = key.slice(0, -1)
  const field = Object.hasOwn(known, whole) && !Object.hasOwn(list.constants, whole) ? known[whole] : undefined
  return field instanceof z.ZodOptional && field.unwrap() instanceof z.ZodString
}

/**
 * The `{collection}_links` of a list: a next link whenever the page is full, whether or not more follows, as upstream
 * (a client stops at the first page without the link).
 */
export function nextLinks(
  page: Page<{ id: string }>,
  request: ListRequest,
  links: Links,
  path: string,
): { rel: string; href: string }[] | undefined {
  const last = page.items.at(-1)
  if (last === undefined || page.items.length < request.query.limit) return undefined
  return [{ rel: 'next', href: links.next(path, last.id) }]
}

/** A page that needs no look into the database. */
export function emptyPage<T>(request: ListRequest): Page<T> {
  return { items: [], more: false, ...(request.count ? { total: 0 } : {}) }
}

interface SortParameters {
  sort?: string
  sort_key?: string
  sort_dir?: string
}

function parseSort(
  { sort, sort_key, sort_dir }: SortParameters,
  { sortKeys }: Listing,
  { minor }: Client,
): ListQuery['sort'] {
  if (sort !== undefined && (sort_key !== undefined || sort_dir !== undefined)) {
    throw badRequest(
      "The 'sort_key' and 'sort_dir' parameters are deprecated and cannot be used with the 'sort' parameter.",
    )
  }
  const parts = sort?.split(',') ?? [`${sort_key ?? 'created_at'}:${sort_dir ?? 'desc'}`]
  return parts.map((part) => {
    const colon = part.indexOf(':')
    const key = (colon === -1 ? part : part.slice(0, colon)).trim()
    const direction = colon === -1 ? 'desc' : part.slice(colon + 1).trim() || 'desc'
    if (direction !== 'asc' && direction !== 'desc') {
      throw badRequest("Invalid input received: Unknown sort direction, must be 'desc' or 'asc'.")
    }
    if (!Object.hasOwn(sortKeys, key) || sortKeys[key]! > minor) {
      throw badRequest('Invalid input received: Invalid sort key')
    }
    return { key, direction }
  })
}

/** The messages are upstream's; they are whole sentences already. */
export function pageNumber(parameter: 'limit' | 'offset') {
  const negative = parameter === 'limit' ? 'limit param must be positive' : 'offset must be >= 0'
  return z
    .string()
    .refine((value) => /^-?\d+$/.test(value), {
      error: parameter === 'limit' ? 'limit param must be an integer' : 'offset must be an integer',
      params: WHOLE_SENTENCE,
      abort: true,
    })
    .transform(Number)
    .refine((value) => value >= 0, { error: negative, params: WHOLE_SENTENCE })
    .refine((value) => parameter === 'limit' || value <= OFFSET_MAX, {
      error: `offset must be <= ${OFFSET_MAX}`,
      params: WHOLE_SENTENCE,
    })
}

const ASCII_REASON = 'Filter keys can only contain ASCII characters.'

/** What is said of filters that a client may not use. */
export function refusedFilters(keys: readonly string[]): string {
  if (keys.some((key) => !isAscii(key))) return ASCII_REASON
  return `Invalid filters ${keys.join(',')} are found in query options.`
}

function isAscii(key: string): boolean {
  return /^\p{ASCII}*$/u.test(key)
}
