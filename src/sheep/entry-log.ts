import { crc32 } from 'node:zlib'
import { StoreError } from '../errors.ts'
import type { Disk, DiskFile } from '../runtime/disk.ts'

/** An entry of the ordered log, as bytes. */
export interface LoggedEntry {
  index: number
  bytes: Buffer
}

const PATH = 'log'
const NEW_PATH = 'log.new'

/**
 * The ordered log at rest: one line for each entry, `<crc> <index> <JSON>`. Entries are durable in the journal first and
 * are moved here by checkpoints, so that a torn last line loses nothing: it is cut, and the journal still has it.
 * Compaction replaces the file by entries that lead to the same state, all with the index of the last one.
 */
export class EntryLog {
  readonly #disk: Disk
  #file: DiskFile
  #end: number
  lastIndex: number
  entryCount: number

  private constructor(disk: Disk, file: DiskFile, end: number, lastIndex: number, entryCount: number) {
    this.#disk = disk
    this.#file = file
    this.#end = end
    this.lastIndex = lastIndex
    this.entryCount = entryCount
  }

  /** `durableBytes` is what the superblock says was synced: damage below is rot (CorruptBlock), beyond it a torn tail. */
  static async open(disk: Disk, durableBytes: number): Promise<{ log: EntryLog; entries: LoggedEntry[] }> {
    await disk.unlink(NEW_PATH)
    const file = await disk.open(PATH, { create: true })
    await disk.syncDirectory('.')
    const text = Buffer.alloc(await file.size())
    await file.read(text, 0)
    const entries: LoggedEntry[] = []
    let end = 0
    while (end < text.length) {
      const newline = text.indexOf(0x0a, end)
      const entry = newline < 0 ? null : parseLine(text.subarray(end, newline))
      if (!entry) {
        if (end < Math.min(durableBytes, text.length)) {
          throw new StoreError('CorruptBlock', `the ordered log is damaged at byte ${end}`)
        }
        break
      }
      entries.push(entry)
      end = newline + 1
    }
    if (end < text.length) await file.truncate(end)
    return { log: new EntryLog(disk, file, end, entries.at(-1)?.index ?? 0, entries.length), entries }
  }

  /** Durable when it resolves. Entries that are there already are passed over. */
  async append(entries: readonly LoggedEntry[]): Promise<void> {
    const fresh = entries.filter((entry) => entry.index > this.lastIndex)
    if (fresh.length === 0) return
    const lines = Buffer.concat(fresh.map(formatLine))
    await this.#file.write(lines, this.#end)
    await this.#file.sync()
    this.#end += lines.length
    this.lastIndex = fresh.at(-1)!.index
    this.entryCount += fresh.length
  }

  /** Replaces all entries by `state`, which stands for everything up to `index`. */
  async compact(index: number, state: readonly Buffer[]): Promise<void> {
    const lines = Buffer.concat(state.map((bytes) => formatLine({ index, bytes })))
    const file = await this.#disk.open(NEW_PATH, { create: true })
    await file.write(lines, 0)
    await file.sync()
    await this.#disk.rename(NEW_PATH, PATH)
    await this.#disk.syncDirectory('.')
    await this.#file.close()
    this.#file = file
    this.#end = lines.length
    this.lastIndex = index
    this.entryCount = state.length
  }

  /** Bytes that are durable once `append` or `compact` has resolved. */
  get durableBytes(): number {
    return this.#end
  }

  async close(): Promise<void> {
    await this.#file.close()
  }
}

function formatLine(entry: LoggedEntry): Buffer {
  const rest = Buffer.concat([Buffer.from(`${entry.index} `), entry.bytes])
  return Buffer.concat([Buffer.from(`${crc32(rest).toString(16).padStart(8, '0')} `), rest, Buffer.from('\n')])
}

function parseLine(line: Buffer): LoggedEntry | null {
  const rest = line.subarray(9)
  if (line[8] !== 0x20 || crc32(rest).toString(16).padStart(8, '0') !== line.toString('latin1', 0, 8)) return null
  const space = rest.indexOf(0x20)
  return { index: Number(rest.toString('latin1', 0, space)), bytes: Buffer.from(rest.subarray(space + 1)) }
}
