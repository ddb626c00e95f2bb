import type { Clock } from '../../runtime/clock.ts'
import type { Looked } from '../copies/copy-recovery.ts'

/** What a node has to do, of the families that it owns. */
export interface RecoveryProgress {
  /** Families of which something may be missing. */
  families: number
  /** Objects of theirs, and those that are where they belong. */
  objects: number
  objectsDone: number
  /** What the objects that were looked at lack yet, and others perhaps, as these do. */
  bytesLeft: number
  /** Since the node was started. */
  bytesCopied: number
  /** Lately. */
  bytesPerSecond: number
  /** When it goes on as it did so far; null while that cannot be said. */
  secondsLeft: number | null
}

/** Rates are of what was copied within this time. */
const LATELY_MS = 10_000
const PART_MS = 500

/** Of one family, since it was begun with. */
interface Pass {
  objects: number
  looked: number
  done: number
  /** Of the objects that were looked at: what they lacked, and what they were given of that. */
  bytesLacked: number
  bytesCopied: number
}

/** How far the making of copies by one node is. */
export class RecoveryMeter {
  readonly #clock: Clock
  readonly #passes = new Map<number, Pass>()
  /** Since when there has been something to do. */
  #sinceMs: number | null = null
  #bytesCopied = 0
  #lately: { atMs: number; bytes: number }[] = []

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** A family has so many objects to look at. */
  begin(family: number, objects: number): void {
    if (this.#passes.size === 0) this.#sinceMs = this.#clock.monotonicMs()
    this.#passes.set(family, { objects, looked: 0, done: 0, bytesLacked: 0, bytesCopied: 0 })
  }

  /** Some of them were looked at. */
  looked(family: number, { objects, bytes }: Looked): void {
    const pass = this.#passes.get(family)
    if (!pass) return
    pass.looked += objects
    pass.bytesLacked += bytes
  }

  copied(family: number, bytes: number): void {
    const pass = this.#passes.get(family)
    if (pass) pass.bytesCopied += bytes
    this.#bytesCopied += bytes
    const atMs = this.#clock.monotonicMs()
    const last = this.#lately.at(-1)
    if (last && atMs - last.atMs < PART_MS)
      last.bytes += bytes // or there would be thousands
    else this.#lately = [...this.#lately.filter((part) => part.atMs > atMs - LATELY_MS), { atMs, bytes }]
  }

  /** So many more of the objects are where they belong. */
  done(family: number, objects: number): void {
    const pass = this.#passes.get(family)
    if (pass) pass.done += objects
  }

  /** Nothing of the family is missing, or another node sees to it. */
  end(family: number): void {
    this.#passes.delete(family)
  }

  get progress(): RecoveryProgress {
    const nowMs = this.#clock.monotonicMs()
    const passes = [...this.#passes.values()]
    const sum = (of: (pass: Pass) => number) => passes.reduce((total, pass) => total + of(pass), 0)
    const objects = sum((pass) => pass.objects)
    const objectsDone = sum((pass) => pass.done)
    const bytesLeft = Math.round(sum(bytesLeftOf))
    const lately = this.#lately.filter(({ atMs }) => atMs > nowMs - LATELY_MS)
    return {
      families: passes.length,
      objects,
      objectsDone,
      bytesLeft,
      bytesCopied: this.#bytesCopied,
      bytesPerSecond: Math.round(lately.reduce((total, { bytes }) => total + bytes, 0) / (LATELY_MS / 1000)),
      secondsLeft: secondsLeft(nowMs - (this.#sinceMs ?? nowMs), [
        { done: objectsDone, left: objects - objectsDone },
        { done: sum(({ bytesCopied }) => bytesCopied), left: bytesLeft },
      ]),
    }
  }
}

/** Those that nobody has looked at lack as much as the others, as far as is known. */
function bytesLeftOf({ objects, looked, bytesLacked, bytesCopied }: Pass): number {
  const lacked = looked === 0 ? 0 : (bytesLacked * objects) / looked
  return Math.max(0, lacked - bytesCopied)
}

/** Many small objects take time by their number, large ones by their bytes: it takes as long as the longer of both. */
function secondsLeft(elapsedMs: number, all: readonly { done: number; left: number }[]): number | null {
  const known = all.filter(({ done }) => done > 0).map(({ done, left }) => (left * elapsedMs) / done)
  return known.length > 0 ? Math.ceil(Math.max(...known) / 1000) : null
}

/** Of several nodes: all that is to be done, and as long as the slowest takes. */
export function togetherOf(all: readonly RecoveryProgress[]): RecoveryProgress {
  const sum = (of: (progress: RecoveryProgress) => number) => all.reduce((total, progress) => total + of(progress), 0)
  const busy = all.filter(({ families }) => families > 0)
  const isKnown = busy.length > 0 && busy.every(({ secondsLeft }) => secondsLeft !== null)
  return {
    families: sum(({ families }) => families),
    objects: sum(({ objects }) => objects),
    objectsDone: sum(({ objectsDone }) => objectsDone),
    bytesLeft: sum(({ bytesLeft }) => bytesLeft),
    bytesCopied: sum(({ bytesCopied }) => bytesCopied),
    bytesPerSecond: sum(({ bytesPerSecond }) => bytesPerSecond),
    secondsLeft: isKnown ? Math.max(...busy.map(({ secondsLeft }) => secondsLeft ?? 0)) : null,
  }
}
