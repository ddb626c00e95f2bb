import { readU64, writeU64 } from '../../runtime/u64.ts'
import { BLOCKS_PER_OBJECT } from '../object-format.ts'
import { BLOCK_BITS_WORDS, type BlockBits } from './block-sets.ts'
import type { BlockRange, CopyKind } from './copy-store.ts'
import type { EpochRuns } from './epoch-runs.ts'
import { decodeVersion, type Version, versionBytes, writeVersion } from './version.ts'

/**
 * What a node keeps of its copies beside their bytes, as the journal and the log of the copies have it. All say what is from now
 * on, so that to apply them again from any point changes nothing.
 */
export type CopyRecord =
  /** What a copy is; null: nothing that a clean one would not be, or there is none. */
  | { kind: 'copy'; oid: bigint; image: CopyImage | null }
  /** A replicated write: it is in the tail from now on. */
  | { kind: 'wrote'; oid: bigint; version: Version; previous: Version | null; ranges: readonly BlockRange[] }
  /** The object has no tail. */
  | { kind: 'settled'; oid: bigint }
  /** What the version's generation wrote to the VDI up to its sequence is no tail. */
  | { kind: 'watermark'; vid: number; version: Version }
  | ({ kind: 'horizon' } & Horizon)

export interface CopyImage {
  version: Version
  /** In which it was written since the last clean one. */
  epochs: EpochRuns
  kind: CopyKind
  /** Which blocks can be read, if not all of a full copy. */
  valid: BlockBits | null
  /** The versions that it had when epochs ended since it was made, or was stale (version.ts); absent when there is none. */
  ends?: readonly Version[]
}

export interface Horizon {
  /** What was written in epochs up to this one is everywhere. */
  clean: number
  /** The last epoch in which a change may have been acknowledged before it was durable. */
  accepted: number
  /** The last epoch of which a loss of power may have taken such a change; 0: none. */
  lost: number
}

export const COPY_KINDS = ['copy', 'wrote', 'settled', 'watermark', 'horizon'] as const
const NAMES: ReadonlySet<string> = new Set(COPY_KINDS)

const FIXED_BYTES = 28
const RANGE_BYTES = 4
const VERSION_FIXED_BYTES = 21
const VALID_BYTES = BLOCK_BITS_WORDS * 4
const KINDS: readonly CopyKind[] = ['full', 'partial', 'stale', 'removed']
const HAS_VALID = 4
const HAS_ENDS = 8

export function isCopyRecord(record: { kind: string }): record is CopyRecord {
  return NAMES.has(record.kind)
}

export function copyRecordBytes(record: CopyRecord): number {
  switch (record.kind) {
    case 'copy': {
      const { image } = record
      if (!image) return FIXED_BYTES
      const endBytes = image.ends ? 1 + image.ends.reduce((sum, end) => sum + versionBytes(end), 0) : 0
      return (
        FIXED_BYTES + versionBytes(image.version) + image.epochs.length * 4 + (image.valid ? VALID_BYTES : 0) + endBytes
      )
    }
    case 'wrote': {
      const previousBytes = record.previous ? versionBytes(record.previous) : 0
      return FIXED_BYTES + versionBytes(record.version) + previousBytes + record.ranges.length * RANGE_BYTES
    }
    case 'watermark':
      return FIXED_BYTES + versionBytes(record.version)
    case 'settled':
    case 'horizon':
      return FIXED_BYTES
  }
}

/*
 * Behind the kind, as the other records (journal-format.ts): oid u64 @4, number u48 @12, two words @20, @24, and a tail.
 *
 *   copy       number 1 when there is an image, u32 @20: what it is (0 full, 1 partial, 2 stale, 3 removed), 4 when not all blocks
 *              are valid and 8 when it has ends, epochs u32 @24; tail: version, epochs (u32 each), when not all blocks are valid a bit
 *              for each, when there are ends their number u8 and each of them
 *   wrote      number 1 when there is a version before it, ranges u32 @24; tail: version, the one before, ranges of (first u16,
 *              count u16)
 *   settled    no words, no tail
 *   watermark  oid 0, number = vid; tail: version
 *   horizon    oid 0, number = clean, accepted u32 @20, lost u32 @24; no tail
 */
