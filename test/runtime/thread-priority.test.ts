import { readFileSync, readlinkSync } from 'node:fs'
import { getPriority, release, setPriority } from 'node:os'
import { afterEach, describe, expect, it } from 'vitest'
import { asBefore, goFirst } from '../../src/runtime/thread-priority.ts'

const thread = Number(readlinkSync('/proc/thread-self').split('/').at(-1))
const before = getPriority(thread)

/** Whether the system lets this process have a higher priority. */
function mayGoFirst(): boolean {
  try {
    setPriority(thread, before - 1)
  } catch {
    return false
  }
  setPriority(thread, before)
  return true
}

/** Nanoseconds that the scheduler gives the thread at a time. */
const slice = () => Number(readFileSync(`/proc/${thread}/sched`, 'utf8').match(/se\.slice\s*:\s*(\d+)/)?.[1])

/** Linux lets a thread say so since 6.12. */
const [major = 0, minor = 0] = release().split('.').map(Number)
const hasSlices = major > 6 || (major === 6 && minor >= 12)

afterEach(() => {
  if (getPriority(thread) !== before) setPriority(thread, before)
})

describe('a thread', () => {
  it('goes before others where it may, and stays as it is elsewhere', () => {
    const expected = mayGoFirst() ? before - 10 : before
    goFirst()
    expect(getPriority(thread)).toBe(expected)
  })

  it.skipIf(!hasSlices)('wakes up before threads that run for longer, and starts others with what all have', () => {
    goFirst()
    expect(slice()).toBe(100_000)
    expect(asBefore(slice)).toBeGreaterThan(100_000)
    expect(slice()).toBe(100_000)
  })

  it('starts others as it was before, whatever comes of that', () => {
    goFirst()
    const after = getPriority(thread)
    expect(asBefore(() => getPriority(thread))).toBe(before)
    expect(getPriority(thread)).toBe(after)
    const fail = () => {
      throw new Error('no thread')
    }
    expect(() => asBefore(fail)).toThrow('no thread')
    expect(getPriority(thread)).toBe(after)
  })
})
