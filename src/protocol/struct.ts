import { isUtf8 } from 'node:buffer'

/**
 * A fixed binary layout as data: one table of named fields gives the encoder, the decoder and the documentation.
 * Everything is little-endian; bytes that no field covers are zero when written and ignored when read.
 */
export interface Struct<T> {
  readonly sizeBytes: number
  readonly fields: { readonly [K in keyof T]: Field<T[K]> }
  /** Reads the struct that starts at `at`. Throws a RangeError when the buffer ends before it does. */
  decode(source: Buffer, at?: number): T
  /** Writes the struct at `at` over whatever is there; absent fields are zero. */
  encodeInto(target: Buffer, at: number, values: Partial<T>): void
  encode(values: Partial<T>): Buffer
}

export interface Field<V> {
  readonly offset: number
  readonly sizeBytes: number
  read(source: Buffer, at: number): V
  /** Only called on bytes that are zero. */
  write(target: Buffer, at: number, value: V): void
}

export type ValueOf<S> = S extends Struct<infer T> ? T : never

type FieldTable = Record<string, Field<unknown>>
type Values<F extends FieldTable> = { [K in keyof F]: F[K] extends Field<infer V> ? V : never }

export function struct<const F extends FieldTable>(sizeBytes: number, fields: F): Struct<Values<F>> {
  type T = Values<F>
  const entries = Object.entries(fields)
  const byName = new Map<string, Field<unknown>>(entries)
  const encodeInto = (target: Buffer, at: number, values: Partial<T>) => {
    target.fill(0, at, at + sizeBytes)
    // By the value's own keys: looking for a key that an object lacks costs four times as much as finding one.
    for (const name in values) {
      const value = values[name]
      const field = byName.get(name)
      if (value !== undefined && field !== undefined) field.write(target, at + field.offset, value)
    }
  }
  return {
    sizeBytes,
    fields: fields as unknown as Struct<T>['fields'],
    decode: (source, at = 0) => {
      if (at + sizeBytes > source.length) throw new RangeError(`${sizeBytes} bytes expected at ${at}`)
      const values: Record<string, unknown> = {}
      for (const [name, field] of entries) values[name] = field.read(source, at + field.offset)
      return values as T
    },
    encodeInto,
    encode: (values) => {
      const target = Buffer.allocUnsafe(sizeBytes)
      encodeInto(target, 0, values)
      return target
    },
  }
}

export const u8 = (offset: number): Field<number> => ({
  offset,
  sizeBytes: 1,
  read: (source, at) => source.readUInt8(at),
  write: (target, at, value) => void target.writeUInt8(value, at),
})

export const u16 = (offset: number): Field<number> => ({
  offset,
  sizeBytes: 2,
  read: (source, at) => source.readUInt16LE(at),
  write: (target, at, value) => void target.writeUInt16LE(value, at),
})

export const u32 = (offset: number): Field<number> => ({
  offset,
  sizeBytes: 4,
  read: (source, at) => source.readUInt32LE(at),
  write: (target, at, value) => void target.writeUInt32LE(value, at),
})

const TWO_TO_32 = 0x1_0000_0000

/**
 * A 64-bit count of bytes as a number. Values from 2^53 on lose their low bits, which changes nothing: every size and
 * offset that is accepted is far smaller, and what is too large stays too large.
 */
export const u64 = (offset: number): Field<number> => ({
  offset,
  sizeBytes: 8,
  read: (source, at) => source.readUInt32LE(at) + source.readUInt32LE(at + 4) * TWO_TO_32,
  write: (target, at, value) => {
    target.writeUInt32LE(value % TWO_TO_32, at)
    target.writeUInt32LE(Math.floor(value / TWO_TO_32), at + 4)
  },
})

/** A 64-bit value whose bits matter: an object id, a time stamp of seconds and nanoseconds. */
export const bits64 = (offset: number): Field<bigint> => ({
  offset,
  sizeBytes: 8,
  read: (source, at) => source.readBigUInt64LE(at),
  write: (target, at, value) => void target.writeBigUInt64LE(value, at),
})

/** Raw bytes; reading copies them, writing pads with zeros. */
export const bytes = (offset: number, sizeBytes: number): Field<Buffer> => ({
  offset,
  sizeBytes,
  read: (source, at) => Buffer.from(source.subarray(at, at + sizeBytes)),
  write: (target, at, value) => {
    if (value.length > sizeBytes) throw new RangeError(`${value.length} bytes do not fit into ${sizeBytes}`)
    value.copy(target, at)
  },
})

/** Text up to the first NUL. What does not fit is refused, never cut; a text of the full size has no NUL. */
export const text = (offset: number, sizeBytes: number): Field<string> => ({
  offset,
  sizeBytes,
  read: (source, at) => untilNul(source.subarray(at, at + sizeBytes)).toString('utf8'),
  write: (target, at, value) => {
    if (Buffer.byteLength(value) > sizeBytes) throw new RangeError(`"${value}" does not fit into ${sizeBytes} bytes`)
    target.write(value, at, 'utf8')
  },
})

export const nested = <T>(offset: number, inner: Struct<T>): Field<T> => ({
  offset,
  sizeBytes: inner.sizeBytes,
  read: (source, at) => inner.decode(source, at),
  write: (target, at, value) => inner.encodeInto(target, at, value),
})

/** `count` equal elements, one after the other. A shorter array leaves the rest zero. */
export const arrayOf = <V>(offset: number, count: number, element: Field<V>): Field<V[]> => ({
  offset,
  sizeBytes: count * element.sizeBytes,
  read: (source, at) =>
    Array.from({ length: count }, (_, index) => element.read(source, at + index * element.sizeBytes)),
  write: (target, at, values) => {
    if (values.length > count) throw new RangeError(`${values.length} elements do not fit into ${count}`)
    values.forEach((value, index) => {
      element.write(target, at + index * element.sizeBytes, value)
    })
  },
})

/**
 * The NUL-terminated text in a request's body, or null when it is not UTF-8. Names that are not UTF-8 are refused at the
 * door: decoded and encoded again they would be other bytes, and so another VDI.
 */
export function decodeText(source: Buffer): string | null {
  const used = untilNul(source)
  return isUtf8(used) ? used.toString('utf8') : null
}

function untilNul(source: Buffer): Buffer {
  const end = source.indexOf(0)
  return end === -1 ? source : source.subarray(0, end)
}
