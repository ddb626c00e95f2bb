import { performance } from 'node:perf_hooks'

/** The passing of time. Only this file touches Date, hrtime and timers; the simulator has its own clock. */
export interface Clock {
  /** Wall clock, milliseconds since 1970. For stamps that people read, never for deadlines. */
  now(): number
  /** Milliseconds on a clock that never goes back; only differences mean something. */
  monotonicMs(): number
  /** Calls `fire` once after `delayMs`; a pending timer does not keep the process alive. */
  timer(delayMs: number, fire: () => void): Timer
  /** Calls `fire` after the input that is already waiting has been read: the place to end a batch. */
  afterInput(fire: () => void): void
  /** As `afterInput`; called from there, once that has ended, before more input is read: the place to send what a batch has led to. */
  afterBatch(fire: () => void): void
  sleep(delayMs: number): Promise<void>
}

export interface Timer {
  cancel(): void
}

let isAfterInput = false

function endBatch(fire: () => void): void {
  isAfterInput = true
  try {
    fire()
  } finally {
    isAfterInput = false
  }
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(), // that of the global object is looked up each time
  timer: (delayMs, fire) => {
    const handle = setTimeout(fire, delayMs)
    handle.unref()
    return { cancel: () => clearTimeout(handle) }
  },
  afterInput: (fire) => {
    setImmediate(endBatch, fire)
  },
  afterBatch: (fire) => {
    if (isAfterInput) process.nextTick(fire)
    else setImmediate(endBatch, fire)
  },
  sleep: (delayMs) => new Promise((resolve) => setTimeout(resolve, delayMs)),
}

/** ISO 8601 in UTC, for people and for `--json`. */
export function formatTime(msSince1970: number): string {
  return new Date(msSince1970).toISOString()
}
