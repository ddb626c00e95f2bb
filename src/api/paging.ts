import { z } from 'zod'
import { ServiceError } from '../errors.ts'
import type { ListQuery, Page } from '../services/model.ts'
import { flag, text } from './fields.ts'
import type { Links } from './links.ts'
import { at, type Client, since, strictSince, type Version } from './microversion.ts'

/** As upstream's osapi_max_limit. */
export const PAGE_SIZE_MAX = 1000

const OFFSET_MAX = 2_147_483_647

/** What a list of one resource can be asked for. */
export interface Listing {
  query: z.ZodObject
  /** Keys that `sort` may name. */
  sortKeys: readonly string[]
  /**
   * Attributes that every row of ours has with the same value (no groups, no migration): a filter for another value
   * finds nothing, without asking the service.
   */
  constants: Readonly<Record<string, string>>
}

export interface ListRequest {
  query: ListQuery
  count: boolean
  /** True when a filter excludes every row. */
  nothing: boolean
}

/**
 * The query of a list. A filter that a client of this version may not know is dropped before 3.31 and refused from
 * then on; administrators may name any attribute, and one that we do not have finds nothing, all as upstream.
 */
export function listing(options: {
  filters: Record<string, z.ZodType>
  sortKeys: readonly string[]
  constants?: Record<string, string>
  /** From when on unknown filters are refused; 3.31 for most resources. */
  strict?: Version
}): Listing {
  const query = z.object({
    limit: pageNumber('limit').optional(),
    offset: pageNumber('offset').optional(),
    marker: text(255).optional(),
    sort: text(1024).optional(),
    sort_key: text(255).optional(),
    sort_dir: text(255).optional(),
    all_tenants: z.string().optional(),
    with_count: since('3.45', flag.optional()),
    ...options.filters,
  })
  return {
    query: strictSince(options.strict ?? '3.31', query.loose(), { admin: false }),
    sortKeys: options.sortKeys,
    constants: options.constants ?? {},
  }
}

/** Turns a validated query into what the service is asked. Throws InvalidInput for a sort that makes no sense. */
export function toListRequest(list: Listing, query: Record<string, unknown>, client: Client): ListRequest {
  const { limit, offset, marker, sort, sort_key, sort_dir, all_tenants, with_count, ...given } = query
  const known = at(list.query, client).shape // without what came later, or is for administrators
  const filters: Record<string, ListQuery['filters'][string]> = {}
  let nothing = false
  for (const [key, value] of Object.entries(given)) {
    if (value === undefined) continue
    if (!Object.hasOwn(known, key)) nothing ||= client.admin
    else if (!Object.hasOwn(list.constants, key)) filters[key] = value as ListQuery['filters'][string]
    else nothing ||= String(value).toLowerCase() !== list.constants[key]
  }
  return {
    query: {
      limit: Math.min((limit as number | undefined) ?? PAGE_SIZE_MAX, PAGE_SIZE_MAX),
      offset: (offset as number | undefined) ?? 0,
      marker: (marker as string | undefined) ?? null,
      sort: parseSort({ sort, sort_key, sort_dir } as SortParameters, list.sortKeys),
      filters,
      allProjects: client.admin && all_tenants !== undefined && isTrue(all_tenants as string),
    },
    count: with_count === true,
    nothing,
  }
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

function parseSort({ sort, sort_key, sort_dir }: SortParameters, allowed: readonly string[]): ListQuery['sort'] {
  if (sort !== undefined && (sort_key !== undefined || sort_dir !== undefined)) {
    throw invalid(
      "The 'sort_key' and 'sort_dir' parameters are deprecated and cannot be used with the 'sort' parameter.",
    )
  }
  const parts = sort?.split(',') ?? [`${sort_key ?? 'created_at'}:${sort_dir ?? 'desc'}`]
  return parts.map((part) => {
    const [key = '', direction = 'desc'] = part.split(':').map((word) => word.trim())
    if (!allowed.includes(key)) throw invalid(`Sort key supplied is invalid: ${key}`)
    if (direction !== 'asc' && direction !== 'desc') {
      throw invalid(`Unknown sort direction, must be one of: asc, desc`)
    }
    return { key, direction }
  })
}

function pageNumber(parameter: string) {
  return z
    .string()
    .regex(/^-?\d+$/, { error: `${parameter} param must be an integer` })
    .transform(Number)
    .refine((value) => value >= 0 && value <= OFFSET_MAX, { error: `${parameter} param must be positive` })
}

function isTrue(word: string): boolean {
  return flag.safeParse(word).data === true
}

function invalid(reason: string): ServiceError {
  return new ServiceError('InvalidInput', { reason })
}
