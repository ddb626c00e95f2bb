import { ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'

export const SECTOR_BYTES = 512

/**
 * What a disk must hold, sector by sector, by what was written to it.
 *
 * A sector's content tells which write it came from: its stamp, the number of the write, and 0 for zeros. An acknowledged
 * write must be there. One that was sent and never acknowledged may be there or not, each sector for itself, but never
 * half a sector; what was once seen stays.
 *
 * Everything is appended to a file before it takes effect, so that whoever opens that file after a crash of the process
 * knows the same. The caller sees to it that no two writes to one sector are in flight together.
 */
export class WriteLedger {
  readonly #file: number
  readonly #settled: Uint32Array
  readonly #inFlight = new Map<number, Write>()
  readonly #marks = new Map<string, Mark>()
  #lastNumber = 0
  #events = 0

  private constructor(file: number, sectors: number) {
    this.#file = file
    this.#settled = new Uint32Array(sectors)
  }

  /** Opens the ledger of a disk of `sizeBytes` that held zeros at the first opening. */
  static open(path: string, sizeBytes: number): WriteLedger {
    const file = openSync(path, 'a+')
    const lines = readFileSync(file, 'latin1').split('\n')
    lines.pop() // empty, or the start of a line that never took effect
    ftruncateSync(
      file,
      lines.reduce((length, line) => length + line.length + 1, 0),
    )
    const ledger = new WriteLedger(file, sizeBytes / SECTOR_BYTES)
    for (const line of lines) ledger.#apply(line.split(' '))
    return ledger
  }

  get inFlight(): number {
    return this.#inFlight.size
  }

  /** Answers the number of the write, which is about to be sent. */
  sent(kind: 'data' | 'zeros', firstSector: number, sectors: number): number {
    const number = this.#lastNumber + 1
    this.#record('sent', number, kind, firstSector, sectors)
    return number
  }

  acknowledged(number: number): void {
    this.#record('acknowledged', number)
  }

  /**
   * Holds `content`, read when no write to it was in flight in this process, against what the disk must hold. Throws a
   * LostWrite for the first sector that is wrong.
   */
  check(firstSector: number, content: Buffer): void {
    let unknown: Map<number, number> | undefined
    for (let i = 0; i < content.length / SECTOR_BYTES; i++) {
      const sector = firstSector + i
      const settled = this.#settled[sector]!
      const stamp = stampAt(sector, content, i)
      if (stamp === settled) continue
      unknown ??= this.#unknownOutcomes()
      const sent = unknown.get(sector)
      if (sent === undefined || stamp !== sent) throw new LostWrite(sector, stamp, [settled, sent ?? settled])
      this.#record('saw', sector, stamp)
    }
  }

  /** All of the disk has been checked since the writes in flight were cut off: what they left is known. */
  forgetInFlight(): void {
    this.#record('resolved')
  }

  /** The write was refused, and its sectors have been checked since: what it left is known. */
  refused(number: number): void {
    this.#record('refused', number)
  }

  /** From here on a snapshot may be taken. */
  mark(name: string): void {
    this.#record('mark', name)
  }

  /** The snapshot has been taken. */
  unmark(name: string): void {
    this.#record('unmark', name)
  }

  /** No such snapshot was taken, or it is gone. */
  dropMark(name: string): void {
    this.#record('drop', name)
  }

  get marks(): { name: string; isOpen: boolean }[] {
    return [...this.#marks].map(([name, { isOpen }]) => ({ name, isOpen }))
  }

  /**
   * Takes content of a snapshot, piece by piece; `finish` tells whether all of it can be the state of one moment between
   * `mark` and `unmark`: no write is missing that was acknowledged before one was sent that is there.
   */
  snapshotCheck(name: string): { check(firstSector: number, content: Buffer): void; finish(): void } {
    const mark = this.#marks.get(name)
    if (mark === undefined) throw new Error(`there is no mark ${name}`)
    let latestSent: Write | undefined
    let earliestMissing: Write | undefined
    const includes = (write: Write) => {
      if (latestSent === undefined || write.sentAt > latestSent.sentAt) latestSent = write
    }
    const lacks = (write: Write) => {
      if (earliestMissing === undefined || write.acknowledgedAt < earliestMissing.acknowledgedAt)
        earliestMissing = write
    }
    return {
      check: (firstSector, content) => {
        for (let i = 0; i < content.length / SECTOR_BYTES; i++) {
          const sector = firstSector + i
          const stamp = stampAt(sector, content, i)
          const later = mark.later.get(sector) ?? []
          const at = later.findLastIndex((write) => write.stamp === stamp)
          if (at === -1 && stamp !== mark.before[sector]) {
            throw new LostWrite(sector, stamp, [mark.before[sector]!, ...later.map((write) => write.stamp)])
          }
          if (stamp !== 0 && at !== -1) includes(later[at]!) // zeros do not tell from which write they are
          for (const write of later.slice(at + 1)) lacks(write)
        }
      },
      finish: () => {
        if (latestSent === undefined || earliestMissing === undefined) return
        if (earliestMissing.acknowledgedAt < latestSent.sentAt) {
          throw new Error(
            `snapshot ${name} is of no single moment: it lacks write ${earliestMissing.number}, which was ` +
              `acknowledged before write ${latestSent.number} was sent, and that one is in it`,
          )
        }
      },
    }
  }

  #record(...words: (string | number)[]): void {
    writeSync(this.#file, `${words.join(' ')}\n`)
    this.#apply(words)
  }

  #apply([verb, first, ...rest]: (string | number)[]): void {
    this.#events++
    const number = Number(first)
    if (verb === 'sent') this.#applySent(number, rest)
    else if (verb === 'acknowledged') this.#applyAcknowledged(number)
    else if (verb === 'saw') this.#settled[number] = Number(rest[0])
    else if (verb === 'resolved') this.#inFlight.clear()
    else if (verb === 'refused') this.#inFlight.delete(number)
    else if (verb === 'mark') this.#applyMark(String(first))
    else if (verb === 'unmark') this.#marks.get(String(first))!.isOpen = false
    else if (verb === 'drop') this.#marks.delete(String(first))
  }

  #applySent(number: number, [kind, firstSector, sectors]: (string | number)[]): void {
    const write: Write = {
      number,
      stamp: kind === 'data' ? number : 0,
      firstSector: Number(firstSector),
      sectors: Number(sectors),
      sentAt: this.#events,
      acknowledgedAt: Number.POSITIVE_INFINITY,
    }
    this.#lastNumber = number
    this.#inFlight.set(number, write)
    for (const mark of this.#marks.values()) if (mark.isOpen) noteLater(mark, write)
  }

  #applyAcknowledged(number: number): void {
    const write = this.#inFlight.get(number)!
    this.#inFlight.delete(number)
    write.acknowledgedAt = this.#events
    this.#settled.fill(write.stamp, write.firstSector, write.firstSector + write.sectors)
  }

  #applyMark(name: string): void {
    const mark: Mark = { before: this.#settled.slice(), later: new Map(), isOpen: true }
    for (const write of this.#inFlight.values()) noteLater(mark, write)
    this.#marks.set(name, mark)
  }

  #unknownOutcomes(): Map<number, number> {
    const stamps = new Map<number, number>()
    for (const { stamp, firstSector, sectors } of this.#inFlight.values()) {
      for (let i = 0; i < sectors; i++) stamps.set(firstSector + i, stamp)
    }
    return stamps
  }
}

