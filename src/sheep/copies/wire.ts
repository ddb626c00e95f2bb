import assert from 'node:assert'
import { BLOCK_BYTES } from '../object-format.ts'
import { type ByteReader, MalformedMessage } from '../peer/byte-reader.ts'
import type { FrameWriter } from '../peer/frames.ts'
import { type AnyHandler, handler, type Kind, REQUEST_COST_BYTES } from '../peer/kind.ts'
import type { CopyHolder } from './copy-holder.ts'
import { type BlockContents, type CopyState, copyWrite, type TailEntry } from './copy-store.ts'
import type { CopyAnswer, CopyRequest, CopyResults, OpenedCopy, Refusal } from './messages.ts'
import type { Generation } from './version.ts'
import { NO_VERSION, VersionArray } from './version-array.ts'
import {
  noBody,
  OID_BYTES,
  RANGE_BYTES,
  readContents,
  readGeneration,
  readInherited,
  readList,
  readOids,
  readRange,
  readRanges,
  readVersion,
  VERSION_BYTES_MIN,
  writeContents,
  writeGeneration,
  writeInherited,
  writeOids,
  writeRange,
  writeRanges,
  writeVersion,
} from './wire-fields.ts'

/**
 * Requests for copies and their answers as bytes. Numbers are little endian, `text` has its length before it, and lists begin with
 * the number of their items, u32.
 *
 * ```
 * request    = type u8, vid u32, generation, what the type has
 * generation = epoch u32, index u64, incarnation text
 * version    = 0 u8, sequence u64                  of the generation of the request
 *            | 1 u8, generation, sequence u64
 * range      = first u16, count u16                in blocks
 * contents   = runs: list of range, zeros: list of range, 0 u8 | 1 u8, base oid u64, inherited: list of range;  the blocks of the
 *              runs are the body
 * answer     = refusal u8 (0: none), result of the type of the request
 * ```
 */
const WINDOW_BYTES = 32 << 20
const WAITING_BYTES_MAX = 256 << 20
/** Longer than a busy disk takes to sync, and no more than a writer should have to wait for a sick one. */
const LIMIT_MS = 10_000
const OPENED_BYTES = 256
const LOOKED_AT_BYTES = 32

const TYPES: readonly CopyRequest['type'][] = [
  'open',
  'blocks-since',
  'adopt',
  'fill',
  'settle',
  'reserve',
  'write',
  'read',
  'sync',
  'watermark',
  'remove',
  'list',
  'layout',
  'remains',
  'mend',
  'look',
]
const REFUSALS: readonly Refusal[] = ['old generation', 'stale', 'no space', 'rotten']
const STATES: readonly CopyState['kind'][] = ['full', 'partial', 'stale', 'removed']
const WRITE_FLAG = { DURABLE: 1, PREVIOUS: 2, WATERMARK: 4 } as const
const WRITE_FLAGS_ALL = WRITE_FLAG.DURABLE | WRITE_FLAG.PREVIOUS | WRITE_FLAG.WATERMARK

/** Ordered: a holder applies what it is sent without gaps. */
export const COPY: Kind<CopyRequest, CopyAnswer> = {
  code: 19,
  name: 'copies',
  windowBytes: WINDOW_BYTES,
  waitingBytesMax: WAITING_BYTES_MAX,
  limitMs: LIMIT_MS,
  lendsBody: () => true,
  epochOf: ({ generation }) => generation.epoch,
  costBytes,
  encodeRequest,
  decodeRequest,
  encodeAnswer,
  decodeAnswer,
}

/** What a node answers for the copies that it has. */
export function copyHandler(holder: Pick<CopyHolder, 'answer'>): AnyHandler {
  return handler(COPY, (request, _from, reply) => holder.answer(request, reply))
}

function costBytes(request: CopyRequest): number {
  switch (request.type) {
    case 'write':
      return REQUEST_COST_BYTES + bytesOf(request.write)
    case 'fill':
    case 'mend':
      return REQUEST_COST_BYTES + bytesOf(request.contents)
    case 'read':
    case 'remains':
      return REQUEST_COST_BYTES + request.range.count * BLOCK_BYTES
    case 'open':
      return REQUEST_COST_BYTES + request.oids.length * OPENED_BYTES
    case 'look':
      return REQUEST_COST_BYTES + request.oids.length * LOOKED_AT_BYTES
    default:
      return REQUEST_COST_BYTES
  }
}

function bytesOf({ blocks }: BlockContents): number {
  let sum = 0
  for (const { bytes } of blocks) sum += bytes.length
  return sum
}

