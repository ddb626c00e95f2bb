import type { Clock } from '../runtime/clock.ts'

/** Answers the time as Cinder prints it: ISO 8601 in UTC with microseconds and no zone. */
export type Stamp = () => string

/** No two stamps of one process are equal or go back, so rows sort in the order they were made. */
export function createStamp(clock: Clock): Stamp {
  let lastMicroseconds = 0
  return () => {
    lastMicroseconds = Math.max(clock.now() * 1000, lastMicroseconds + 1)
    return formatMicroseconds(lastMicroseconds)
  }
}

export function formatMicroseconds(microseconds: number): string {
  const iso = new Date(Math.floor(microseconds / 1000)).toISOString() // …T12:34:56.789Z
  return iso.slice(0, -1) + String(microseconds % 1000).padStart(3, '0')
}
