import { StoreError } from '../errors.ts'
import type { SheepRequest } from '../protocol/message.ts'
import { decodeText } from '../protocol/struct.ts'

/** Throws InvalidParameters when there is none. */
export function bodyOf(request: SheepRequest): Buffer {
  if (!request.body) throw new StoreError('InvalidParameters', 'the request has no body')
  return request.body
}

/** Throws InvalidParameters for a body of any other length. */
export function bodyOfLength(request: SheepRequest, ...lengths: number[]): Buffer {
  const body = bodyOf(request)
  if (lengths.includes(body.length)) return body
  throw new StoreError('InvalidParameters', `a body of ${body.length} bytes`)
}

/** Throws InvalidParameters for a shorter body. */
export function bodyFromLength(request: SheepRequest, length: number): Buffer {
  const body = bodyOf(request)
  if (body.length >= length) return body
  throw new StoreError('InvalidParameters', `a body of ${body.length} bytes`)
}

/** JSON of an object; anything else in JSON is an object without anything. */
export function parseObject(body: Buffer): object {
  try {
    const value: unknown = JSON.parse(body.toString())
    return typeof value === 'object' && value !== null ? value : {}
  } catch {
    throw new StoreError('InvalidParameters', 'not JSON')
  }
}

/** A name in a field of fixed size: what stands before the first NUL. */
export function cString(bytes: Buffer, start: number, end: number): string {
  const text = decodeText(bytes.subarray(start, end))
  if (text === null) throw new StoreError('InvalidParameters', 'a name that is not UTF-8')
  return text
}
