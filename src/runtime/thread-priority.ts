import { readlinkSync } from 'node:fs'
import { constants, getPriority, setPriority } from 'node:os'
import koffi from 'koffi'

/** Steps of `nice`: the thread gets a third of what another one gets that wants the same processor. */
const STEPS = 5
/** Nine times as much. */
const STEPS_FIRST = 10

/**
 * How long a thread means to run without a break, in nanoseconds. Linux (since 6.12; older ones take it and do nothing) lets a thread
 * that wakes up go before one with a longer slice at once; among equals it waits for the next tick of the system, 4 ms on many.
 * What all have by default is 0.7 to 2.8 ms. The shares of processors stay what `nice` makes them.
 */
const SLICE_NS = { first: 100_000n, usual: 0n, yielding: 6_000_000n } as const

/** sched_setattr, which libc has no function for. */
const SYS_SCHED_SETATTR = { x64: 314, arm64: 274 }[process.arch as string]
const SCHED_OTHER = 0
const SCHED_ATTR_BYTES = 48
const syscall = koffi.load('libc.so.6').func('int64_t syscall(int64_t number, int tid, void *attr, unsigned int flags)')

/**
 * Lets every other thread of this process go before the main thread, and the clients of its disks. On Linux a priority is a thread's own,
 * and the main one has the process's id; those that it has started before keep theirs. Without a thread that goes before there is nothing to gain.
 */
export function yieldMainThread(): void {
  setPriority(process.pid, Math.min(getPriority(process.pid) + STEPS, constants.priority.PRIORITY_LOW))
  setSlice(process.pid, SLICE_NS.yielding)
}

/** Of this thread, once it goes first. */
let first: { thread: number; before: number; after: number } | null = null

/**
 * Lets this thread go before other processes too: with a short slice, and with a higher priority when the system allows it: to root, and
 * to whom RLIMIT_NICE does (in the unit of systemd, LimitNICE). A request to a disk takes some ten microseconds; whoever was asked to
 * wait for them hardly notices, and a disk that waits for others does. Threads that are started from now on do as this one, but for `asBefore`.
 */
export function goFirst(): void {
  const thread = Number(readlinkSync('/proc/thread-self').split('/').at(-1))
  const before = getPriority(thread)
  const higher = Math.max(before - STEPS_FIRST, constants.priority.PRIORITY_HIGHEST)
  first = { thread, before, after: mayHave(thread, higher) ? higher : before }
  setSlice(thread, SLICE_NS.first)
}

/** Starts a thread that is not to go first. */
export function asBefore<T>(start: () => T): T {
  if (first === null) return start()
  const { thread, before, after } = first
  setPriority(thread, before)
  setSlice(thread, SLICE_NS.usual)
  try {
    return start()
  } finally {
    setPriority(thread, after)
    setSlice(thread, SLICE_NS.first)
  }
}

/** Sets the priority of a thread, if the system allows that; it stays as it is otherwise (EACCES). */
function mayHave(thread: number, priority: number): boolean {
  try {
    setPriority(thread, priority)
    return true
  } catch {
    return false
  }
}

/** A system that does not take it goes on as it did: there is nothing that depends on it but waiting. */
function setSlice(thread: number, slice: bigint): void {
  if (SYS_SCHED_SETATTR === undefined) return
  // struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period.
  const attributes = new DataView(new ArrayBuffer(SCHED_ATTR_BYTES))
  attributes.setUint32(0, SCHED_ATTR_BYTES, true)
  attributes.setUint32(4, SCHED_OTHER, true)
  attributes.setInt32(16, getPriority(thread), true)
  attributes.setBigUint64(24, slice, true)
  syscall(SYS_SCHED_SETATTR, thread, new Uint8Array(attributes.buffer), 0)
}
