import { ServiceError } from '../errors.ts'

/** As upstream's osapi_max_request_body_size. */
export const BODY_BYTES_MAX = 114_688

/** Deep enough for any connector, shallow enough that nothing which walks a body can run out of stack. */
export const JSON_DEPTH_MAX = 32

/** Parses a request body; null for an empty one. Throws InvalidInput when it is not JSON or is nested too deeply. */
export function parseJson(source: string): unknown {
  if (source.trim() === '') return null
  if (depthOf(source) > JSON_DEPTH_MAX) {
    const reason = `Malformed request body: nested more than ${JSON_DEPTH_MAX} levels deep`
    throw new ServiceError('InvalidInput', { reason })
  }
  try {
    return JSON.parse(source, (key, value) => (key === '__proto__' ? undefined : value))
  } catch {
    throw new ServiceError('InvalidInput', { reason: 'Malformed request body' })
  }
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
