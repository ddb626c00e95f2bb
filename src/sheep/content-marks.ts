import { StoreError } from '../errors.ts'
import { isInRange } from './block-range.ts'
import type { ClusterState } from './cluster-state.ts'
import { OBJECT_BYTES } from './object-format.ts'
import type { Session } from './session.ts'

/**
 * Marks: names for what the objects of a snapshot hold, for who wants to know what has changed since another one was taken without
 * reading either, and perhaps long after that other one is gone. Two entries of block maps with the same mark hold the same bytes:
 *
 * 1. A map names for each index the VDI whose object holds it, and all that a snapshot's map names is frozen: itself, and what it was
 *    made from. Only a working VDI is written to, only in objects of its own, and it never comes to work again once it is frozen: it goes
 *    on under another vid. What is reclaimed of a deleted VDI is what no map names.
 * 2. So the same VDI at the same index is enough, and a vid stands for one VDI at a time. The entry that froze it tells it from those that
 *    had the vid before and after, because lives under one vid do not overlap in the log.
 * 3. The log is that of one store, which the mark names; and the time is there for who brings the disks of a whole store back from
 *    a copy, after which the same entries happen once more, and differently.
 */

/** Of what no VDI holds. */
const ZEROS = 'zeros'

/** Entries that one answer is about. */
const ENTRIES_MAX = 1024

/** As MARKS_VDI answers: from `offset` on, as far as one answer goes, equal ones merged. Null for what is no snapshot. */
export async function tellMarks(
  state: ClusterState,
  node: string,
  session: Session,
  offset: number,
  lengthBytes: number,
): Promise<[lengthBytes: number, mark: string | null][]> {
  if (offset % OBJECT_BYTES !== 0 || lengthBytes === 0 || !isInRange(offset, lengthBytes, session.sizeBytes))
    throw new StoreError('InvalidParameters', 'no range of whole objects of the VDI')
  if (state.get(session.vid).snapshotAt === 0) return [[lengthBytes, null]]
  const first = offset / OBJECT_BYTES
  const count = Math.min(ENTRIES_MAX, Math.ceil(lengthBytes / OBJECT_BYTES))
  const store = state.founded?.cluster ?? node
  const runs: [number, string | null][] = []
  let leftBytes = lengthBytes
  // The snapshot is open, so that it stays, and all that its map names.
  for (const vid of await session.holders({ first, count })) {
    const mark = vid === 0 ? ZEROS : markOf(state, store, vid)
    const bytes = Math.min(OBJECT_BYTES, leftBytes)
    const last = runs.at(-1)
    if (last?.[1] === mark) last[0] += bytes
    else runs.push([bytes, mark])
    leftBytes -= bytes
  }
  return runs
}

function markOf(state: ClusterState, store: string, vid: number): string | null {
  const { frozenBy, snapshotAt = 0 } = state.vdis.get(vid) ?? {}
  return frozenBy === undefined ? null : [store, vid.toString(16), frozenBy, snapshotAt].join('.')
}
