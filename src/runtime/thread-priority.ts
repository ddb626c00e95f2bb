import { readlinkSync } from 'node:fs'
import { constants, getPriority, setPriority } from 'node:os'

/** Steps of `nice`: the thread gets a third of what another one gets that wants the same processor. */
const STEPS = 5
/** Nine times as much. */
const STEPS_FIRST = 10

/**
 * Lets every other thread of this process go before the main thread. On Linux a priority is a thread's own, and the main one has the
 * process's id; those that it has started before keep theirs. Without a thread that goes before there is nothing to gain.
 */
export function yieldMainThread(): void {
  setPriority(process.pid, Math.min(getPriority(process.pid) + STEPS, constants.priority.PRIORITY_LOW))
}

/** Of this thread, once it goes first. */
let first: { thread: number; before: number; after: number } | null = null

/**
 * Lets this thread go before other processes too, when the system allows it: to root, and to whom RLIMIT_NICE does (in the
 * unit of systemd, LimitNICE). A request to a disk takes some ten microseconds; whoever was asked to wait for them hardly notices,
 * and a disk that waits for others does. Threads that are started from now on do as this one, but for `asBefore`.
 */
export function goFirst(): void {
  const thread = Number(readlinkSync('/proc/thread-self').split('/').at(-1))
  const before = getPriority(thread)
  const after = Math.max(before - STEPS_FIRST, constants.priority.PRIORITY_HIGHEST)
  try {
    setPriority(thread, after)
  } catch {
    return // EACCES: it stays one among many
  }
  first = { thread, before, after }
}

/** Starts a thread that is not to go first. */
export function asBefore<T>(start: () => T): T {
  if (first === null) return start()
  setPriority(first.thread, first.before)
  try {
    return start()
  } finally {
    setPriority(first.thread, first.after)
  }
}
