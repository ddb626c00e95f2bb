import { StoreError } from '../../errors.ts'
import type { Clock, Timer } from '../../runtime/clock.ts'
import type { ExportDirectory, ExportRight } from '../directory.ts'
import { ExportThrottle } from './export-throttle.ts'

/** How soon a change of the limits reaches those who are connected, through whatever gateway. */
export const REFRESH_MS = 2000

interface Entry {
  throttle: ExportThrottle
  /** Of the export, by which its right is looked up again. */
  name: string
  /** Sessions under the right. */
  count: number
}

/** The throttles of the exports that somebody is connected to. Their limits are looked up again and again while that is so. */
export class Throttles {
  private readonly clock: Clock
  private readonly exports: ExportDirectory
  private readonly entries = new Map<string, Entry>()
  private timer: Timer | null = null
  private isStopped = false

  constructor(clock: Clock, exports: ExportDirectory) {
    this.clock = clock
    this.exports = exports
  }

  /** The one that all sessions under the right share. Each `leave`s once. */
  join(right: ExportRight, name: string): ExportThrottle {
    const entry = this.entries.get(right.id) ?? { throttle: new ExportThrottle(this.clock), name, count: 0 }
    entry.name = name // a right that was made again has another one
    entry.count++
    entry.throttle.setLimits(right.limits ?? null)
    this.entries.set(right.id, entry)
    if (this.timer === null && !this.isStopped) this.refreshLater()
    return entry.throttle
  }

  leave(rightId: string): void {
    const entry = this.entries.get(rightId)
    if (entry !== undefined && --entry.count === 0) this.entries.delete(rightId)
  }

  stop(): void {
    this.isStopped = true
    this.timer?.cancel()
  }

  private refreshLater(): void {
    this.timer = this.clock.timer(REFRESH_MS, () => void this.refresh())
  }

  private async refresh(): Promise<void> {
    for (const [id, { throttle, name }] of [...this.entries]) {
      const right = await this.lookup(name)
      if (right?.id === id) throttle.setLimits(right.limits ?? null)
    }
    this.timer = null
    if (this.entries.size > 0 && !this.isStopped) this.refreshLater()
  }

  /** A store that cannot be asked now changes nothing. */
  private async lookup(name: string): Promise<ExportRight | undefined> {
    try {
      return await this.exports.lookup(name)
    } catch (error) {
      if (error instanceof StoreError) return undefined
      throw error
    }
  }
}
