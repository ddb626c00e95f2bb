import assert from 'node:assert/strict'
import type { Knex } from 'knex'
import { ServiceError, type ServiceErrorCode } from '../errors.ts'
import type { Db } from './database.ts'
import { whereJsonContains, whereTextContains } from './dialect.ts'

/** A key by which a resource can be filtered or sorted, and the column behind it. */
export interface Column {
  name: string
  kind: 'text' | 'number' | 'boolean' | 'time' | 'json'
  nullable?: true
  /** The column is one of this table's, in the row that `key` names; such a one filters only. */
  parent?: { table: string; key: string }
  /** What a filter looks for, where that is more than the value of the column. */
  where?: (query: Knex.QueryBuilder, value: FilterValue) => void
}

/** Keys in Cinder's words. `id` and `created_at` must be among them: they break ties. */
export type Columns = Readonly<Record<string, Column>>

export interface SortKey {
  key: string
  direction: 'asc' | 'desc'
}

export interface Listing {
  /** Null lists the rows of all projects. */
  projectId: string | null
  limit: number
  offset: number
  marker: string | null
  sort: readonly SortKey[]
  filters: Filters
}

/** Null: there is none. */
export type FilterValue = string | number | boolean | null | Record<string, string>

export type Filters = Readonly<Record<string, FilterValue>>

export interface Rows<Row> {
  rows: Row[]
  more: boolean
  total?: number
}

/** What upstream says of a marker that is not there: the row itself is not found. */
const MARKERS: Readonly<Record<string, [code: ServiceErrorCode, parameter: string]>> = {
  volumes: ['VolumeNotFound', 'volume_id'],
  snapshots: ['SnapshotNotFound', 'snapshot_id'],
  backups: ['BackupNotFound', 'backup_id'],
  attachments: ['AttachmentNotFound', 'attachment_id'],
  messages: ['MessageNotFound', 'message_id'],
  volume_transfers: ['TransferNotFound', 'transfer_id'],
  volume_types: ['VolumeTypeNotFound', 'volume_type_id'],
  qos_specs: ['QoSSpecsNotFound', 'specs_id'],
  volume_groups: ['GroupNotFound', 'group_id'],
  group_snapshots: ['GroupSnapshotNotFound', 'group_snapshot_id'],
  group_types: ['GroupTypeNotFound', 'group_type_id'],
}

const COMPARISONS: Readonly<Record<string, string>> = { gt: '>', gte: '>=', eq: '=', neq: '<>', lt: '<', lte: '<=' }

/** What is added to a query of the table. */
type Refinement = (query: Knex.QueryBuilder) => void

/**
 * One page of `table`, keyset after `marker`: the cost of a page does not grow with its distance from the start.
 * `visible` says which rows there are for the caller, where that is more than a project's; `select` adds columns.
 * Throws the table's …NotFound when the marker is not among the rows that the project may see, InvalidInput for an unknown key.
 */
export async function listRows<Row>(
  db: Db,
  table: string,
  columns: Columns,
  listing: Listing,
  options: { count: boolean; select?: Refinement; visible?: Refinement },
): Promise<Rows<Row>> {
  const matching = () => {
    const query = db(table)
    if (listing.projectId !== null) query.where(`${table}.project_id`, listing.projectId)
    options.visible?.(query)
    applyFilters(query, table, columns, listing.filters)
    return query
  }
  const sort = withTieBreakers(listing.sort)
  const query = matching().select(`${table}.*`)
  options.select?.(query)
  let backwards: BackwardsStart | null = null
  if (listing.marker !== null) {
    const named = db(table).where({ id: listing.marker })
    if (listing.projectId !== null) named.where({ project_id: listing.projectId })
    options.visible?.(named)
    const marker: Record<string, unknown> | undefined = await named.first()
    if (marker === undefined) throw markerNotFound(table, listing.marker)
    whereAfter(query, table, columns, sort, marker)
    const { key, direction } = sort[0]!
    const value = marker[columns[key]!.name] as Knex.Value
    if (direction === 'desc' && columns[key]!.nullable && value !== null) {
      backwards = { column: column(table, columns, key), value }
    }
  }
  for (const { key, direction } of sort) {
    // Where nothing can be null, saying where nulls go would only keep PostgreSQL from using an index.
    const nulls = columns[key]?.nullable ? `nulls ${direction === 'asc' ? 'first' : 'last'}` : ''
    query.orderByRaw(`?? ${direction} ${nulls}`, [column(table, columns, key)])
  }
  const found = await readRows<Row>(query, listing, backwards)
  const rows = found.slice(0, listing.limit)
  const page = { rows, more: rows.length > 0 && found.length > listing.limit }
  return options.count ? { ...page, total: await countRows(matching()) } : page
}

function markerNotFound(table: string, marker: string): ServiceError {
  const found = MARKERS[table]
  assert(found !== undefined, `nobody says what a row of ${table} is called`)
  const [code, parameter] = found
  return new ServiceError(code, { [parameter]: marker })
}

/** A page that begins at a value of a column, backwards: what is null comes after all values. */
interface BackwardsStart {
  column: string
  value: Knex.Value
}

