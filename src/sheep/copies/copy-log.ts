import { StoreError } from '../../errors.ts'
import { type Disk, type DiskFile, orClose } from '../../runtime/disk.ts'
import { type JournalRecord, recordBytes } from '../journal-format.ts'
import { BATCH_HEADER_BYTES, batchLength, decodeBatch, encodeBatch } from '../record-batch.ts'
import { type CopyRecord, isCopyRecord } from './copy-records.ts'
import { CopyTable } from './copy-table.ts'

/** Which file is the log of the copies and how much of it counts: what the superblock says. Number 0: there is none. */
export interface CopyLogPosition {
  copyLogNumber: number
  copyLogBytes: number
}

const MAGIC = 0x7970_4343 // "CCpy"
const FORMAT = 1
/** The file is written anew when it is this many times as long as what it says, and somewhat. */
const BLOAT = 4
const SLACK_BYTES = 64 * 1024
const BATCH_BYTES = 1024 * 1024

/**
 * What the node knows of its copies, at rest: `copies.<n>`, batches of records. Each checkpoint appends what its generation
 * changed, as it left it, and syncs it before the superblock names it, to the byte. So anything else there is rot: the node does
 * not know any more which of its copies are good, and nothing else could tell.
 *
 * A store of one node has no such file, and its checkpoints do nothing here.
 */
export class CopyLog {
  readonly #disk: Disk
  readonly #storeId: Buffer
  #file: DiskFile | null
  #number: number
  #end: number
  /** Length of what the file began with. */
  #wholeBytes: number
  #generation = 0
  /** Replaced, and named by the superblock until the next one is written. */
  #replaced: number | null = null

  private constructor(disk: Disk, storeId: Buffer, file: DiskFile | null, position: CopyLogPosition) {
    this.#disk = disk
    this.#storeId = storeId
    this.#file = file
    this.#number = position.copyLogNumber
    this.#end = position.copyLogBytes
    this.#wholeBytes = position.copyLogBytes
  }

  /** Throws CorruptBlock when what counts is damaged or missing. */
  static async open(
    disk: Disk,
    storeId: Buffer,
    position: CopyLogPosition,
  ): Promise<{ log: CopyLog; copies: CopyTable }> {
    if (position.copyLogNumber === 0)
      return { log: new CopyLog(disk, storeId, null, position), copies: new CopyTable() }
    const path = pathOf(position.copyLogNumber)
    const found = (await disk.list('.')).filter((name) => /^copies\.\d+$/.test(name))
    for (const name of found) if (name !== path) await disk.unlink(name)
    if (!found.includes(path)) throw new StoreError('CorruptBlock', `${path} is missing`)
    const file = await disk.open(path)
    return orClose(file, async () => {
      const log = new CopyLog(disk, storeId, file, position)
      return { log, copies: await log.#read() }
    })
  }

  /** What has been appended so far. */
  async #read(): Promise<CopyTable> {
    const copies = new CopyTable()
    for (let at = 0; at < this.#end; ) {
      const length = batchLength(this.#kind, await this.#bytesAt(at, BATCH_HEADER_BYTES))
      const isWithin = length !== null && at + length <= this.#end
      const batch = isWithin ? decodeBatch(await this.#bytesAt(at, length)) : null
      if (!isWithin || !batch) throw new StoreError('CorruptBlock', `${pathOf(this.#number)} is damaged at byte ${at}`)
      for (const record of batch.records) if (isCopyRecord(record)) copies.apply(record)
      at += length
    }
    return copies
  }

  async #bytesAt(position: number, length: number): Promise<Buffer> {
    const bytes = Buffer.alloc(length)
    const read = (await this.#file?.read(bytes, position)) ?? 0
    return bytes.subarray(0, read)
  }

  get #kind() {
    return { magic: MAGIC, format: FORMAT, storeId: this.#storeId }
  }

  /** Durable when it resolves, and counts once the superblock names `position`. A generation that is there already is passed over. */
  async append(generation: number, records: Iterable<CopyRecord>): Promise<void> {
    if (generation <= this.#generation) return
    if (this.#file && this.#end > BLOAT * this.#wholeBytes + SLACK_BYTES) await this.#compact()
    const file = this.#file ?? (await this.#begin(records))
    if (!file) return
    const end = await this.#write(file, this.#end, generation, records)
    if (end > this.#end) await file.sync()
    this.#end = end
    this.#generation = generation
  }

  /** The first file; none as long as there is nothing to say. */
  async #begin(records: Iterable<CopyRecord>): Promise<DiskFile | null> {
    for (const _record of records) return this.#next(0, [])
    return null
  }

  /** Goes on in a new file that says no more than how it is. */
  #compact(): Promise<DiskFile> {
    return this.#read().then((copies) => this.#next(this.#generation, copies))
  }

  async #next(generation: number, records: Iterable<CopyRecord>): Promise<DiskFile> {
    const file = await this.#disk.open(pathOf(this.#number + 1), { create: true })
    let end = 0
    try {
      await file.truncate(0)
      end = await this.#write(file, 0, generation, records)
      await file.sync()
      await this.#disk.syncDirectory('.')
    } catch (error) {
      await file.close() // on a full disk this is tried again and again
      throw error
    }
    await this.#file?.close()
    if (this.#number > 0) this.#replaced ??= this.#number
    this.#file = file
    this.#number++
    this.#end = end
    this.#wholeBytes = end
    return file
  }

  /** Returns where it ends. */
  async #write(file: DiskFile, start: number, generation: number, records: Iterable<CopyRecord>): Promise<number> {
    let at = start
    let some: JournalRecord[] = []
    let bytes = 0
    const put = async () => {
      const batch = encodeBatch(this.#kind, generation, some)
      await file.write(batch, at)
      at += batch.length
      some = []
      bytes = 0
    }
    for (const record of records) {
      some.push(record)
      bytes += recordBytes(record)
      if (bytes >= BATCH_BYTES) await put()
    }
    if (some.length > 0) await put()
    return at
  }

  /** What the superblock has to name once `append` has resolved. */
  get position(): CopyLogPosition {
    return { copyLogNumber: this.#number, copyLogBytes: this.#end }
  }

  /** The superblock names the position: what was replaced is not wanted any more. */
  async named(): Promise<void> {
    const before = this.#replaced
    this.#replaced = null
    if (before === null) return
    for (let number = before; number < this.#number; number++) await this.#disk.unlink(pathOf(number))
  }

  async close(): Promise<void> {
    await this.#file?.close()
  }
}

const pathOf = (number: number) => `copies.${number}`
