import assert from 'node:assert'
import { crc32 } from '@node-rs/crc32'
import { StoreError } from '../errors.ts'
import { readU64, writeU64 } from '../runtime/u64.ts'
import {
  COPY_KINDS,
  type CopyRecord,
  copyRecordBytes,
  isCopyRecord,
  readCopyRecord,
  writeCopyRecord,
} from './copies/copy-records.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT, type InheritRun, slotOf } from './object-format.ts'

/**
 * The bytes of a journal segment: frames, one after the other, each a whole number of 4 KiB pages.
 *
 *   frame    = meta pages, payload pages
 *   meta     = fixed header (72 bytes), records, padding; covered by one CRC in the header
 *   payload  = the 4 KiB blocks of the frame's `blocks` records, in order, each covered by the CRC in its record
 *
 * A frame is one group commit: it counts as a whole or not at all. Sequence numbers run on through generations without
 * a gap. `syncedSequence` says that every frame below it was durable when this one was written: damage below that mark
 * is rot, above it is the torn tail of a crash.
 */
export interface FrameHeader {
  storeId: Buffer
  /** Random for each start of the node: frames that an earlier life left in the segment do not continue this one's. */
  incarnation: number
  /** Counts the fillings of segments. */
  generation: number
  sequence: number
  syncedSequence: number
  metaPages: number
  payloadPages: number
}

/**
 * One change as the journal keeps it. `version` is the object's after the change. The bytes of `placed` blocks are not in the
 * journal but in the object's file, in the slots that the words name; `tag` says that the file of a new object exists
 * already, under a name with that tag (0: it does not), and `disk` on which of the store's disks; see shortIdOf.
 */
export type JournalRecord =
  | {
      kind: 'create'
      oid: bigint
      version: number
      epoch: number
      tag: number
      disk: number
      runs: readonly InheritRun[]
    }
  | { kind: 'blocks' | 'placed'; oid: bigint; version: number; first: number; count: number; words: Uint32Array }
  | { kind: 'zero'; oid: bigint; version: number; epoch: number; first: number; count: number }
  | { kind: 'inherit'; oid: bigint; version: number; first: number; count: number; holderVid: number }
  | { kind: 'remove'; oid: bigint; version: number }
  | { kind: 'entry'; index: number; bytes: Buffer }
  | AccountImage
  | CopyRecord

/** What the account of a VDI says after a change: holder → blocks. `whole` when it says nothing else any more. */
export interface AccountImage {
  kind: 'account'
  vid: number
  whole: boolean
  blocks: readonly (readonly [holderVid: number, blocks: number])[]
}

const MAGIC = 0x6e724a43 // "CJrn"
/**
 * Format 1 had no `placed` and `account` records and no tags, format 2 placed on the first disk alone, and format 3 knew nothing of
 * copies, nor had it `inherit` records; what they wrote reads the same.
 */
const FORMAT = 4
const HEADER_BYTES = 72
const RECORD_FIXED_BYTES = 28
const ACCOUNT_PAIR_BYTES = 12
const CRC_OFFSET = HEADER_BYTES - 4
const OWN_KINDS = ['create', 'blocks', 'zero', 'remove', 'entry', 'placed', 'account', 'inherit'] as const
const KINDS: readonly string[] = [...OWN_KINDS, ...COPY_KINDS]

/** Bytes that a record takes in the meta pages. */
export function recordBytes(record: JournalRecord): number {
  switch (record.kind) {
    case 'create':
      return RECORD_FIXED_BYTES + record.runs.length * 12
    case 'blocks':
    case 'placed':
      return RECORD_FIXED_BYTES + record.count * 8
    case 'zero':
    case 'inherit':
    case 'remove':
      return RECORD_FIXED_BYTES
    case 'entry':
      return RECORD_FIXED_BYTES + record.bytes.length
    case 'account':
      return RECORD_FIXED_BYTES + record.blocks.length * ACCOUNT_PAIR_BYTES
    default:
      return copyRecordBytes(record)
  }
}

export function metaPagesFor(recordsBytes: number): number {
  return Math.ceil((HEADER_BYTES + recordsBytes) / BLOCK_BYTES)
}

/** `scratch` is used again when it is long enough: whatever the call before has returned is not valid any more then. */
export function encodeMeta(header: FrameHeader, records: readonly JournalRecord[], scratch?: Buffer): Buffer {
  const length = header.metaPages * BLOCK_BYTES
  const isEnough = scratch !== undefined && scratch.length >= length
  const meta = isEnough ? scratch.subarray(0, length).fill(0) : Buffer.alloc(length)
  meta.writeUInt32LE(MAGIC, 0)
  meta.writeUInt32LE(FORMAT, 4)
  header.storeId.copy(meta, 8)
  meta.writeUInt32LE(header.incarnation, 24)
  writeCount(meta, header.generation, 28)
  writeCount(meta, header.sequence, 36)
  writeCount(meta, header.syncedSequence, 44)
  meta.writeUInt32LE(header.metaPages, 52)
  meta.writeUInt32LE(header.payloadPages, 56)
  meta.writeUInt32LE(records.length, 60)
  let at = HEADER_BYTES
  for (const record of records) at = writeRecord(meta, at, record)
  assert(at <= meta.length)
  meta.writeUInt32LE(metaCrc(meta), CRC_OFFSET)
  return meta
}

