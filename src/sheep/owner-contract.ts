import type { StoreDone } from './change.ts'

export interface OwnerExtent {
  lengthBytes: number
  kind: 'data' | 'hole'
}

/** The block map of a VDI, to look into: index → the vid whose object holds it, 0 for none. */
export interface VdiMap {
  /** Null when the page of the index must be loaded first. */
  lookupNow(index: number): number | null
  load(index: number): Promise<void>
  /** Allocated indexes from `from` on and below `limit`, in order. */
  entries(limit: number, from?: number): AsyncIterable<{ index: number; vid: number }>
}

/**
 * The owner of one VDI, its only sequencer: what sessions, and all that is done to a VDI as a whole, ask of it. The one of a single
 * node is `VdiOwner`.
 *
 * 1. Ranges are bytes of the VDI, of any alignment; beyond its end they are refused with InvalidParameters.
 * 2. A request that comes after another was answered sees all that the other did. Of two that overlap and are under way at the same
 *    time, each block is as one of them leaves it.
 * 3. `durable` says that it is on the disks when it is answered; else `flush` does, of all that was answered before.
 * 4. Between `freeze` and `thaw` nothing is under way, and what comes waits.
 */
export interface Owner {
  /** The vid under which the VDI goes on: a snapshot and a rollback change it. */
  readonly vid: number
  sizeBytes: number
  readonly map: VdiMap

  read(offset: number, target: Buffer, done: StoreDone): void
  /** `crcs` as in SheepRequest. `source` is not to be changed before it is answered. */
  write(offset: number, source: Buffer, durable: boolean, done: StoreDone, crcs?: Uint32Array): void
  /** Makes a range read as zeros and gives back the space of the whole blocks in it. */
  discard(offset: number, lengthBytes: number, durable: boolean, done: StoreDone): void
  flush(done: StoreDone): void

  /**
   * Runs something that a client asks for who keeps the map itself: as long as the VDI has the vid that the client knows, else
   * `late` is told ReadOnly; and when the map is loaded where it will be looked into.
   */
  whenCurrent(vid: number, range: { first: number; count: number }, late: StoreDone, run: () => void): void

  /** Of each of these indexes the vid whose object holds it, 0 for none; as one moment has it where nobody writes. */
  holders(range: { first: number; count: number }): Promise<Uint32Array>

  /** What a range holds, in order, adjacent kinds merged. */
  extents(offset: number, lengthBytes: number): Promise<OwnerExtent[]>

  /** Resolves when everything received is answered; what comes from now on waits for `thaw`. */
  freeze(): Promise<void>
  readonly frozen: boolean
  /** The frozen VDI goes on under another vid, which starts with the map that it has. */
  moveTo(newVid: number): void
  /** The frozen VDI goes on under another vid with another map: it was rolled back. */
  rollTo(newVid: number): void
  thaw(): void
}

/** How a node comes to the owners of its VDIs. */
export interface OwnerMaker {
  ownerOf(vid: number, sizeBytes: number): Owner
  /** The map of a VDI that nobody writes to here. */
  mapOf(vid: number): VdiMap
}