/** Such a page is read in two parts, because no index serves "up to this, or null". */
async function readRows<Row>(
  query: Knex.QueryBuilder,
  { limit, offset }: Listing,
  backwards: BackwardsStart | null,
): Promise<Row[]> {
  const wanted = limit + 1
  if (backwards === null || offset > 0) return query.limit(wanted).offset(offset)
  const { column, value } = backwards
  const first: Row[] = await query.clone().where(column, '<=', value).limit(wanted)
  if (first.length === wanted) return first
  const rest: Row[] = await query.whereNull(column).limit(wanted - first.length)
  return [...first, ...rest]
}

export async function countRows(query: Knex.QueryBuilder): Promise<number> {
  const [row] = await query.count({ count: '*' })
  return Number(row?.count)
}

/** Where a volume is: `host` has all of `host@backend`, and that all of `host@backend#pool`. */
export function whereAt(query: Knex.QueryBuilder, column: string, place: string): void {
  const within = place.includes('#') ? [] : place.includes('@') ? ['#'] : ['@', '#']
  query.where((either) => {
    either.where(column, place)
    for (const mark of within) {
      // Not `like`, to which letters of either case are the same in SQLite.
      either.orWhereRaw('substr(??, 1, ?) = ?', [column, place.length + 1, `${place}${mark}`])
    }
  })
}

/** Equality by key; `key~` contains the text; a JSON column contains the pairs; a time compares (`{gt: …, lt: …}`). */
export function applyFilters(
  query: Knex.QueryBuilder,
  table: string,
  columns: Columns,
  filters: Listing['filters'],
): void {
  for (const [key, value] of Object.entries(filters)) {
    if (key.endsWith('~')) {
      whereTextContains(query, column(table, columns, key.slice(0, -1)), String(value))
      continue
    }
    const { parent, where } = Object.hasOwn(columns, key) ? columns[key]! : {}
    if (parent !== undefined) {
      const { table: of, key: by } = parent
      query.whereIn(`${table}.${by}`, (parents) => {
        parents.from(of).select(`${of}.id`)
        if (where === undefined) parents.where(`${of}.${columns[key]!.name}`, value)
        else where(parents, value)
      })
      continue
    }
    if (where !== undefined) {
      where(query, value)
      continue
    }
    const name = column(table, columns, key)
    if (typeof value !== 'object' || value === null) query.where(name, value)
    else if (columns[key]!.kind === 'json') whereJsonContains(query, name, value)
    else {
      for (const [operator, bound] of Object.entries(value)) {
        const comparison = COMPARISONS[operator]
        if (comparison === undefined) {
          throw new ServiceError('InvalidInput', { reason: `Unknown comparison "${operator}" for ${key}.` })
        }
        query.where(name, comparison, bound)
      }
    }
  }
}

/**
 * A total order: creation time and id follow, in the direction of the first key, as in Cinder. After the id nothing has to,
 * and PostgreSQL would sort by it all the same.
 */
export function withTieBreakers(sort: readonly SortKey[]): SortKey[] {
  const id = sort.findIndex(({ key }) => key === 'id')
  if (id !== -1) return sort.slice(0, id + 1)
  const direction = sort[0]?.direction ?? 'desc'
  const missing = ['created_at', 'id'].filter((tie) => !sort.some(({ key }) => key === tie))
  return [...sort, ...missing.map((key) => ({ key, direction }))]
}

/**
 * Rows that come after the marker: for keys a, b, c these are a beyond, or a equal and b beyond, or both equal and c
 * beyond. The bound on the first key is repeated by itself so that an index over it limits the scan.
 * Nulls come first in ascending order.
 */
function whereAfter(
  query: Knex.QueryBuilder,
  table: string,
  columns: Columns,
  sort: readonly SortKey[],
  marker: Readonly<Record<string, unknown>>,
): void {
  const keys = sort.map(({ key, direction }) => ({
    name: column(table, columns, key),
    direction,
    nullable: columns[key]!.nullable === true,
    value: marker[columns[key]!.name] as Knex.Value,
  }))
  const first = keys[0]!
  if (first.direction === 'asc' && first.value !== null) query.where(first.name, '>=', first.value)
  if (first.direction === 'desc' && !first.nullable) query.where(first.name, '<=', first.value)
  query.where((anyOf) => {
    keys.forEach((last, index) => {
      if (last.value === null && last.direction === 'desc') return // nothing sorts after null
      anyOf.orWhere((allOf) => {
        for (const { name, value } of keys.slice(0, index)) allOf.where(name, value) // null: `is null`
        if (last.value === null) allOf.whereNotNull(last.name)
        else if (last.direction === 'asc') allOf.where(last.name, '>', last.value)
        else
          allOf.where((beyond) => {
            beyond.where(last.name, '<', last.value)
            if (last.nullable) beyond.orWhereNull(last.name)
          })
      })
    })
  })
}

function column(table: string, columns: Columns, key: string): string {
  const found = Object.hasOwn(columns, key) ? columns[key] : undefined
  if (found === undefined) throw new ServiceError('InvalidInput', { reason: `Invalid sort or filter key: ${key}` })
  return `${table}.${found.name}`
}