/** CRC-32 of all but the field that holds it. */
function metaCrc(meta: Buffer): number {
  return crc32(meta.subarray(HEADER_BYTES), crc32(meta.subarray(0, CRC_OFFSET)))
}

/** The header of a frame that starts with this page, if the page looks like the start of one. Proves nothing yet. */
export function peekHeader(page: Buffer): FrameHeader | null {
  if (page.length < HEADER_BYTES || page.readUInt32LE(0) !== MAGIC) return null
  return {
    storeId: Buffer.from(page.subarray(8, 24)),
    incarnation: page.readUInt32LE(24),
    generation: readCount(page, 28),
    sequence: readCount(page, 36),
    syncedSequence: readCount(page, 44),
    metaPages: page.readUInt32LE(52),
    payloadPages: page.readUInt32LE(56),
  }
}

/**
 * The records of whole meta pages, or null when they do not match their CRC. Throws DiskFailed when they are whole, but of a
 * format that another version wrote, and CorruptBlock when a record is none that could have been written: neither must be
 * taken for a torn tail.
 */
export function decodeMeta(meta: Buffer): JournalRecord[] | null {
  if (metaCrc(meta) !== meta.readUInt32LE(CRC_OFFSET)) return null
  const format = meta.readUInt32LE(4)
  if (format < 1 || format > FORMAT) {
    throw new StoreError('DiskFailed', `the journal has format ${format}; this version reads up to format ${FORMAT}`)
  }
  const records: JournalRecord[] = []
  let at = HEADER_BYTES
  for (let left = meta.readUInt32LE(60); left > 0; left--) {
    const record = readRecord(meta, at)
    records.push(record)
    at += recordBytes(record)
  }
  return records
}

/*
 * record   = kind u32 @0, oid u64 @4, version u48 @12, disk u16 @18, then two words and a tail that depend on the kind:
 *
 *   create   epoch u32 @20, run count u16 @24, tag u16 @26; tail: runs of (first u32, count u32, holder vid u32). Only here
 *            the disk is not 0
 *   blocks   first u32 @20, count u32 @24; tail: entries of (w0 u32, w1 u32), one for each payload block
 *   placed   as blocks, but without payload
 *   zero     epoch u32 @20, count u16 @24, first u16 @26; no tail
 *   inherit  holder vid u32 @20, count u16 @24, first u16 @26; no tail
 *   remove   no words, no tail
 *   entry    oid 0, version = index in the ordered log, length u32 @24; tail: the bytes
 *   account  oid 0, version = vid, whole u32 @20, pair count u32 @24; tail: pairs of (holder vid u32, blocks u64)
 *
 * and those of copies (copies/copy-records.ts).
 */
export function writeRecord(meta: Buffer, start: number, record: JournalRecord): number {
  meta.writeUInt32LE(KINDS.indexOf(record.kind), start)
  if (isCopyRecord(record)) return writeCopyRecord(meta, start, record)
  if ('oid' in record) writeU64(meta, record.oid, start + 4)
  meta.writeUIntLE(numberOf(record), start + 12, 6)
  let at = start + RECORD_FIXED_BYTES
  switch (record.kind) {
    case 'create':
      meta.writeUInt16LE(record.disk, start + 18)
      meta.writeUInt32LE(record.epoch, start + 20)
      meta.writeUInt16LE(record.runs.length, start + 24)
      meta.writeUInt16LE(record.tag, start + 26)
      for (const run of record.runs) {
        meta.writeUInt32LE(run.first, at)
        meta.writeUInt32LE(run.count, at + 4)
        meta.writeUInt32LE(run.holderVid, at + 8)
        at += 12
      }
      return at
    case 'blocks':
    case 'placed':
      meta.writeUInt32LE(record.first, start + 20)
      meta.writeUInt32LE(record.count, start + 24)
      for (let i = 0; i < record.count * 2; i++) {
        meta.writeUInt32LE(record.words[i]!, at)
        at += 4
      }
      return at
    case 'zero':
      meta.writeUInt32LE(record.epoch, start + 20)
      meta.writeUInt16LE(record.count, start + 24)
      meta.writeUInt16LE(record.first, start + 26)
      return at
    case 'inherit':
      meta.writeUInt32LE(record.holderVid, start + 20)
      meta.writeUInt16LE(record.count, start + 24)
      meta.writeUInt16LE(record.first, start + 26)
      return at
    case 'remove':
      return at
    case 'entry':
      meta.writeUInt32LE(record.bytes.length, start + 24)
      record.bytes.copy(meta, at)
      return at + record.bytes.length
    case 'account':
      meta.writeUInt32LE(record.whole ? 1 : 0, start + 20)
      meta.writeUInt32LE(record.blocks.length, start + 24)
      for (const [holderVid, blocks] of record.blocks) {
        meta.writeUInt32LE(holderVid, at)
        writeCount(meta, blocks, at + 4)
        at += ACCOUNT_PAIR_BYTES
      }
      return at
  }
}

