import { readdir, readFile } from 'node:fs/promises'
import { performance } from 'node:perf_hooks'

/** What this process takes of the machine, all its threads together. */
export interface ProcessUsage {
  cpuSeconds: number
  residentBytes: number
  openFds: number
  /** Null without a limit. */
  maxFds: number | null
  /** Seconds since 1970. */
  startedAt: number
}

/** Linux: file descriptors are counted in /proc. */
export async function processUsage(): Promise<ProcessUsage> {
  const { user, system } = process.cpuUsage()
  const [fds, limits] = await Promise.all([readdir('/proc/self/fd'), readFile('/proc/self/limits', 'utf8')])
  const maxFds = /^Max open files +(\d+)/m.exec(limits)?.[1]
  return {
    cpuSeconds: (user + system) / 1e6,
    residentBytes: process.memoryUsage.rss(),
    openFds: fds.length,
    maxFds: maxFds === undefined ? null : Number(maxFds),
    startedAt: Math.floor(performance.timeOrigin / 1000),
  }
}

/** Bytes of the JavaScript heap of this thread that are in use. */
export function heapUsedBytes(): number {
  return process.memoryUsage().heapUsed
}

/** Seconds that this thread has worked, and not waited for input, since it started. */
export function busySeconds(): number {
  return performance.eventLoopUtilization().active / 1000
}
