import { type Disk, type DiskFile, orClose } from '../runtime/disk.ts'
import { AccountImages, Accounts } from './accounts.ts'
import type { AccountImage } from './journal-format.ts'
import { BATCH_HEADER_BYTES, batchLength, decodeBatch, encodeBatch } from './record-batch.ts'

const MAGIC = 0x6363_4143 // "CAcc"
const FORMAT = 1
const PATH = 'accounts'
const NEW_PATH = 'accounts.new'
/** The file is written anew when it is this many times as long as what it says, and somewhat. */
const BLOAT = 4
const SLACK_BYTES = 64 * 1024

/**
 * The accounts at rest. Each checkpoint appends a batch with what its generation changed, as it left it, and syncs it before
 * the superblock names the generation. The batches up to that generation, without a hole at the end, are the accounts; what
 * follows them was written by a checkpoint that a crash cut short, and the journal has it still. A file that is
 * missing or damaged costs nothing but time: everything in it can be counted again from maps and tables.
 */
export class AccountLog {
  readonly #disk: Disk
  readonly #storeId: Buffer
  #file: DiskFile | null
  #end: number
  /** Length of the first batch, which says everything. */
  #wholeBytes: number
  #generation: number
  /** While the accounts are being counted again: what the checkpoints since the start had to say. */
  #collected: AccountImages | null = null
  #trustedFrom = Number.POSITIVE_INFINITY

  private constructor(disk: Disk, storeId: Buffer, found: { file: DiskFile | null } & ScannedAccounts) {
    this.#disk = disk
    this.#storeId = storeId
    this.#file = found.file
    this.#end = found.end
    this.#wholeBytes = found.wholeBytes
    this.#generation = found.generation
  }

  /**
   * `known` is false when the file does not say how it was at the end of `generation`: the accounts have to be counted
   * again, and from then on `trust` makes the file whole.
   */
  static async open(
    disk: Disk,
    storeId: Buffer,
    generation: number,
  ): Promise<{ log: AccountLog; accounts: Accounts; known: boolean }> {
    await disk.unlink(NEW_PATH)
    const file = (await disk.list('.')).includes(PATH) ? await disk.open(PATH) : null
    const scanned = file
      ? await orClose(file, async () => scan(await contentOf(file), storeId, generation))
      : scan(Buffer.alloc(0), storeId, generation)
    const log = new AccountLog(disk, storeId, { file, ...scanned })
    const known = scanned.generation === generation
    if (!known) log.#collected = new AccountImages()
    return { log, accounts: known ? scanned.accounts : new Accounts(), known }
  }

  /** What checkpoints of this generation and later say is complete. */
  trust(generation: number): void {
    this.#trustedFrom = generation
  }

  /** Durable when it resolves. A generation that is there already is passed over. */
  async append(generation: number, images: Iterable<AccountImage>): Promise<void> {
    if (this.#collected) {
      for (const image of images) this.#collected.put(image)
      if (generation < this.#trustedFrom) return
      await this.#writeWhole(generation, this.#collected)
      this.#collected = null
      return
    }
    if (!this.#file) return this.#writeWhole(generation, images)
    if (generation <= this.#generation) return
    if (this.#end > BLOAT * this.#wholeBytes + SLACK_BYTES) await this.#compact()
    const batch = encodeBatch(kindOf(this.#storeId), generation, [...images])
    await this.#file.write(batch, this.#end)
    await this.#file.sync()
    this.#end += batch.length
    this.#generation = generation
  }

  /** One batch for all that there are. */
  async #compact(): Promise<void> {
    const bytes = Buffer.alloc(this.#end)
    await this.#file?.read(bytes, 0)
    const { accounts, generation } = scan(bytes, this.#storeId, this.#generation)
    if (generation === this.#generation) await this.#writeWhole(generation, accounts.images())
  }

  /** Under its name only when it is whole. */
  async #writeWhole(generation: number, images: Iterable<AccountImage>): Promise<void> {
    const batch = encodeBatch(kindOf(this.#storeId), generation, [...images])
    const file = await this.#disk.open(NEW_PATH, { create: true })
    try {
      await file.truncate(0)
      await file.write(batch, 0)
      await file.sync()
      await this.#disk.rename(NEW_PATH, PATH)
      await this.#disk.syncDirectory('.')
    } catch (error) {
      await file.close() // on a full disk this is tried again and again
      throw error
    }
    await this.#file?.close()
    this.#file = file
    this.#end = batch.length
    this.#wholeBytes = batch.length
    this.#generation = generation
  }

  async close(): Promise<void> {
    await this.#file?.close()
  }
}

async function contentOf(file: DiskFile): Promise<Buffer> {
  const bytes = Buffer.alloc(await file.size())
  await file.read(bytes, 0)
  return bytes
}

interface ScannedAccounts {
  accounts: Accounts
  /** Of the last batch that counts; 0 when there is none. */
  generation: number
  end: number
  wholeBytes: number
}

/** The batches up to a generation, as far as they are whole. */
function scan(bytes: Buffer, storeId: Buffer, upTo: number): ScannedAccounts {
  const kind = kindOf(storeId)
  const accounts = new Accounts()
  let [generation, end, wholeBytes] = [0, 0, 0]
  while (end < bytes.length) {
    const length = batchLength(kind, bytes.subarray(end, end + BATCH_HEADER_BYTES))
    if (length === null || end + length > bytes.length) break
    const batch = decodeBatch(bytes.subarray(end, end + length))
    if (batch === null || batch.generation > upTo) break
    for (const record of batch.records) if (record.kind === 'account') accounts.apply(record)
    generation = batch.generation
    if (end === 0) wholeBytes = length
    end += length
  }
  return { accounts, generation, end, wholeBytes }
}

const kindOf = (storeId: Buffer) => ({ magic: MAGIC, format: FORMAT, storeId })
