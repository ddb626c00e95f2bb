/**
 * The name of a state of an object. An owner numbers all that it writes to its VDI; a generation is one owner under one view.
 *
 * The order of versions is the order of the log: a node that knows the view `epoch` also knows every owner that was named before
 * that view. So no two owners ever have the same generation, and one that was replaced never has the higher one.
 */
export interface Generation {
  /** The view that the owner acts under, not the one that it was named in. */
  epoch: number
  /** The entry of the log that named the owner. */
  index: number
  /** The life of the owner's process. It follows from `index`; said for those who read it. */
  incarnation: string
}

export interface Version {
  generation: Generation
  /** Counts the writes of a generation to its VDI, from 1. */
  sequence: number
}

export function compareGenerations(a: Generation, b: Generation): number {
  return a.epoch - b.epoch || a.index - b.index
}

export function compareVersions(a: Version, b: Version): number {
  return compareGenerations(a.generation, b.generation) || a.sequence - b.sequence
}

/** `null` is the state before the first write. */
export function isSameVersion(a: Version | null, b: Version | null): boolean {
  return a === b || (a !== null && b !== null && compareVersions(a, b) === 0)
}

/**
 * That of a whole copy of which nothing is remembered, because all that was written in epochs up to this one is in it: it comes after
 * every version of these, or a copy that missed the last writes of them would count as the newer one.
 */
export function cleanVersion(epoch: number): Version {
  return { generation: { epoch, index: Number.MAX_SAFE_INTEGER, incarnation: '' }, sequence: 0 }
}

export const isClean = ({ generation }: Version): boolean => generation.index === Number.MAX_SAFE_INTEGER

/** More are not kept of one copy: who was away for more views gets more than he lacks. */
const ENDS_MAX = 4

/**
 * The versions that a copy had at the ends of earlier epochs, newest last, when it had `version` and gets `next`: whoever stopped at
 * one of them lacks nothing of its epoch.
 */
export function endsAfter(ends: readonly Version[], version: Version, next: Version): readonly Version[] {
  if (version.generation.epoch === next.generation.epoch) return ends
  return [...ends, version].slice(-ENDS_MAX)
}

/** The first epoch of which a copy that stopped at `since` may lack something, going by the ends of one that has more. */
export function firstLacking(ends: readonly Version[], since: Version): number {
  const { epoch } = since.generation
  return ends.some((end) => isSameVersion(end, since)) ? epoch + 1 : epoch
}

/** For logs and reports. */
export function formatVersion({ generation: { epoch, index }, sequence }: Version): string {
  return `${epoch}.${index}.${sequence}`
}

const FIXED_BYTES = 21

/**
 * ```
 * epoch u32 | index u64 | sequence u64 | length of the incarnation u8 | incarnation
 * ```
 * All little endian.
 */
export function encodeVersion(version: Version): Buffer {
  const bytes = Buffer.alloc(versionBytes(version))
  writeVersion(bytes, 0, version)
  return bytes
}

/** The length of `encodeVersion`. */
export function versionBytes({ generation }: Version): number {
  return FIXED_BYTES + incarnationBytes(generation).length
}

/** As `encodeVersion`, from a place in `target` on; returns where it ends. */
export function writeVersion(target: Buffer, at: number, { generation, sequence }: Version): number {
  const incarnation = incarnationBytes(generation)
  target.writeUInt32LE(generation.epoch, at)
  writeWhole(target, at + 4, generation.index)
  writeWhole(target, at + 12, sequence)
  target.writeUInt8(incarnation.length, at + 20)
  target.set(incarnation, at + FIXED_BYTES)
  return at + FIXED_BYTES + incarnation.length
}

/** Versions that are written one after the other are mostly of one owner. */
let lastIncarnation = { text: '', bytes: Buffer.alloc(0) }

function incarnationBytes({ incarnation }: Generation): Buffer {
  if (lastIncarnation.text !== incarnation) lastIncarnation = { text: incarnation, bytes: Buffer.from(incarnation) }
  return lastIncarnation.bytes
}

const TWO_TO_32 = 0x1_0000_0000

function writeWhole(target: Buffer, at: number, value: number): void {
  target.writeUInt32LE(value % TWO_TO_32, at)
  target.writeUInt32LE(Math.floor(value / TWO_TO_32), at + 4)
}

/** Throws a RangeError when the bytes end too early, or say more than a number can hold. */
export function decodeVersion(bytes: Buffer): Version {
  const end = FIXED_BYTES + bytes.readUInt8(20)
  if (bytes.length < end) throw new RangeError('the version ends too early')
  return {
    generation: {
      epoch: bytes.readUInt32LE(0),
      index: wholeNumber(bytes.readBigUInt64LE(4)),
      incarnation: bytes.toString('utf8', FIXED_BYTES, end),
    },
    sequence: wholeNumber(bytes.readBigUInt64LE(12)),
  }
}

function wholeNumber(value: bigint): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new RangeError(`no owner has counted to ${value}`)
  return Number(value)
}