function encodeRequest(request: CopyRequest, out: FrameWriter): void {
  const { type, vid, generation } = request
  out.u8(TYPES.indexOf(type))
  out.u32(vid)
  writeGeneration(out, generation)
  switch (type) {
    case 'open':
    case 'look':
      return writeOids(out, request.oids)
    case 'blocks-since':
      out.bits64(request.oid)
      return writeVersion(out, request.since, generation)
    case 'adopt':
      out.bits64(request.adoption.oid)
      writeVersion(out, request.adoption.version, generation)
      out.u8(request.adoption.kind === 'full' ? 1 : 0)
      return writeRanges(out, request.adoption.valid)
    case 'fill':
    case 'mend':
      out.bits64(request.oid)
      return writeContents(out, request.contents)
    case 'settle':
      return out.bits64(request.oid)
    case 'reserve':
      out.bits64(request.oid)
      return writeRanges(out, request.blocks)
    case 'write':
      return writeWrite(out, request)
    case 'read':
    case 'layout':
    case 'remains':
      out.bits64(request.oid)
      return writeRange(out, request.range)
    case 'sync':
      return
    case 'watermark':
      return writeVersion(out, request.watermark, generation)
    case 'remove':
      out.bits64(request.oid)
      return writeVersion(out, request.version, generation)
    case 'list':
      return
  }
}

function writeWrite(out: FrameWriter, request: CopyRequest & { type: 'write' }): void {
  const { write, durable, watermark, generation } = request
  out.bits64(write.oid)
  out.u8(
    (durable ? WRITE_FLAG.DURABLE : 0) |
      (write.previous ? WRITE_FLAG.PREVIOUS : 0) |
      (watermark ? WRITE_FLAG.WATERMARK : 0),
  )
  writeVersion(out, write.version, generation)
  if (write.previous) writeVersion(out, write.previous, generation)
  if (watermark) writeVersion(out, watermark, generation)
  writeContents(out, write)
}

function decodeRequest(fields: ByteReader, body: Buffer): CopyRequest {
  const type = TYPES[fields.u8('type')]
  if (!type) throw new MalformedMessage('type is of no request for copies')
  const vid = fields.u32('vid')
  const generation = readGeneration(fields, 'generation')
  const of = { vid, generation }
  if (type !== 'write' && type !== 'fill' && type !== 'mend') noBody(body)
  switch (type) {
    case 'open':
    case 'look':
      return { ...of, type, oids: readOids(fields) }
    case 'blocks-since':
      return { ...of, type, oid: fields.bits64('oid'), since: readVersion(fields, 'since', generation) }
    case 'adopt': {
      const oid = fields.bits64('oid')
      const version = readVersion(fields, 'version', generation)
      const kind = fields.u8('kind') === 0 ? 'partial' : 'full'
      return { ...of, type, adoption: { oid, version, kind, valid: readRanges(fields, 'valid') } }
    }
    case 'fill':
    case 'mend': {
      const oid = fields.bits64('oid')
      return { ...of, type, oid, contents: readContents(fields, body) }
    }
    case 'settle':
      return { ...of, type, oid: fields.bits64('oid') }
    case 'reserve':
      return { ...of, type, oid: fields.bits64('oid'), blocks: readRanges(fields, 'blocks') }
    case 'write':
      return readWrite(fields, body, of)
    case 'read':
    case 'layout':
    case 'remains':
      return { ...of, type, oid: fields.bits64('oid'), range: readRange(fields, 'range') }
    case 'sync':
      return { ...of, type }
    case 'watermark':
      return { ...of, type, watermark: readVersion(fields, 'watermark', generation) }
    case 'remove':
      return { ...of, type, oid: fields.bits64('oid'), version: readVersion(fields, 'version', generation) }
    case 'list':
      return { ...of, type }
  }
}

function readWrite(
  fields: ByteReader,
  body: Buffer,
  { vid, generation }: { vid: number; generation: Generation },
): CopyRequest {
  const oid = fields.bits64('oid')
  const flags = fields.u8('flags')
  if ((flags & ~WRITE_FLAGS_ALL) !== 0) throw new MalformedMessage(`flags ${flags} are of no write`)
  const version = readVersion(fields, 'version', generation)
  const previous = (flags & WRITE_FLAG.PREVIOUS) !== 0 ? readVersion(fields, 'previous', generation) : null
  const watermark = (flags & WRITE_FLAG.WATERMARK) !== 0 ? readVersion(fields, 'watermark', generation) : null
  const write = copyWrite({ oid, version, previous }, readContents(fields, body))
  return { vid, generation, type: 'write', write, durable: (flags & WRITE_FLAG.DURABLE) !== 0, watermark }
}

