import { z } from 'zod'
import { ServiceError } from '../errors.ts'

/**
 * Microversions as marks on schema fields and routes, so that nobody writes `if (version >= …)` and code, documents and
 * tests cannot disagree:
 *
 *     const Volume = z.object({
 *       id: z.string(),
 *       group_id: since('3.13', z.string().nullable()),
 *       provider_id: since('3.21', adminOnly(z.string().nullable())),
 *     })
 *
 * `at(Volume, client)` is the schema that one client sees. A mark belongs on the outside: `since(v, x.optional())`, not
 * `since(v, x).optional()`, because a wrapped schema is another schema.
 */

export const MIN_VERSION = '3.0'
export const MAX_VERSION = '3.71'

/** What upstream says when it has nothing to say. */
const NOT_UNDERSTOOD =
  'The server could not comply with the request since it is either malformed or otherwise incorrect.'

export type Version = `3.${number}`

/** Who asks, as far as the shape of a document depends on it. */
export interface Client {
  /** The part after `3.` of the microversion asked for. */
  minor: number
  admin: boolean
}

interface Refusal {
  since: number
  accepts: (value: unknown) => boolean
  error: z.core.$ZodCustomParams
}

interface Mark {
  since?: number
  until?: number
  adminOnly?: boolean
  strictSince?: number
  strictForAdmin?: boolean
  before?: { minor: number; convert: (value: unknown) => unknown }
  refusals?: Refusal[]
}

const marks = new WeakMap<z.core.$ZodType, Mark>()

/** The field exists from this version on: earlier clients neither see it nor may send it. */
export function since<S extends z.ZodType>(version: Version, schema: S): S {
  return withMark(schema, { since: minorOf(version) })
}

/** The field exists up to and including this version. */
export function until<S extends z.ZodType>(version: Version, schema: S): S {
  return withMark(schema, { until: minorOf(version) })
}

/** Before this version the value was written differently, and `convert` makes that form. */
export function before<S extends z.ZodType>(version: Version, convert: (value: unknown) => unknown, schema: S): S {
  return withMark(schema, { before: { minor: minorOf(version), convert } })
}

/** Unknown keys are refused from this version on, before it the schema's own way holds; `admin: false` exempts administrators. */
export function strictSince<S extends z.ZodObject>(
  version: Version,
  schema: S,
  options: { admin: boolean } = { admin: true },
): S {
  return withMark(schema, { strictSince: minorOf(version), strictForAdmin: options.admin })
}

/** From this version on only values that pass `accepts` are taken. */
export function refuseSince<S extends z.ZodType>(
  version: Version,
  accepts: (value: z.output<S>) => boolean,
  error: { error: string; params?: Record<string, unknown> },
  schema: S,
): S {
  const refusal: Refusal = { since: minorOf(version), accepts: accepts as Refusal['accepts'], error }
  return withMark(schema, { refusals: [...(marks.get(schema)?.refusals ?? []), refusal] })
}

export function adminOnly<S extends z.ZodType>(schema: S): S {
  return withMark(schema, { adminOnly: true })
}

export function isAdminOnly(schema: z.core.$ZodType): boolean {
  return marks.get(schema)?.adminOnly === true
}

/** The marks of a field in the words of OpenStack's OpenAPI documents; undefined for a plain field. */
export function openApiMark(schema: z.core.$ZodType): Record<string, string | boolean> | undefined {
  const mark = marks.get(schema)
  if (mark === undefined) return undefined
  const shown: Record<string, string | boolean> = {}
  if (mark.since !== undefined) shown['min-ver'] = `3.${mark.since}`
  if (mark.until !== undefined) shown['max-ver'] = `3.${mark.until}`
  if (mark.adminOnly) shown['admin-only'] = true
  if (mark.strictSince !== undefined) shown['additional-properties-refused-since'] = `3.${mark.strictSince}`
  return Object.keys(shown).length > 0 ? shown : undefined
}

/** Whether something that exists from `first` to `last` exists for a client of this version. */
export function inRange(minor: number, first: number | undefined, last: number | undefined): boolean {
  return minor >= (first ?? 0) && minor <= (last ?? Number.POSITIVE_INFINITY)
}

/**
 * The schema as this client sees it. Cached by the interval between two marked versions, not by version, so that the
 * cache stays small whatever versions clients ask for.
 */
export function at<S extends z.ZodType>(schema: S, client: Client): S {
  let variants = variantsOf.get(schema)
  if (variants === undefined) {
    variants = { ...sensitivityOf(schema), built: new Map() }
    variantsOf.set(schema, variants)
  }
  if (variants.boundaries.length === 0 && !variants.byAdmin) return schema
  const interval = variants.boundaries.findLastIndex((boundary) => boundary <= client.minor) + 1
  const key = interval * 2 + (variants.byAdmin && client.admin ? 1 : 0)
  let built = variants.built.get(key)
  if (built === undefined) {
    built = build(schema, client)
    variants.built.set(key, built)
  }
  return built as S
}

