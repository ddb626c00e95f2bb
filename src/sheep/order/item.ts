/** One entry of the log, and who asked for it. */
export interface Item {
  /** From 1, without gaps. */
  index: number
  origin: Origin
  payload: string
  /** The nodes whose disks count from this entry on; absent when it changes nothing about that. */
  voters?: readonly NodeId[]
}

/** Names a proposal: `life` is new with every start of a node, and `sequence` counts what it has proposed since, from 1. */
export interface Origin {
  life: string
  sequence: number
}

/** A node for ever, through all its starts: it stands for one disk with one log. */
export type NodeId = string

/** The voters from an entry of the log on. */
export interface Electorate {
  index: number
  voters: readonly NodeId[]
}

/**
 * Whether the nodes are a majority of each electorate. While a change of voters is not committed, both the old and the new ones
 * have to agree, so that no two majorities can miss each other.
 */
export function isMajority(nodes: ReadonlySet<NodeId>, electorates: readonly Electorate[]): boolean {
  return (
    electorates.length > 0 &&
    electorates.every(({ voters }) => voters.filter((voter) => nodes.has(voter)).length * 2 > voters.length)
  )
}
