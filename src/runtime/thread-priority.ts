import { constants, getPriority, setPriority } from 'node:os'

/** Steps of `nice`: the thread gets a third of what another one gets that wants the same processor. */
const STEPS = 5

/**
 * Lets every other thread of this process go before the main thread. On Linux a priority is a thread's own, and the main one has the
 * process's id; those that it has started before keep theirs. Without a thread that goes before there is nothing to gain.
 */
export function yieldMainThread(): void {
  setPriority(process.pid, Math.min(getPriority(process.pid) + STEPS, constants.priority.PRIORITY_LOW))
}
