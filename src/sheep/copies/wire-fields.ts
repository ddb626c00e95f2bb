import assert from 'node:assert'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT } from '../object-format.ts'
import { type ByteReader, MalformedMessage } from '../peer/byte-reader.ts'
import type { FrameWriter } from '../peer/frames.ts'
import type { BlockContents, BlockRange, BlockRun, Inherited } from './copy-store.ts'
import { compareGenerations, type Generation, type Version } from './version.ts'

/** What requests for copies and their answers are made of; `wire.ts` says how. */
export const OID_BYTES = 8
export const RANGE_BYTES = 4
export const VERSION_BYTES_MIN = 9

export function writeGeneration(out: FrameWriter, { epoch, index, incarnation }: Generation): void {
  out.u32(epoch)
  out.whole(index)
  out.shortText(incarnation)
}

export function readGeneration(fields: ByteReader, field: string): Generation {
  return { epoch: fields.u32(field), index: fields.whole(field), incarnation: fields.shortText(field) }
}

export function writeVersion(out: FrameWriter, { generation, sequence }: Version, of: Generation): void {
  const isSame =
    generation === of || (compareGenerations(generation, of) === 0 && generation.incarnation === of.incarnation)
  out.u8(isSame ? 0 : 1)
  if (!isSame) writeGeneration(out, generation)
  out.whole(sequence)
}

export function readVersion(fields: ByteReader, field: string, of: Generation): Version {
  const isOther = fields.u8(field)
  if (isOther > 1) throw new MalformedMessage(`${field} has no generation`)
  return { generation: isOther ? readGeneration(fields, field) : of, sequence: fields.whole(field) }
}

export function writeRange(out: FrameWriter, { first, count }: BlockRange): void {
  out.u16(first)
  out.u16(count)
}

export function readRange(fields: ByteReader, field: string): BlockRange {
  const range = { first: fields.u16(field), count: fields.u16(field) }
  if (range.first + range.count > BLOCKS_PER_OBJECT) throw new MalformedMessage(`${field} goes beyond its object`)
  return range
}

export function writeRanges(out: FrameWriter, ranges: readonly BlockRange[]): void {
  out.u32(ranges.length)
  for (const range of ranges) writeRange(out, range)
}

export function readRanges(fields: ByteReader, field: string): BlockRange[] {
  return readList(fields, field, RANGE_BYTES, () => readRange(fields, field))
}

export function readList<T>(fields: ByteReader, field: string, itemBytesMin: number, read: () => T): T[] {
  const items: T[] = []
  for (let left = fields.count(field, itemBytesMin); left > 0; left--) items.push(read())
  return items
}

export function writeOids(out: FrameWriter, oids: readonly bigint[]): void {
  out.u32(oids.length)
  for (const oid of oids) out.bits64(oid)
}

export function readOids(fields: ByteReader): bigint[] {
  return readList(fields, 'oids', OID_BYTES, () => fields.bits64('oid'))
}

export function writeContents(out: FrameWriter, { blocks, zeros, inherited }: BlockContents): void {
  out.u32(blocks.length)
  for (const { first, bytes } of blocks) {
    assert(bytes.length % BLOCK_BYTES === 0)
    writeRange(out, { first, count: bytes.length / BLOCK_BYTES })
  }
  writeRanges(out, zeros)
  writeInherited(out, inherited)
  for (const { bytes } of blocks) out.body(bytes)
}

export function writeInherited(out: FrameWriter, inherited: Inherited | undefined): void {
  out.u8(inherited ? 1 : 0)
  if (!inherited) return
  out.bits64(inherited.base)
  writeRanges(out, inherited.ranges)
}

export function readInherited(fields: ByteReader): { inherited?: Inherited } {
  if (fields.u8('inherited') === 0) return {}
  return { inherited: { base: fields.bits64('base'), ranges: readRanges(fields, 'inherited') } }
}

export function readContents(fields: ByteReader, body: Buffer): BlockContents {
  let at = 0
  const blocks = readList(fields, 'runs', RANGE_BYTES, (): BlockRun => {
    const { first, count } = readRange(fields, 'runs')
    const start = at
    at += count * BLOCK_BYTES
    return { first, bytes: body.subarray(start, at) }
  })
  if (at !== body.length) throw new MalformedMessage(`body: ${body.length} bytes where runs have ${at}`)
  const zeros = readRanges(fields, 'zeros')
  const { inherited } = readInherited(fields)
  return inherited ? { blocks, zeros, inherited } : { blocks, zeros }
}

export function noBody(body: Buffer): void {
  if (body.length > 0) throw new MalformedMessage(`body: ${body.length} bytes where there is none`)
}
