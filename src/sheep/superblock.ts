import { crc32 } from 'node:zlib'
import { StoreError } from '../errors.ts'
import type { Disk, DiskFile } from '../runtime/disk.ts'

/** What a node's disk says about itself. Two slots are written in turn, so that one is whole at any moment. */
export interface SuperblockContent {
  storeId: Buffer
  /** Counts the writings; the slot with the higher count is the one that holds. */
  count: number
  /** Every journal frame of this generation and before is in the object files and the log. */
  generation: number
  /** The sequence number of the first frame after those. */
  sequence: number
  /** Bytes of the ordered log that are durable. */
  logBytes: number
}

const MAGIC = 0x62755343 // "CSub"
const FORMAT = 1
const SLOT_BYTES = 4096
const USED_BYTES = 64
const PATH = 'superblock'

export class Superblock {
  readonly #file: DiskFile
  content: SuperblockContent

  private constructor(file: DiskFile, content: SuperblockContent) {
    this.#file = file
    this.content = content
  }

  /**
   * Reads the superblock, or null on a directory that holds no store yet. Throws DiskFailed when there is one that this
   * version cannot read: it must not be taken for an empty directory.
   */
  static async open(disk: Disk): Promise<Superblock | null> {
    if (!(await disk.list('.')).includes(PATH)) return null
    const file = await disk.open(PATH)
    const slots = Buffer.alloc(2 * SLOT_BYTES)
    const length = await file.read(slots, 0)
    if (length === 0) {
      await file.close() // a first start that ended before anything was written
      return null
    }
    const valid = [0, 1].map((slot) => decode(slots.subarray(slot * SLOT_BYTES, slot * SLOT_BYTES + USED_BYTES)))
    const best = valid.filter((content) => content !== null).sort((a, b) => b.count - a.count)[0]
    if (!best) throw new StoreError('DiskFailed', 'both superblocks are damaged')
    return new Superblock(file, best)
  }

  static async create(disk: Disk, storeId: Buffer): Promise<Superblock> {
    const file = await disk.open(PATH, { create: true })
    const superblock = new Superblock(file, { storeId, count: 0, generation: 0, sequence: 1, logBytes: 0 })
    await superblock.write({ generation: 0, sequence: 1, logBytes: 0 })
    await disk.syncDirectory('.')
    return superblock
  }

  /** Durable when it resolves. */
  async write(change: Pick<SuperblockContent, 'generation' | 'sequence' | 'logBytes'>): Promise<void> {
    const content = { ...this.content, ...change, count: this.content.count + 1 }
    await this.#file.write(encode(content), (content.count % 2) * SLOT_BYTES)
    await this.#file.sync()
    this.content = content
  }

  async close(): Promise<void> {
    await this.#file.close()
  }
}

function encode(content: SuperblockContent): Buffer {
  const slot = Buffer.alloc(SLOT_BYTES)
  slot.writeUInt32LE(MAGIC, 0)
  slot.writeUInt32LE(FORMAT, 4)
  content.storeId.copy(slot, 8)
  slot.writeBigUInt64LE(BigInt(content.count), 24)
  slot.writeBigUInt64LE(BigInt(content.generation), 32)
  slot.writeBigUInt64LE(BigInt(content.sequence), 40)
  slot.writeBigUInt64LE(BigInt(content.logBytes), 48)
  slot.writeUInt32LE(crc32(slot.subarray(0, USED_BYTES - 4)), USED_BYTES - 4)
  return slot
}

function decode(slot: Buffer): SuperblockContent | null {
  if (slot.readUInt32LE(0) !== MAGIC) return null
  if (crc32(slot.subarray(0, USED_BYTES - 4)) !== slot.readUInt32LE(USED_BYTES - 4)) return null
  const format = slot.readUInt32LE(4)
  if (format !== FORMAT) {
    throw new StoreError('DiskFailed', `the store has format ${format}; this version reads format ${FORMAT}`)
  }
  return {
    storeId: Buffer.from(slot.subarray(8, 24)),
    count: Number(slot.readBigUInt64LE(24)),
    generation: Number(slot.readBigUInt64LE(32)),
    sequence: Number(slot.readBigUInt64LE(40)),
    logBytes: Number(slot.readBigUInt64LE(48)),
  }
}
