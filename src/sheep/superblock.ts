import { crc32 } from '@node-rs/crc32'
import { StoreError } from '../errors.ts'
import { type Disk, type DiskFile, orClose } from '../runtime/disk.ts'
import type { CopyLogPosition } from './copies/copy-log.ts'
import type { LogPosition } from './entry-log.ts'

/** What a node's disk says about itself. Two slots are written in turn, so that one is whole at any moment. */
export interface SuperblockContent extends LogPosition, CopyLogPosition {
  storeId: Buffer
  /** Counts the writings; the slot with the higher count is the one that holds. */
  count: number
  /** Every journal frame of this generation and before is in the object files and the log. */
  generation: number
  /** The sequence number of the first frame after those. */
  sequence: number
  /** Every journal frame below this sequence number was durable before anything was built on it. */
  synced: number
  /** CRC-32 of the page cache's identity (Disk.cacheIdentity) that the last process to start saw. */
  cache: number
}

/** What a checkpoint changes. */
export type CheckpointMark = Omit<SuperblockContent, 'storeId' | 'count'>

const MAGIC = 0x62755343 // "CSub"
/**
 * Format 1 had neither `synced` nor `cache`; format 2 had no log of copies. What came later stands behind the 80 bytes of format 2,
 * which keep their CRC: so an older program says which format it has met, and not that the store is damaged.
 */
const FORMAT = 3
const SLOT_BYTES = 4096
const HEAD_BYTES_FORMAT_1 = 72
const HEAD_BYTES = 80
const USED_BYTES = 100
const PATH = 'superblock'
const NEW_PATH = 'superblock.new'
const FIRST_MARK: CheckpointMark = {
  generation: 0,
  sequence: 1,
  synced: 1,
  cache: 0,
  logNumber: 0,
  logBytes: 0,
  copyLogNumber: 0,
  copyLogBytes: 0,
}

export class Superblock {
  readonly #file: DiskFile
  content: SuperblockContent

  private constructor(file: DiskFile, content: SuperblockContent) {
    this.#file = file
    this.content = content
  }

  /**
   * Reads the superblock, or null on a directory that holds no store yet. Throws DiskFailed when there is one that this
   * version cannot read: it must not be taken for an empty directory. What was read is written again before anything is
   * built on it, because after a failed sync, or a killed process, it may be in the page cache only.
   */
  static async open(disk: Disk): Promise<Superblock | null> {
    if (!(await disk.list('.')).includes(PATH)) return null
    const file = await disk.open(PATH)
    return orClose(file, async () => {
      const slots = Buffer.alloc(2 * SLOT_BYTES)
      await file.read(slots, 0)
      const valid = [0, 1].map((slot) => decode(slots.subarray(slot * SLOT_BYTES, slot * SLOT_BYTES + USED_BYTES)))
      const best = valid.filter((content) => content !== null).sort((a, b) => b.count - a.count)[0]
      if (!best) throw new StoreError('DiskFailed', 'both superblocks are damaged')
      await file.write(encode(best), slotOf(best))
      await file.sync()
      return new Superblock(file, best)
    })
  }

  /** Makes the first one, under its name only when it is whole: a superblock that cannot be read is never a new one. */
  static async create(disk: Disk, storeId: Buffer): Promise<Superblock> {
    const file = await disk.open(NEW_PATH, { create: true })
    const superblock = new Superblock(file, { storeId, count: 0, ...FIRST_MARK })
    return orClose(file, async () => {
      for (const _slot of [0, 1]) await superblock.write(FIRST_MARK)
      await disk.rename(NEW_PATH, PATH)
      await disk.syncDirectory('.')
      return superblock
    })
  }

  /** Durable when it resolves. */
  async write(change: Partial<CheckpointMark>): Promise<void> {
    const content = { ...this.content, ...change, count: this.content.count + 1 }
    await this.#file.write(encode(content), slotOf(content))
    await this.#file.sync()
    this.content = content
  }

  async close(): Promise<void> {
    await this.#file.close()
  }
}

const slotOf = (content: SuperblockContent) => (content.count % 2) * SLOT_BYTES

function encode(content: SuperblockContent): Buffer {
  const slot = Buffer.alloc(SLOT_BYTES)
  slot.writeUInt32LE(MAGIC, 0)
  slot.writeUInt32LE(FORMAT, 4)
  content.storeId.copy(slot, 8)
  slot.writeBigUInt64LE(BigInt(content.count), 24)
  slot.writeBigUInt64LE(BigInt(content.generation), 32)
  slot.writeBigUInt64LE(BigInt(content.sequence), 40)
  slot.writeBigUInt64LE(BigInt(content.logNumber), 48)
  slot.writeBigUInt64LE(BigInt(content.logBytes), 56)
  slot.writeBigUInt64LE(BigInt(content.synced), 64)
  slot.writeUInt32LE(content.cache, 72)
  writeCrc(slot, HEAD_BYTES)
  slot.writeBigUInt64LE(BigInt(content.copyLogNumber), 80)
  slot.writeBigUInt64LE(BigInt(content.copyLogBytes), 88)
  writeCrc(slot, USED_BYTES)
  return slot
}

/** In the last four of so many bytes, of those before them. */
function writeCrc(slot: Buffer, bytes: number): void {
  slot.writeUInt32LE(crc32(slot.subarray(0, bytes - 4)), bytes - 4)
}

const hasCrc = (slot: Buffer, bytes: number) => crc32(slot.subarray(0, bytes - 4)) === slot.readUInt32LE(bytes - 4)

function decode(slot: Buffer): SuperblockContent | null {
  if (slot.readUInt32LE(0) !== MAGIC) return null
  const format = slot.readUInt32LE(4)
  if (!hasCrc(slot, format === 1 ? HEAD_BYTES_FORMAT_1 : HEAD_BYTES)) return null
  if (format < 1 || format > FORMAT) {
    throw new StoreError('DiskFailed', `the store has format ${format}; this version reads up to format ${FORMAT}`)
  }
  if (format >= 3 && !hasCrc(slot, USED_BYTES)) return null
  const sequence = Number(slot.readBigUInt64LE(40))
  return {
    storeId: Buffer.from(slot.subarray(8, 24)),
    count: Number(slot.readBigUInt64LE(24)),
    generation: Number(slot.readBigUInt64LE(32)),
    sequence,
    synced: format === 1 ? sequence : Number(slot.readBigUInt64LE(64)),
    cache: format === 1 ? 0 : slot.readUInt32LE(72),
    logNumber: Number(slot.readBigUInt64LE(48)),
    logBytes: Number(slot.readBigUInt64LE(56)),
    copyLogNumber: format < 3 ? 0 : Number(slot.readBigUInt64LE(80)),
    copyLogBytes: format < 3 ? 0 : Number(slot.readBigUInt64LE(88)),
  }
}
