import { StoreError, toStoreError } from '../../errors.ts'
import { INODE_MAP_ENTRY_SIZE_BYTES } from '../../protocol/inode.ts'
import { oidIndex, oidKind, oidVid } from '../../protocol/oid.ts'
import type { StoreDone } from '../change.ts'
import type { ClusterState } from '../cluster-state.ts'
import type { Vdi } from '../entries.ts'
import { OBJECT_BYTES } from '../object-format.ts'
import type { Owner, VdiMap } from '../owner-contract.ts'
import type { MachineState } from '../replicated/machine-state.ts'
import type { Turns } from '../turns.ts'
import type { ObjectBytes, ObjectWriteOptions } from '../vdi-store.ts'

export interface ReplicatedBytesOptions {
  state: ClusterState
  /** What is done to one family as a whole takes turns. */
  turns: Turns<number>
  /** All throw OldEpoch for a VDI whose family this node does not own. */
  ownerOf(vid: number): Owner
  mapOf(vid: number): VdiMap & { lookup(index: number): Promise<number> }
  machineStateOf(vid: number): MachineState
}

/** Objects of VDIs whose families this node owns, as clients of the original protocol name them. */
export class ReplicatedBytes implements ObjectBytes {
  readonly #options: ReplicatedBytesOptions

  constructor(options: ReplicatedBytesOptions) {
    this.#options = options
  }

  /** False also for one that is not known without waiting. */
  exists(oid: bigint): boolean {
    const { state, mapOf } = this.#options
    const [kind, vid] = [oidKind(oid), oidVid(oid)]
    if (kind === 'attr') return state.attributes.byOid(oid) !== undefined
    if (!state.vdis.has(vid)) return false
    if (kind === 'inode') return true
    if (kind === 'vmstate') return oidIndex(oid) < (state.vdis.get(vid)?.vmstateObjects ?? 0)
    return kind === 'data' && mapOf(vid).lookupNow(oidIndex(oid)) === vid
  }

  read(oid: bigint, offset: number, target: Buffer, done: StoreDone): void {
    this.readAll(oid, offset, target).then(
      () => done(null),
      (error) => done(toStoreError(error)),
    )
  }

  async readAll(oid: bigint, offset: number, target: Buffer): Promise<void> {
    const { state, ownerOf, mapOf } = this.#options
    const [kind, vid, index] = [oidKind(oid), oidVid(oid), oidIndex(oid)]
    const vdi = state.vdis.get(vid)
    if (!vdi || (kind !== 'data' && kind !== 'inode' && kind !== 'vmstate')) throw new StoreError('NoObject')
    if (offset + target.length > OBJECT_BYTES) throw new StoreError('InvalidParameters', 'beyond the object')
    if (kind === 'vmstate') return this.#options.machineStateOf(vid).read(oid, offset, target)
    if (kind === 'inode') return readMap(mapOf(vid), offset, target)
    if ((await mapOf(vid).lookup(index)) !== vid) throw new StoreError('NoObject')
    const start = index * OBJECT_BYTES + offset
    // Clients read the last object whole: behind the end of the VDI there are zeros.
    const length = Math.max(0, Math.min(target.length, vdi.sizeBytes - start))
    target.fill(0, length)
    if (length === 0) return
    await new Promise<void>((resolve, reject) => {
      ownerOf(vid).read(start, target.subarray(0, length), (error) => (error ? reject(error) : resolve()))
    })
  }

  /** Between other changes of the family: so a snapshot has all of it, or the write meets the snapshot. */
  async write(oid: bigint, offset: number, bytes: Buffer, options: ObjectWriteOptions): Promise<void> {
    const { state, turns, machineStateOf } = this.#options
    if (oidKind(oid) !== 'vmstate') throw new StoreError('InvalidParameters', 'only machine state is written as bytes')
    if (offset + bytes.length > OBJECT_BYTES) throw new StoreError('InvalidParameters', 'beyond the object')
    const { family }: Vdi = state.get(oidVid(oid))
    await turns.take(family, async () => {
      options.check()
      await machineStateOf(oidVid(oid)).write(oid, offset, bytes, options)
    })
  }
}

/** The map as bytes, whole entries of it or not. */
async function readMap(map: ReplicatedBytesMap, offset: number, target: Buffer): Promise<void> {
  const size = INODE_MAP_ENTRY_SIZE_BYTES
  const first = Math.floor(offset / size)
  const end = Math.ceil((offset + target.length) / size)
  const entries = Buffer.alloc((end - first) * size)
  for await (const { index, vid } of map.entries(end, first)) entries.writeUInt32LE(vid, (index - first) * size)
  entries.copy(target, 0, offset - first * size, offset - first * size + target.length)
}

type ReplicatedBytesMap = Pick<VdiMap, 'entries'>
