import { StoreError } from '../../errors.ts'
import { oidIndex, oidVid, vmstateOid } from '../../protocol/oid.ts'
import { partialBlocks, roundUp, wholeBlocks } from '../block-range.ts'
import type { ClusterState } from '../cluster-state.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT } from '../object-format.ts'
import { readThrough } from './object-view.ts'
import type { BlockRange, ReplicatedObjects } from './replicated-objects.ts'

export interface MachineStateOptions {
  objects: ReplicatedObjects
  state: ClusterState
}

/**
 * Machine state that clients save with the VDIs of a family: objects of zeros that are written to as bytes. No map names them:
 *
 * 1. The log says of each VDI how many there are, from 0 on, and all of these exist. They are made, durably, before the entry is proposed;
 *    what an entry did not come to is garbage.
 * 2. Whoever calls sees to it that those of one VDI are made, written and frozen one after the other.
 */
export class MachineState {
  readonly #objects: ReplicatedObjects
  readonly #state: ClusterState
  /** VDIs of which objects are being made that the log does not have yet, with how many there are to be. */
  readonly #growing = new Map<number, number>()

  constructor({ objects, state }: MachineStateOptions) {
    this.#objects = objects
    this.#state = state
  }

  /** How many objects a VDI has, as the log says. */
  countOf(vid: number): number {
    return this.#state.vdis.get(vid)?.vmstateObjects ?? 0
  }

  has(oid: bigint): boolean {
    return oidIndex(oid) < this.countOf(oidVid(oid))
  }

  /** Neither the log says that there is one, nor is it about to. */
  isGarbage(oid: bigint): boolean {
    return !this.has(oid) && oidIndex(oid) >= (this.#growing.get(oidVid(oid)) ?? 0)
  }

  get isGrowing(): boolean {
    return this.#growing.size > 0
  }

  objectsOf(vid: number): bigint[] {
    return Array.from({ length: this.countOf(vid) }, (_, index) => vmstateOid(vid, index))
  }

  /** Makes what is missing up to `count` objects; `propose` has the log say so. */
  async grow(vid: number, count: number, propose: () => Promise<void>): Promise<void> {
    this.#growing.set(vid, count)
    try {
      for (let index = this.countOf(vid); index < count; index++)
        await this.#objects.write(vmstateOid(vid, index), NOTHING, { exists: false, durable: true })
      await propose()
    } finally {
      this.#growing.delete(vid)
    }
  }

  /** @throws StoreError NoObject, and what ReplicatedObjects.read does. */
  async read(oid: bigint, offset: number, target: Buffer): Promise<void> {
    if (!this.has(oid)) throw new StoreError('NoObject')
    const start = offset - (offset % BLOCK_BYTES)
    const blocks = Buffer.allocUnsafe(roundUp(offset + target.length) - start)
    await readThrough(this.#objects, oid, start / BLOCK_BYTES, blocks)
    blocks.copy(target, 0, offset - start, offset - start + target.length)
  }

  /** With `create` the rest of the object reads as zeros from now on. Errors as those of `read`. */
  async write(
    oid: bigint,
    offset: number,
    bytes: Buffer,
    options: { create: boolean; durable: boolean },
  ): Promise<void> {
    if (!this.has(oid)) throw new StoreError('NoObject')
    const { create, durable } = options
    const edges = new Map<number, Buffer>()
    for (const block of bytes.length > 0 ? partialBlocks(offset, bytes.length) : []) {
      const edge = Buffer.alloc(BLOCK_BYTES)
      if (!create) await readThrough(this.#objects, oid, block, edge)
      edges.set(block, edge)
    }
    const first = Math.floor(offset / BLOCK_BYTES)
    const blocks = bytes.length === 0 ? [] : [{ first, bytes: wholeBlocks(offset, bytes, edges)! }]
    const count = (blocks[0]?.bytes.length ?? 0) / BLOCK_BYTES
    const zeros = create ? rangesBeside({ first, count }) : []
    if (blocks.length + zeros.length > 0) await this.#objects.write(oid, { blocks, zeros }, { exists: true, durable })
  }
}

const NOTHING = { blocks: [], zeros: [] }

/** The rest of an object. */
function rangesBeside({ first, count }: BlockRange): BlockRange[] {
  const end = first + count
  return [
    { first: 0, count: first },
    { first: end, count: BLOCKS_PER_OBJECT - end },
  ].filter((range) => range.count > 0)
}
