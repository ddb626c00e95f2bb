import type { Attribute } from '../attributes.ts'
import { decodeEntry, type Entry, encodeEntry } from '../entries.ts'
import type { Item } from '../order/item.ts'
import type { Durable } from '../order/machine.ts'
import type { CopiesChange, LoggedView, Member } from './view.ts'

/** The id of a new cluster, and the node that is it at first. */
export interface Founding {
  /** Never used for another one. */
  cluster: string
  founder: Member
  /** Milliseconds since 1970. */
  at: number
  /** How many bytes of room a place on the ring stands for. */
  vnodeBytes?: number
  after?: AfterAlone
}

/** The state of a store that was alone until now, and shall be the cluster's. */
export interface AfterAlone {
  /** Of its last entry. */
  index: number
  view: LoggedView['view']
  /** Those whose VDIs hold anything. A family that nobody has ever owned counts as empty: the founder owns them from its first view on. */
  families: readonly number[]
  /** With their values, which were objects. */
  attributes: readonly { vid: number; attribute: Attribute }[]
  /** How many copies the VDIs have in its first view, where they say otherwise. */
  copies: readonly CopiesChange[]
}

const NOTHING: AfterAlone = {
  index: 0,
  view: { epoch: 0, members: [], voters: [], at: 0 },
  families: [],
  attributes: [],
  copies: [],
}

/**
 * The log that a cluster begins with, on the disk of its first node and nowhere else: done once, by an operator who says so. All other
 * nodes get to it by joining; two that were both founded never become one.
 */
export function foundingLog({ cluster, founder, at, vnodeBytes, after }: Founding): Durable {
  const ballot = { counter: 1, configuration: `founding of ${cluster}`, round: 0, leader: '' }
  const { index: baseIndex, view, families, attributes, copies } = after ?? NOTHING
  const { node, incarnation } = founder
  const entries: Entry[] = [
    { type: 'founded', cluster, at, ...(vnodeBytes !== undefined && { vnodeBytes }) },
    {
      type: 'view',
      epoch: view.epoch + 1,
      members: [founder],
      voters: [node],
      ...(copies.length > 0 && { copies }),
      at,
    },
    ...families.map((family): Entry => ({ type: 'owner', family, node, incarnation, replaces: null })),
    ...attributes.map(({ vid, attribute }): Entry => ({ type: 'attribute', vid, attribute })),
  ]
  const items = entries.map(
    (entry, offset): Item => ({
      index: baseIndex + 1 + offset,
      origin: { life: ballot.configuration, sequence: 1 + offset },
      payload: encodeEntry(entry).toString(),
      ...(entry.type === 'view' && { voters: entry.voters }),
    }),
  )
  return { promised: ballot, adopted: ballot, baseIndex, items }
}

/** The cluster that a node belongs to by its log, which may have what the state on its disk has not; null when it belongs to none. */
export function clusterOf({ items }: Durable): string | null {
  for (const { payload } of items) {
    const entry = payload.includes('"founded"') ? decodeEntry(Buffer.from(payload)) : null
    if (entry?.type === 'founded') return entry.cluster
  }
  return null
}
