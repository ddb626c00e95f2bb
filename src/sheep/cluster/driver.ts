import type { Entry } from '../entries.ts'

/**
 * Membership and order: what the store asks of corosync, etcd, or of nothing at all when there is one node.
 *
 * 1. Every node is delivered the same entries in the same order.
 * 2. `propose` resolves when the entry has taken effect: it is on the disks of a majority of the voters and has been applied
 *    here. It rejects with what `deliver` threw when the entry was refused; then it never happens anywhere.
 * 3. Two proposals of one node are delivered in the order in which they were made.
 */
export interface ClusterDriver {
  propose(entry: Entry): Promise<void>
  stop(): Promise<void>
}

/** Checks and applies an entry at once, and resolves when it is durable on this node. Throws to refuse it. */
export type Deliver = (entry: Entry) => Promise<void>
