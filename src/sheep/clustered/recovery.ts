import type { Clock } from '../../runtime/clock.ts'
import type { RecoverySettings } from '../entries.ts'
import { Signal } from './signal.ts'

/** What a node has to do, of the families that it owns. */
export interface RecoveryProgress {
  /** Families of which something may be missing. */
  families: number
  /** Objects of theirs, and those that are where they belong. */
  objects: number
  objectsDone: number
  /** Since the node was started. */
  bytesCopied: number
  /** Lately. */
  bytesPerSecond: number
  /** When it goes on as it did so far; null while that cannot be said. */
  secondsLeft: number | null
}

export interface RecoveryOptions {
  clock: Clock
  settings(): RecoverySettings
  /** Where the settings leave it to the node. */
  bytesPerSecond: number
}

/** Rates are of what was copied within this time. */
const LATELY_MS = 10_000
const PART_MS = 500

/**
 * The making of copies by one node: how fast, and how far it is.
 *
 * 1. The rate is that of the node, whatever number of families it owns: each step pays for its bytes in time that is nobody else's.
 * 2. While clients ask for something, it takes no more time than it leaves to them: what makes them slow makes it slow, too.
 */
export class Recovery {
  readonly #options: RecoveryOptions
  readonly #changed = new Signal()
  readonly #passes = new Map<number, { objects: number; done: number }>()
  /** When all that was copied has been paid for, at the rate of that time. */
  #freeAtMs = 0
  /** Since when there has been something to do. */
  #sinceMs: number | null = null
  #bytesCopied = 0
  #lately: { atMs: number; bytes: number }[] = []
  #requests = 0

  constructor(options: RecoveryOptions) {
    this.#options = options
  }

  get isPaused(): boolean {
    return this.#options.settings().isPaused
  }

  /** The settings are others. */
  changed(): void {
    this.#freeAtMs = 0
    this.#changed.tell()
  }

  /** A client has asked for something. */
  requested(): void {
    this.#requests++
  }

  /** Runs `copy`, which says how many bytes it has copied; resolves when the family may go on. */
  async step<T extends number | null>(copy: () => Promise<T>): Promise<T> {
    const { clock, settings } = this.#options
    const startMs = clock.monotonicMs()
    const before = this.#requests
    const bytes = await copy()
    if (bytes === null || bytes === 0) return bytes
    const nowMs = clock.monotonicMs()
    this.#bytesCopied += bytes
    this.#note(nowMs, bytes)
    const restMs = this.#requests > before ? nowMs - startMs : 0
    const rate = settings().bytesPerSecond ?? this.#options.bytesPerSecond
    this.#freeAtMs = Math.max(this.#freeAtMs, nowMs) + Math.max(restMs, (1000 * bytes) / rate)
    await Promise.race([clock.sleep(this.#freeAtMs - nowMs), this.#changed.next])
    return bytes
  }

  /** In parts of a second, or there would be thousands. */
  #note(atMs: number, bytes: number): void {
    const last = this.#lately.at(-1)
    if (last && atMs - last.atMs < PART_MS) last.bytes += bytes
    else this.#lately = [...this.#lately.filter((part) => part.atMs > atMs - LATELY_MS), { atMs, bytes }]
  }

  /** A family has so many objects to look at. */
  begin(family: number, objects: number): void {
    if (this.#passes.size === 0) this.#sinceMs = this.#options.clock.monotonicMs()
    this.#passes.set(family, { objects, done: 0 })
  }

  /** One of them is where it belongs. */
  done(family: number): void {
    const pass = this.#passes.get(family)
    if (pass) pass.done++
  }

  /** Nothing of the family is missing, or another node sees to it. */
  end(family: number): void {
    this.#passes.delete(family)
  }

  get progress(): RecoveryProgress {
    const { clock } = this.#options
    const nowMs = clock.monotonicMs()
    const passes = [...this.#passes.values()]
    const objects = passes.reduce((sum, pass) => sum + pass.objects, 0)
    const objectsDone = passes.reduce((sum, pass) => sum + pass.done, 0)
    const lately = this.#lately.filter(({ atMs }) => atMs > nowMs - LATELY_MS)
    const elapsedMs = nowMs - (this.#sinceMs ?? nowMs)
    return {
      families: passes.length,
      objects,
      objectsDone,
      bytesCopied: this.#bytesCopied,
      bytesPerSecond: Math.round(lately.reduce((sum, { bytes }) => sum + bytes, 0) / (LATELY_MS / 1000)),
      secondsLeft:
        objectsDone === 0 || this.isPaused
          ? null
          : Math.ceil(((objects - objectsDone) * elapsedMs) / objectsDone / 1000),
    }
  }
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
    bytesCopied: sum(({ bytesCopied }) => bytesCopied),
    bytesPerSecond: sum(({ bytesPerSecond }) => bytesPerSecond),
    secondsLeft: isKnown ? Math.max(...busy.map(({ secondsLeft }) => secondsLeft ?? 0)) : null,
  }
}
