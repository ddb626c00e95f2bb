import { ServiceError } from '../errors.ts'

/** As upstream's osapi_max_request_body_size. */
export const BODY_BYTES_MAX = 114_688

/** Deep enough for any connector, shallow enough that nothing which walks a body can run out of stack. */
export const JSON_DEPTH_MAX = 32

/**
 * A number without a fraction that was written with one: `2.0`, `2e0`. Upstream's schemas take no such number for an integer, and
 * so must not ours. Otherwise, also in JSON, it is the number.
 */
export class WholeFloat extends Number {}

/** As `parseJson`, of the bytes of a body, which are UTF-8: characters that nobody sent would be stored in place of any others. */
export function parseBody(bytes: Uint8Array): unknown {
  let source: string
  try {
    source = UTF8.decode(bytes)
  } catch {
    throw malformed()
  }
  return parseJson(source)
}

/** A mark of the order of bytes is not JSON. */
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * Parses a request body; null for an empty one. Throws InvalidInput when it is not JSON, is nested too deeply, or has a name that objects
 * cannot keep.
 */
export function parseJson(source: string): unknown {
  if (source.trim() === '') return null
  if (depthOf(source) > JSON_DEPTH_MAX) {
    const reason = `Malformed request body: nested more than ${JSON_DEPTH_MAX} levels deep`
    throw new ServiceError('InvalidInput', { reason })
  }
  let hasPrototype = false
  const revive = (key: string, value: unknown) => {
    hasPrototype ||= key === '__proto__'
    return unmark(value)
  }
  let value: unknown
  try {
    const marked = FLOAT.test(source) ? source.replace(TOKENS, markWholeFloat) : source
    value = JSON.parse(marked, revive)
  } catch {
    throw malformed()
  }
  // It would be lost without a word: most code takes it for the prototype.
  if (hasPrototype) {
    const reason = "Malformed request body: '__proto__' cannot be the name of anything"
    throw new ServiceError('InvalidInput', { reason })
  }
  return value
}

function malformed(): ServiceError {
  return new ServiceError('InvalidInput', { reason: 'Malformed request body' })
}

const FLOAT = /\d[.eE]/
const TOKENS = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g
/** Of the one member of an object that stands for a WholeFloat. */
const MARK = '\0float'

function markWholeFloat(token: string): string {
  const isOne = !token.startsWith('"') && /[.eE]/.test(token) && Number.isInteger(Number(token))
  return isOne ? JSON.stringify({ [MARK]: Number(token) }) : token
}

function unmark(value: unknown): unknown {
  const number = typeof value === 'object' && value !== null && MARK in value ? value[MARK] : null
  return typeof number === 'number' ? new WholeFloat(number) : value
}

/** Nesting of brackets outside of strings; counted before parsing, so that a hostile body is not even built. */
function depthOf(source: string): number {
  let depth = 0
  let deepest = 0
  for (let index = 0; index < source.length; index++) {
    const character = source[index]
    if (character === '"') index = endOfString(source, index)
    else if (character === '{' || character === '[') deepest = Math.max(deepest, ++depth)
    else if (character === '}' || character === ']') depth--
  }
  return deepest
}

function endOfString(source: string, start: number): number {
  for (let index = start + 1; index < source.length; index++) {
    if (source[index] === '\\') index++
    else if (source[index] === '"') return index
  }
  return source.length
}