function encodeAnswer(answer: CopyAnswer, out: FrameWriter, { type, generation }: CopyRequest): void {
  out.u8(answer.refused === null ? 0 : 1 + REFUSALS.indexOf(answer.refused))
  if (answer.refused !== null) return
  switch (type) {
    case 'open':
      return writeOpened(out, answer.result as CopyResults['open'], generation)
    case 'look':
      return writeLookedAt(out, answer.result as CopyResults['look'])
    case 'blocks-since':
      return writeRanges(out, answer.result as CopyResults['blocks-since'])
    case 'read':
    case 'remains':
      return writeContents(out, answer.result as CopyResults['read'])
    case 'mend':
      return out.u8(answer.result ? 1 : 0)
    case 'list':
      return writeOids(out, answer.result as CopyResults['list'])
    case 'layout': {
      const { data, inherited } = answer.result as CopyResults['layout']
      writeRanges(out, data)
      return writeInherited(out, inherited)
    }
    default:
      assert(answer.result === null)
  }
}

function decodeAnswer(fields: ByteReader, body: Buffer, request: CopyRequest): CopyAnswer {
  const { generation } = request
  const code = fields.u8('refused')
  const refused = code === 0 ? undefined : REFUSALS[code - 1]
  if (code > REFUSALS.length) throw new MalformedMessage(`refused ${code} is of no refusal`)
  if (refused !== undefined || (request.type !== 'read' && request.type !== 'remains')) noBody(body)
  if (refused !== undefined) return { refused }
  switch (request.type) {
    case 'open':
      return { refused: null, result: readOpened(fields, generation) }
    case 'look':
      return { refused: null, result: readLookedAt(fields, request.oids.length) }
    case 'blocks-since':
      return { refused: null, result: readRanges(fields, 'blocks') }
    case 'read':
    case 'remains':
      return { refused: null, result: readContents(fields, body) }
    case 'mend':
      return { refused: null, result: fields.u8('matched') !== 0 }
    case 'layout':
      return { refused: null, result: { data: readRanges(fields, 'data'), ...readInherited(fields) } }
    case 'list':
      return { refused: null, result: readOids(fields) }
    default:
      return { refused: null, result: null }
  }
}

function writeOpened(
  out: FrameWriter,
  { copies, lostThroughEpoch }: CopyResults['open'],
  generation: Generation,
): void {
  out.u32(lostThroughEpoch)
  out.u32(copies.length)
  for (const { oid, state, allocated, tail } of copies) {
    out.bits64(oid)
    out.u8(state === null ? 0 : 1 + STATES.indexOf(state.kind))
    if (state) {
      writeVersion(out, state.version, generation)
      writeRanges(out, state.valid)
    }
    writeRanges(out, allocated)
    out.u32(tail.length)
    for (const entry of tail) {
      writeRange(out, entry)
      writeVersion(out, entry.version, generation)
      out.u8(entry.previous ? 1 : 0)
      if (entry.previous) writeVersion(out, entry.previous, generation)
    }
  }
}

const COPY_BYTES_MIN = OID_BYTES + 9
const TAIL_ENTRY_BYTES_MIN = RANGE_BYTES + VERSION_BYTES_MIN + 1

function readOpened(fields: ByteReader, generation: Generation): CopyResults['open'] {
  const lostThroughEpoch = fields.u32('lostThroughEpoch')
  const copies = readList(fields, 'copies', COPY_BYTES_MIN, (): OpenedCopy => {
    const oid = fields.bits64('oid')
    const state = readState(fields, generation)
    const allocated = readRanges(fields, 'allocated')
    const tail = readList(fields, 'tail', TAIL_ENTRY_BYTES_MIN, (): TailEntry => {
      const range = readRange(fields, 'tail')
      const version = readVersion(fields, 'tail.version', generation)
      const hasPrevious = fields.u8('tail.previous') !== 0
      return { ...range, version, previous: hasPrevious ? readVersion(fields, 'tail.previous', generation) : null }
    })
    return { oid, state, allocated, tail }
  })
  return { lostThroughEpoch, copies }
}

function writeLookedAt(out: FrameWriter, { generations, places, sequences }: VersionArray): void {
  out.u8(generations.length)
  for (const generation of generations) writeGeneration(out, generation)
  for (const [at, place] of places.entries()) {
    out.u8(place)
    if (place !== NO_VERSION) out.whole(sequences[at]!)
  }
}

function readLookedAt(fields: ByteReader, count: number): VersionArray {
  const versions = new VersionArray(count)
  for (let left = fields.u8('generations'); left > 0; left--)
    versions.generations.push(readGeneration(fields, 'generations'))
  for (let at = 0; at < count; at++) {
    const place = fields.u8('version')
    if (place > versions.generations.length) throw new MalformedMessage(`version ${place} is of no generation`)
    versions.places[at] = place
    if (place !== NO_VERSION) versions.sequences[at] = fields.whole('version')
  }
  return versions
}

function readState(fields: ByteReader, generation: Generation): CopyState | null {
  const code = fields.u8('state')
  if (code === 0) return null
  const kind = STATES[code - 1]
  if (!kind) throw new MalformedMessage(`state ${code} is of no copy`)
  const version = readVersion(fields, 'state.version', generation)
  return { version, kind, valid: readRanges(fields, 'valid') }
}