interface Write {
  number: number
  /** What its sectors then hold: its number, or 0. */
  stamp: number
  firstSector: number
  sectors: number
  /** Place in the order of all events. */
  sentAt: number
  acknowledgedAt: number
}

interface Mark {
  before: Uint32Array
  /** The writes to a sector that were in flight at the mark or came after, in order. */
  later: Map<number, Write[]>
  isOpen: boolean
}

function noteLater(mark: Mark, write: Write): void {
  for (let sector = write.firstSector; sector < write.firstSector + write.sectors; sector++) {
    const writes = mark.later.get(sector)
    if (writes === undefined) mark.later.set(sector, [write])
    else writes.push(write)
  }
}

/** A sector that does not hold what it must. */
export class LostWrite extends Error {
  constructor(sector: number, stamp: number, allowed: readonly number[]) {
    const expected = [...new Set(allowed)].map(describe).join(' or ')
    super(`sector ${sector} (byte ${sector * SECTOR_BYTES}) holds ${describe(stamp)} instead of ${expected}`)
  }
}

const TORN = -1
const describe = (stamp: number) =>
  stamp === TORN ? 'what no single write left' : stamp === 0 ? 'zeros' : `write ${stamp}`

/** What a write leaves in its sectors. Each sector's bytes follow from the number of the write and from its place. */
export function contentOf(number: number, firstSector: number, sectors: number): Buffer {
  const words = new Uint32Array((sectors * SECTOR_BYTES) / 4)
  for (let i = 0; i < sectors; i++) fillSector(words, i * WORDS, number, firstSector + i)
  return Buffer.from(words.buffer)
}

const WORDS = SECTOR_BYTES / 4
const expectedWords = new Uint32Array(WORDS)
const expectedBytes = Buffer.from(expectedWords.buffer)
const ZEROS = Buffer.alloc(SECTOR_BYTES)

function fillSector(words: Uint32Array, at: number, number: number, sector: number): void {
  words[at] = number
  words[at + 1] = sector
  let mixed = Math.imul(number, 0x9e3779b1) ^ Math.imul(sector, 0x85ebca6b)
  for (let i = 2; i < WORDS; i++) {
    mixed = (Math.imul(mixed, 0x5bd1e995) + i) | 0
    words[at + i] = mixed
  }
}

/** The write whose content the `i`th sector of `content` is; 0 when it is zeros, TORN when it is neither. */
function stampAt(sector: number, content: Buffer, i: number): number {
  const [start, end] = [i * SECTOR_BYTES, (i + 1) * SECTOR_BYTES]
  const number = content.readUInt32LE(start)
  if (number === 0) return ZEROS.compare(content, start, end) === 0 ? 0 : TORN
  fillSector(expectedWords, 0, number, sector)
  return expectedBytes.compare(content, start, end) === 0 ? number : TORN
}