/**
 * Reads `OpenStack-API-Version: volume 3.27`, also `volume latest` and lists with entries of other services. Without
 * the header the client gets the oldest version, as one that knows nothing of microversions expects; one that speaks of
 * other services only is refused, as upstream does.
 */
export function parseVersionHeader(header: string | undefined): number {
  if (header === undefined) return minorOf(MIN_VERSION)
  const entry = header
    .split(',')
    .map((part) => part.trim().split(/\s+/))
    .find(([service]) => service === 'volume')
  if (entry === undefined) throw new ServiceError('InvalidInput', { reason: NOT_UNDERSTOOD })
  const version = entry[1] ?? ''
  if (version === 'latest') return minorOf(MAX_VERSION)
  const match = /^([1-9]\d{0,8})\.(0|[1-9]\d{0,8})$/.exec(version)
  if (match === null || entry.length > 2)
    throw new ServiceError('InvalidVersionHeader', { version: version.slice(0, 64) })
  const [major, minor] = [Number(match[1]), Number(match[2])]
  if (major !== 3 || minor > minorOf(MAX_VERSION)) {
    throw new ServiceError('VersionNotAcceptable', { version, min_version: MIN_VERSION, max_version: MAX_VERSION })
  }
  return minor
}

export function minorOf(version: Version): number {
  return Number(version.slice(2))
}

interface Variants {
  /** Versions at which the schema changes, ascending. */
  boundaries: number[]
  byAdmin: boolean
  built: Map<number, z.ZodType>
}

const variantsOf = new WeakMap<z.ZodType, Variants>()

function withMark<S extends z.ZodType>(schema: S, mark: Mark): S {
  const copy = schema.clone() // a shared schema must not be marked for everybody who uses it
  marks.set(copy, { ...marks.get(schema), ...mark })
  return copy
}

function build(schema: z.ZodType, client: Client): z.ZodType {
  const mark = marks.get(schema)
  let built = mapChildren(schema, (child) => (visible(child, client) ? build(child, client) : null))
  if (mark?.strictSince !== undefined && built instanceof z.ZodObject) {
    const strict = client.minor >= mark.strictSince && (mark.strictForAdmin || !client.admin)
    if (strict) built = built.strict()
  }
  for (const { since, accepts, error } of mark?.refusals ?? []) {
    if (client.minor >= since) built = built.refine(accepts, error)
  }
  if (mark?.before !== undefined && client.minor < mark.before.minor) built = z.preprocess(mark.before.convert, built)
  return built
}

function visible(schema: z.ZodType, client: Client): boolean {
  const mark = marks.get(schema)
  return inRange(client.minor, mark?.since, mark?.until) && (client.admin || !mark?.adminOnly)
}

function sensitivityOf(schema: z.ZodType): { boundaries: number[]; byAdmin: boolean } {
  const found = new Set<number>()
  let byAdmin = false
  const visit = (part: z.ZodType): z.ZodType => {
    const mark = marks.get(part)
    for (const minor of [mark?.since, mark?.before?.minor, mark?.strictSince]) if (minor !== undefined) found.add(minor)
    if (mark?.until !== undefined) found.add(mark.until + 1)
    for (const refusal of mark?.refusals ?? []) found.add(refusal.since)
    byAdmin ||= mark?.adminOnly === true || mark?.strictForAdmin === false
    mapChildren(part, visit)
    return part
  }
  visit(schema)
  return { boundaries: [...found].sort((a, b) => a - b), byAdmin }
}

/** A copy of the schema with each part replaced by `change(part)`; a field of an object goes when that is null. */
function mapChildren(schema: z.ZodType, change: (child: z.ZodType) => z.ZodType | null): z.ZodType {
  const inner = (child: unknown) => change(child as z.ZodType) ?? z.never()
  if (schema instanceof z.ZodObject) {
    const shape: Record<string, z.ZodType> = {}
    for (const [name, field] of Object.entries(schema.shape)) {
      const changed = change(field as z.ZodType)
      if (changed !== null) shape[name] = changed
    }
    return schema.clone({ ...schema.def, shape })
  }
  if (schema instanceof z.ZodArray) return schema.clone({ ...schema.def, element: inner(schema.element) })
  if (schema instanceof z.ZodOptional) return schema.clone({ ...schema.def, innerType: inner(schema.def.innerType) })
  if (schema instanceof z.ZodNullable) return schema.clone({ ...schema.def, innerType: inner(schema.def.innerType) })
  if (schema instanceof z.ZodDefault) return schema.clone({ ...schema.def, innerType: inner(schema.def.innerType) })
  if (schema instanceof z.ZodPipe) {
    return schema.clone({ ...schema.def, in: inner(schema.def.in), out: inner(schema.def.out) })
  }
  return schema
}
