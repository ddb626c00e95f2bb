import type { NodeId } from '../order/item.ts'
import type { View } from './view.ts'
import { majorityOf } from './voters.ts'

/** What is known of the copies, should a node be gone: counts of objects. */
export interface CopiesWithout {
  /** Of these it has the only copy that is in sync. */
  lost: number
  /** Writes to these would wait: too few copies in sync would be left. */
  waiting: number
}

export interface DownAnswer {
  isSafe: boolean
  /** For people: what would happen. */
  reason: string
}

/** Whether a node may go down at this moment, without any warning, and the cluster goes on with all of its data. */
export function mayGoDown(view: View, node: NodeId, copies: CopiesWithout): DownAnswer {
  const isMember = (voter: NodeId) => view.members.some((member) => member.node === voter)
  if (!isMember(node)) return { isSafe: true, reason: 'it is not in the cluster at present' }
  if (view.members.length === 1) return no('it is the only node')
  const left = view.voters.filter((voter) => voter !== node && isMember(voter)).length
  const { length } = view.voters
  const needed = majorityOf(view.voters)
  if (left < needed) return no(`${left} of ${length} voters would be left, and ${needed} are needed`)
  if (copies.lost > 0) return no(`it has the only copy of ${objects(copies.lost)}`)
  if (copies.waiting > 0) return no(`writes to ${objects(copies.waiting)} would wait for another copy`)
  return { isSafe: true, reason: `${left} of ${length} voters would be left, and enough copies of every object` }
}

const no = (reason: string): DownAnswer => ({ isSafe: false, reason })
const objects = (count: number) => `${count} ${count === 1 ? 'object' : 'objects'}`