export function writeCopyRecord(target: Buffer, start: number, record: CopyRecord): number {
  let at = start + FIXED_BYTES
  if ('oid' in record) writeU64(target, record.oid, start + 4)
  switch (record.kind) {
    case 'copy': {
      const { image } = record
      if (!image) return at
      target.writeUIntLE(1, start + 12, 6)
      const flags = (image.valid ? HAS_VALID : 0) | (image.ends ? HAS_ENDS : 0)
      target.writeUInt32LE(KINDS.indexOf(image.kind) | flags, start + 20)
      target.writeUInt32LE(image.epochs.length, start + 24)
      at = writeVersion(target, at, image.version)
      for (const epoch of image.epochs) at = target.writeUInt32LE(epoch, at)
      for (const word of image.valid ?? []) at = target.writeUInt32LE(word, at)
      if (image.ends) at = target.writeUInt8(image.ends.length, at)
      for (const end of image.ends ?? []) at = writeVersion(target, at, end)
      return at
    }
    case 'wrote':
      target.writeUIntLE(record.previous ? 1 : 0, start + 12, 6)
      target.writeUInt32LE(record.ranges.length, start + 24)
      at = writeVersion(target, at, record.version)
      if (record.previous) at = writeVersion(target, at, record.previous)
      for (const { first, count } of record.ranges) {
        at = target.writeUInt16LE(first, at)
        at = target.writeUInt16LE(count, at)
      }
      return at
    case 'watermark':
      target.writeUIntLE(record.vid, start + 12, 6)
      return writeVersion(target, at, record.version)
    case 'settled':
      return at
    case 'horizon':
      target.writeUIntLE(record.clean, start + 12, 6)
      target.writeUInt32LE(record.accepted, start + 20)
      target.writeUInt32LE(record.lost, start + 24)
      return at
  }
}

/** Null when nobody can have written this. The fixed part is there. */
export function readCopyRecord(kind: CopyRecord['kind'], source: Buffer, start: number): CopyRecord | null {
  try {
    return readChecked(kind, source, start)
  } catch (error) {
    if (error instanceof RangeError) return null
    throw error
  }
}

/** Throws RangeError when it goes on behind the end, or when a number is none that could be. */
function readChecked(kind: CopyRecord['kind'], source: Buffer, start: number): CopyRecord {
  const oid = readU64(source, start + 4)
  const number = source.readUIntLE(start + 12, 6)
  const word20 = source.readUInt32LE(start + 20)
  const count = source.readUInt32LE(start + 24)
  let at = start + FIXED_BYTES
  const version = () => {
    const read = decodeVersion(source.subarray(at))
    const length = versionBytes(read)
    if (length !== VERSION_FIXED_BYTES + source.readUInt8(at + VERSION_FIXED_BYTES - 1))
      throw new RangeError('no UTF-8')
    at += length
    return read
  }
  switch (kind) {
    case 'copy': {
      if (number === 0) return { kind, oid, image: null }
      if (word20 > 15) throw new RangeError('no such kind')
      if (count > source.length) throw new RangeError('more epochs than bytes')
      const image: CopyImage = {
        version: version(),
        epochs: Array.from({ length: count }, (_, i) => source.readUInt32LE(at + i * 4)),
        kind: KINDS[word20 & 3]!,
        valid: (word20 & HAS_VALID) === 0 ? null : new Uint32Array(BLOCK_BITS_WORDS),
      }
      at += count * 4
      const { valid } = image
      if (valid) for (let i = 0; i < valid.length; i++) valid[i] = source.readUInt32LE(at + i * 4)
      if (valid) at += VALID_BYTES
      if ((word20 & HAS_ENDS) !== 0) {
        const ends = source.readUInt8(at++)
        image.ends = Array.from({ length: ends }, () => version())
      }
      return { kind, oid, image }
    }
    case 'wrote': {
      if (count > BLOCKS_PER_OBJECT) throw new RangeError('more ranges than blocks')
      const written = version()
      const previous = number === 0 ? null : version()
      const ranges = Array.from({ length: count }, (_, i) => ({
        first: source.readUInt16LE(at + i * RANGE_BYTES),
        count: source.readUInt16LE(at + i * RANGE_BYTES + 2),
      }))
      if (ranges.some(({ first, count }) => first + count > BLOCKS_PER_OBJECT)) throw new RangeError('no such block')
      return { kind, oid, version: written, previous, ranges }
    }
    case 'settled':
      return { kind, oid }
    case 'watermark':
      return { kind, vid: number, version: version() }
    case 'horizon':
      return { kind, clean: number, accepted: word20, lost: count }
  }
}
