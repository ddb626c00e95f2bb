import type { Clock } from '../runtime/clock.ts'
import type { CommandCall } from './command.ts'
import { formatBytes, visible } from './table.ts'

const DRAW_INTERVAL_MS = 100
const JSON_INTERVAL_MS = 1000
const LINE_INTERVAL_MS = 5000

const CLEAR_LINE = '\r\u001b[K'
const BAR_COLUMNS_MAX = 30

/**
 * How far long work has come, on standard error: a bar that is drawn over on a terminal, else a line every few seconds; with
 * `--json` a line of JSON every second. Work that is over sooner prints nothing but on a terminal.
 */
export class Progress {
  readonly #call: CommandCall
  readonly #clock: Clock
  readonly #what: string
  readonly #totalBytes: number | null
  readonly #startMs: number
  readonly #intervalMs: number
  #shownMs: number
  #drawn = false

  /** `totalBytes` is null where nobody knows it. */
  constructor(call: CommandCall, clock: Clock, what: string, totalBytes: number | null) {
    this.#call = call
    this.#clock = clock
    this.#what = call.json ? what : visible(what)
    this.#totalBytes = totalBytes
    this.#startMs = clock.monotonicMs()
    this.#shownMs = this.#startMs
    this.#intervalMs = call.json ? JSON_INTERVAL_MS : call.io.terminal ? DRAW_INTERVAL_MS : LINE_INTERVAL_MS
  }

  /** To be called often; most calls print nothing. */
  update(doneBytes: number): void {
    const nowMs = this.#clock.monotonicMs()
    if (nowMs - this.#shownMs < this.#intervalMs) return
    this.#shownMs = nowMs
    const { io, json } = this.#call
    if (json) {
      io.err(JSON.stringify({ progress: { what: this.#what, done_bytes: doneBytes, total_bytes: this.#totalBytes } }))
    } else if (io.terminal) {
      io.terminal.draw(CLEAR_LINE + this.#bar(doneBytes, nowMs, io.terminal.columns()))
      this.#drawn = true
    } else io.err(`${this.#what}: ${this.#numbers(doneBytes, nowMs)}`)
  }

  /** Clears the bar; to be called however the work ended, before anything else is printed. */
  end(): void {
    if (this.#drawn) this.#call.io.terminal?.draw(CLEAR_LINE)
    this.#drawn = false
  }

  #bar(doneBytes: number, nowMs: number, columns: number): string {
    const numbers = this.#numbers(doneBytes, nowMs)
    const room = Math.min(BAR_COLUMNS_MAX, columns - this.#what.length - numbers.length - 8)
    if (this.#totalBytes === null || room < 5) return `${this.#what}  ${numbers}`.slice(0, columns - 1)
    const filled = Math.round(room * this.#share(doneBytes))
    return `${this.#what}  [${'#'.repeat(filled)}${'.'.repeat(room - filled)}]  ${numbers}`
  }

  #numbers(doneBytes: number, nowMs: number): string {
    const perSecond = (doneBytes * 1000) / Math.max(1, nowMs - this.#startMs)
    const speed = `${formatBytes(Math.round(perSecond))}/s`
    if (this.#totalBytes === null) return `${formatBytes(doneBytes)}, ${speed}`
    const percent = `${Math.floor(100 * this.#share(doneBytes))}%`
    const left = perSecond > 0 ? `, ${formatDuration((this.#totalBytes - doneBytes) / perSecond)} left` : ''
    return `${percent} of ${formatBytes(this.#totalBytes)}, ${speed}${left}`
  }

  #share(doneBytes: number): number {
    return this.#totalBytes ? Math.min(1, doneBytes / this.#totalBytes) : 1
  }
}

/** `1:02:03`, or `2:03` below an hour. */
function formatDuration(seconds: number): string {
  const whole = Math.ceil(Math.max(0, seconds))
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60]
  const two = (value: number) => String(value).padStart(2, '0')
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`
}
