import { capabilitiesOf } from './capabilities.ts'
import type { Pool } from './scheduler.ts'

/** Nested deeper is refused: the text comes from a user. */
const DEPTH_MAX = 16

/** A query that means nothing; the message says why. */
class QueryError extends Error {}

/**
 * Why the hint `query` of upstream's JSON filter leaves the pool out, or null: `["and", [">=", "$free_capacity_gb", 20],
 * ["=", "$volume_backend_name", "fast"]]`. The first entry is a command, the others are values, commands, or `$name` of
 * what the pool says of itself (`$capabilities.name` is the same).
 */
export function refuseForQuery(query: unknown, pool: Pool): string | null {
  if (query === null || query === undefined || query === '') return null
  try {
    const parsed = typeof query === 'string' ? parse(query) : query
    if (Array.isArray(parsed) && parsed.length === 0) return null
    return isTrue(evaluate(parsed, pool, 0)) ? null : 'it is not what the hint `query` asks for'
  } catch (error) {
    if (error instanceof QueryError) return `the hint \`query\` cannot be understood: ${error.message}`
    throw error
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new QueryError('it is not JSON')
  }
}

function evaluate(query: unknown, pool: Pool, depth: number): unknown {
  if (!Array.isArray(query)) return typeof query === 'string' ? lookUp(query, pool) : query
  if (depth > DEPTH_MAX) throw new QueryError(`it is nested deeper than ${DEPTH_MAX}`)
  const [command, ...given] = query as unknown[]
  if (typeof command !== 'string' || !Object.hasOwn(COMMANDS, command)) {
    throw new QueryError(`a list has to begin with one of ${Object.keys(COMMANDS).join(' ')}`)
  }
  const values = given.map((value) => evaluate(value, pool, depth + 1)).filter((value) => value !== null)
  return COMMANDS[command]!(values)
}

/** `$name` of a pool; null when it says nothing of the kind. */
function lookUp(text: string, pool: Pool): unknown {
  if (!text.startsWith('$')) return text
  const name = text.slice(1).replace(/^capabilities\./, '')
  if (name === 'host' || name === 'backend_id') return pool.name
  const capabilities = capabilitiesOf(pool)
  return Object.hasOwn(capabilities, name) ? capabilities[name] : null
}

/** The first value against each of the others; with nothing to compare it does not hold. */
const compared =
  (compare: (a: string | number, b: string | number) => boolean) =>
  ([first, ...others]: unknown[]): boolean =>
    others.length > 0 &&
    others.every(
      (other) => isComparable(first) && isComparable(other) && typeof first === typeof other && compare(first, other),
    )

const COMMANDS: Readonly<Record<string, (values: unknown[]) => unknown>> = {
  '=': ([first, ...others]) => others.length > 0 && others.every((other) => other === first),
  '<': compared((a, b) => a < b),
  '>': compared((a, b) => a > b),
  '<=': compared((a, b) => a <= b),
  '>=': compared((a, b) => a >= b),
  in: ([first, ...others]) => others.length > 0 && others.includes(first),
  not: (values) => values.map((value) => !isTrue(value)),
  or: (values) => values.some(isTrue),
  and: (values) => values.every(isTrue),
}

/** Of the answers of `not` one has to be true. */
function isTrue(value: unknown): boolean {
  return Array.isArray(value) ? value.some(isTrue) : Boolean(value)
}

function isComparable(value: unknown): value is string | number {
  return typeof value === 'string' || typeof value === 'number'
}
