import { crc32 } from '@node-rs/crc32'
import { z } from 'zod'
import { StoreError } from '../../errors.ts'
import type { Disk, DiskFile } from '../../runtime/disk.ts'
import { NO_BALLOT } from './ballot.ts'
import type { Item } from './item.ts'
import type { Change, Durable } from './machine.ts'

/** Its name in the directory of the first disk. */
export const ORDER_FILE = 'order'

/**
 * What a node has of the ordered log, on its disk: one line for each change, `<crc> <synced> <JSON>`, in the order in which they
 * were made. `synced` says how many bytes of the file were durable when the line was written: damage below the greatest of
 * these marks is rot, and the node must not go on as if it had never promised; damage above it is the torn end of a crash, and
 * is cut. When most of a file is history, a new one begins with a single line that stands for all of it.
 */
export class OrderFile {
  readonly #disk: Disk
  readonly #path: string
  #file: DiskFile
  #end: number
  /** What the lines of the file lead to; a second copy of what the machine holds, and cut when it is. */
  #durable: Durable
  #syncedEnd: number
  #queue: Promise<void> = Promise.resolve()

  private constructor(disk: Disk, path: string, file: DiskFile, read: ReadResult) {
    this.#disk = disk
    this.#path = path
    this.#file = file
    this.#end = read.end
    this.#syncedEnd = read.end
    this.#durable = read.durable
  }

  /** Opens the file, or makes it with `initial`. Throws CorruptBlock when what was durable is damaged. */
  static async open(disk: Disk, path: string, initial: Durable = NOTHING): Promise<OrderFile> {
    await disk.unlink(`${path}.new`)
    let file: DiskFile
    try {
      file = await disk.open(path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      file = await writeWhole(disk, path, initial)
    }
    try {
      const bytes = Buffer.alloc(await file.size())
      await file.read(bytes, 0)
      const read = readLines(bytes, path)
      await file.truncate(read.end)
      // What was read may be in the page cache alone, and after a sync that failed the kernel believes otherwise.
      await file.write(bytes.subarray(read.syncedEnd, read.end), read.syncedEnd)
      await file.sync()
      return new OrderFile(disk, path, file, read)
    } catch (error) {
      await file.close()
      throw error
    }
  }

  get durable(): Durable {
    return this.#durable
  }

  /** Makes changes, in order, durable when it resolves. After a failure nothing more may be asked for. */
  persist(changes: readonly Change[]): Promise<void> {
    return this.#inTurn(async () => {
      const lines = Buffer.concat(changes.map((change) => formatLine(this.#syncedEnd, change)))
      await this.#file.write(lines, this.#end)
      await this.#file.sync()
      this.#end += lines.length
      this.#syncedEnd = this.#end
      for (const change of changes) this.#durable = changed(this.#durable, change)
    })
  }

  /** Entries up to `index` are kept no longer. The file is written anew once that makes it much smaller. */
  cut(index: number): Promise<void> {
    return this.#inTurn(async () => {
      this.#durable = changed(this.#durable, { baseIndex: Math.max(index, this.#durable.baseIndex) })
      if (this.#end < REWRITE_BYTES_MIN) return
      const file = await writeWhole(this.#disk, this.#path, this.#durable)
      await this.#file.close()
      this.#file = file
      this.#end = await file.size()
      this.#syncedEnd = this.#end
    })
  }

  async close(): Promise<void> {
    await this.#inTurn(() => this.#file.close())
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#queue.then(work)
    this.#queue = done.catch(() => {})
    return done
  }
}

const REWRITE_BYTES_MIN = 4 * 1024 * 1024

const NOTHING: Durable = { promised: NO_BALLOT, adopted: NO_BALLOT, baseIndex: 0, items: [] }

/** What a change makes of what was there. */
export function changed(durable: Durable, change: Change): Durable {
  const baseIndex = change.baseIndex ?? durable.baseIndex
  const kept = durable.items.filter(({ index }) => index > baseIndex && index <= (change.keepUpTo ?? index))
  return {
    promised: change.promised ?? durable.promised,
    adopted: change.adopted ?? durable.adopted,
    baseIndex,
    items: change.append ? [...kept, ...change.append] : kept,
  }
}

/** Under another name first, so that there is one whole file at any moment. */
async function writeWhole(disk: Disk, path: string, durable: Durable): Promise<DiskFile> {
  const { items, ...rest } = durable
  const file = await disk.open(`${path}.new`, { create: true, empty: true })
  try {
    await file.write(formatLine(0, { ...rest, append: items }), 0)
    await file.sync()
    await disk.rename(`${path}.new`, path)
    await disk.syncDirectory('.')
    return file
  } catch (error) {
    await file.close()
    throw error
  }
}

const ballot = z.object({ counter: z.int(), configuration: z.string(), round: z.int(), leader: z.string() })
const item = z.object({
  index: z.int(),
  origin: z.object({ life: z.string(), sequence: z.int() }),
  payload: z.string(),
  voters: z.array(z.string()).exactOptional(),
}) satisfies z.ZodType<Item>
const change = z.object({
  promised: ballot.exactOptional(),
  adopted: ballot.exactOptional(),
  keepUpTo: z.int().exactOptional(),
  append: z.array(item).exactOptional(),
  baseIndex: z.int().exactOptional(),
}) satisfies z.ZodType<Change>

function formatLine(syncedBytes: number, change: Change): Buffer {
  const rest = `${syncedBytes} ${JSON.stringify(change)}`
  return Buffer.from(`${crc32(rest).toString(16).padStart(8, '0')} ${rest}\n`)
}

interface ReadResult {
  durable: Durable
  end: number
  /** As far as a later line says that it was durable. */
  syncedEnd: number
}

function readLines(bytes: Buffer, path: string): ReadResult {
  let durable = NOTHING
  let end = 0
  let syncedEnd = 0
  let good = true
  for (let at = 0; at < bytes.length; ) {
    const newline = bytes.indexOf(0x0a, at)
    const line = newline < 0 ? null : parseLine(bytes.subarray(at, newline))
    if (line && line.syncedBytes > end) throw new StoreError('CorruptBlock', `${path} is damaged at byte ${end}`)
    good &&= line !== null
    at = newline < 0 ? bytes.length : newline + 1
    if (!good || !line) continue // a later line may still say that this was durable
    durable = changed(durable, line.change)
    syncedEnd = Math.max(syncedEnd, line.syncedBytes)
    end = at
  }
  // A file gets its name with the first line on the disk.
  if (end === 0) throw new StoreError('CorruptBlock', `${path} is damaged at byte 0`)
  return { durable, end, syncedEnd }
}

function parseLine(line: Buffer): { syncedBytes: number; change: Change } | null {
  const text = line.toString()
  const rest = text.slice(9)
  if (text[8] !== ' ' || crc32(rest).toString(16).padStart(8, '0') !== text.slice(0, 8)) return null
  const space = rest.indexOf(' ')
  return { syncedBytes: Number(rest.slice(0, space)), change: change.parse(JSON.parse(rest.slice(space + 1))) }
}
