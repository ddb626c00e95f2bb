import type { MemberId } from '../cluster/group.ts'

/**
 * Names an attempt to go on with the log. Ballots of all times are ordered, and no two attempts have the same one: a member
 * leads once in a round of a configuration, and is a member once.
 */
export interface Ballot {
  /** Above that of every ballot which those who could choose had promised. */
  counter: number
  configuration: string
  round: number
  leader: MemberId
}

/** Before all others. */
export const NO_BALLOT: Ballot = { counter: 0, configuration: '', round: 0, leader: '' }

/** Negative, zero or positive, as the first is before, the same as or after the second. */
export function compareBallots(a: Ballot, b: Ballot): number {
  return (
    a.counter - b.counter ||
    compareText(a.configuration, b.configuration) ||
    a.round - b.round ||
    compareText(a.leader, b.leader)
  )
}

const compareText = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)
