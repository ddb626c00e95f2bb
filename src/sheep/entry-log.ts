import { crc32 } from '@node-rs/crc32'
import { StoreError } from '../errors.ts'
import { type Disk, type DiskFile, orClose } from '../runtime/disk.ts'

/** An entry of the ordered log, as bytes. */
export interface LoggedEntry {
  index: number
  bytes: Buffer
}

/** Which file holds the log and how much of it counts: what the superblock says. */
export interface LogPosition {
  /** Compaction goes on in a new file, `log.<number>`. */
  logNumber: number
  logBytes: number
}

/**
 * The ordered log at rest: one line for each entry, `<crc> <index> <JSON>`. What counts is what the superblock names, to the
 * byte: it was synced, so that anything else in its place is rot. Bytes behind it were written by a checkpoint that a crash
 * cut short; they may be in the page cache and not on the disk, so they do not count, and the journal has them still.
 * Compaction writes a new file with entries that lead to the same state, all with the index of the last one; it counts from
 * the moment when a superblock names it.
 */
export class EntryLog {
  readonly #disk: Disk
  #file: DiskFile
  #number: number
  #end: number
  lastIndex: number
  entryCount: number

  private constructor(disk: Disk, file: DiskFile, position: LogPosition, lastIndex: number, entryCount: number) {
    this.#disk = disk
    this.#file = file
    this.#number = position.logNumber
    this.#end = position.logBytes
    this.lastIndex = lastIndex
    this.entryCount = entryCount
  }

  /** Throws CorruptBlock when anything before `logBytes` is damaged or missing. */
  static async open(disk: Disk, position: LogPosition): Promise<{ log: EntryLog; entries: LoggedEntry[] }> {
    const { logNumber, logBytes } = position
    const path = pathOf(logNumber)
    for (const name of await disk.list('.')) if (/^log\.\d+$/.test(name) && name !== path) await disk.unlink(name)
    const file = await disk.open(path, { create: true })
    return orClose(file, async () => {
      await disk.syncDirectory('.')
      const text = Buffer.alloc(logBytes)
      const length = await file.read(text, 0)
      const entries = parseLines(text, length, path)
      return { log: new EntryLog(disk, file, position, entries.at(-1)?.index ?? 0, entries.length), entries }
    })
  }

  /** Durable when it resolves, and counts once the superblock names `position`. Entries that are there already are passed over. */
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

  /** Goes on in a new file with `state`, which stands for everything up to `index`. The next start removes the old file. */
  async compact(index: number, state: readonly Buffer[]): Promise<void> {
    const lines = Buffer.concat(state.map((bytes) => formatLine({ index, bytes })))
    const file = await this.#disk.open(pathOf(this.#number + 1), { create: true })
    try {
      await file.truncate(0)
      await file.write(lines, 0)
      await file.sync()
      await this.#disk.syncDirectory('.')
    } catch (error) {
      await file.close() // on a full disk this is tried again and again
      throw error
    }
    await this.#file.close()
    this.#file = file
    this.#number++
    this.#end = lines.length
    this.lastIndex = index
    this.entryCount = state.length
  }

  /** What the superblock has to name once `append` or `compact` has resolved. */
  get position(): LogPosition {
    return { logNumber: this.#number, logBytes: this.#end }
  }

  async close(): Promise<void> {
    await this.#file.close()
  }
}

const pathOf = (number: number) => `log.${number}`

function formatLine(entry: LoggedEntry): Buffer {
  const rest = Buffer.concat([Buffer.from(`${entry.index} `), entry.bytes])
  return Buffer.concat([Buffer.from(`${crc32(rest).toString(16).padStart(8, '0')} `), rest, Buffer.from('\n')])
}

/** `length` is how much of the text the file has. */
function parseLines(text: Buffer, length: number, path: string): LoggedEntry[] {
  const entries: LoggedEntry[] = []
  for (let at = 0; at < text.length; ) {
    const newline = text.indexOf(0x0a, at)
    const entry = newline < 0 ? null : parseLine(text.subarray(at, newline))
    if (!entry || length < text.length) {
      throw new StoreError('CorruptBlock', `the ordered log (${path}) is damaged at byte ${Math.min(at, length)}`)
    }
    entries.push(entry)
    at = newline + 1
  }
  return entries
}

function parseLine(line: Buffer): LoggedEntry | null {
  const rest = line.subarray(9)
  if (line[8] !== 0x20 || crc32(rest).toString(16).padStart(8, '0') !== line.toString('latin1', 0, 8)) return null
  const space = rest.indexOf(0x20)
  return { index: Number(rest.toString('latin1', 0, space)), bytes: Buffer.from(rest.subarray(space + 1)) }
}