function numberOf(record: Exclude<JournalRecord, CopyRecord>): number {
  if (record.kind === 'entry') return record.index
  return record.kind === 'account' ? record.vid : record.version
}

export function readRecord(meta: Buffer, start: number): JournalRecord {
  if (start + RECORD_FIXED_BYTES > meta.length) throw malformed(start)
  const number = meta.readUInt32LE(start)
  const kind = OWN_KINDS[number]
  const oid = readU64(meta, start + 4)
  const version = meta.readUIntLE(start + 12, 6)
  const word20 = meta.readUInt32LE(start + 20)
  const count = meta.readUInt32LE(start + 24)
  const at = start + RECORD_FIXED_BYTES
  switch (kind) {
    case 'create': {
      if (at + (count & 0xffff) * 12 > meta.length) throw malformed(start)
      const runs = Array.from({ length: count & 0xffff }, (_, i) => ({
        first: meta.readUInt32LE(at + i * 12),
        count: meta.readUInt32LE(at + i * 12 + 4),
        holderVid: meta.readUInt32LE(at + i * 12 + 8),
      }))
      if (runs.some((run) => !isWithinObject(run.first, run.count))) throw malformed(start)
      const disk = meta.readUInt16LE(start + 18)
      return { kind, oid, version, epoch: word20, tag: count >>> 16, disk, runs }
    }
    case 'blocks':
    case 'placed': {
      if (!isWithinObject(word20, count) || at + count * 8 > meta.length) throw malformed(start)
      const words = new Uint32Array(count * 2)
      for (let i = 0; i < words.length; i++) words[i] = meta.readUInt32LE(at + i * 4)
      for (let i = 1; i < words.length; i += 2) if (slotOf(words[i]!) === null) throw malformed(start)
      return { kind, oid, version, first: word20, count, words }
    }
    case 'zero':
      if (!isWithinObject(count >>> 16, count & 0xffff)) throw malformed(start)
      return { kind, oid, version, epoch: word20, first: count >>> 16, count: count & 0xffff }
    case 'inherit':
      if (!isWithinObject(count >>> 16, count & 0xffff)) throw malformed(start)
      return { kind, oid, version, holderVid: word20, first: count >>> 16, count: count & 0xffff }
    case 'remove':
      return { kind, oid, version }
    case 'entry':
      if (at + count > meta.length) throw malformed(start)
      return { kind, index: version, bytes: Buffer.from(meta.subarray(at, at + count)) }
    case 'account': {
      if (at + count * ACCOUNT_PAIR_BYTES > meta.length) throw malformed(start)
      const blocks = Array.from({ length: count }, (_, i) => {
        const pair = at + i * ACCOUNT_PAIR_BYTES
        return [meta.readUInt32LE(pair), readCount(meta, pair + 4)] as const
      })
      return { kind, vid: version, whole: word20 === 1, blocks }
    }
    default:
      return readOfCopies(number - OWN_KINDS.length, meta, start)
  }
}

function readOfCopies(number: number, meta: Buffer, start: number): CopyRecord {
  const kind = COPY_KINDS[number]
  const record = kind && readCopyRecord(kind, meta, start)
  if (!record) throw malformed(start)
  return record
}

const isWithinObject = (first: number, count: number) => first + count <= BLOCKS_PER_OBJECT

function malformed(at: number): StoreError {
  return new StoreError(
    'CorruptBlock',
    `the journal has a record at byte ${at} of a frame that nobody can have written`,
  )
}

/** Counts up to 2^53 in eight bytes; two numbers instead of a BigInt. */
function writeCount(target: Buffer, value: number, offset: number): void {
  target.writeUInt32LE(value % 0x1_0000_0000, offset)
  target.writeUInt32LE(Math.floor(value / 0x1_0000_0000), offset + 4)
}

function readCount(source: Buffer, offset: number): number {
  return source.readUInt32LE(offset) + source.readUInt32LE(offset + 4) * 0x1_0000_0000
}
