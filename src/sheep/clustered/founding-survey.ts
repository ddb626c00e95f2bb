import { StoreError } from '../../errors.ts'
import { dataOid, formatOid, inodeOid, oidKind, oidVid, vmstateOid } from '../../protocol/oid.ts'
import { BlockMap } from '../block-map.ts'
import type { ClusterState } from '../cluster-state.ts'
import type { Vdi } from '../entries.ts'
import { BLOCK_BYTES, type InheritRun, OBJECT_BYTES, OBJECT_TAIL_BYTES } from '../object-format.ts'
import type { ObjectStore } from '../object-store.ts'
import { VALUES_BYTES_MAX } from './logged-attributes.ts'

/** What of a store of one node has to be written otherwise before it can be one of several, or is in the way of that. */
export interface FoundingSurvey {
  /** Why it cannot be done, each a sentence with what to do. */
  obstacles: string[]
  maps: SharedMap[]
  objects: SharedObject[]
  /** Objects that are missing of those that the log speaks of. */
  machineState: bigint[]
  /** What all this writes: of objects, and of maps. */
  dataBytes: number
  mapBytes: number
}

/** A block map with pages that lie in those of other VDIs; without a run when there is no object for it yet. */
export interface SharedMap {
  vid: number
  runs: readonly InheritRun[]
}

/** A data object that inherits from several others, or from what is not there any more. */
export interface SharedObject {
  oid: bigint
  /** To get bytes of their own. */
  copied: readonly InheritRun[]
  /** Nobody sees them: to become zeros. */
  unseen: readonly InheritRun[]
  /** The VDIs whose accounts count the object; of a deleted VDI its own counts its own blocks only. */
  seers: number[]
}

export interface FoundingSurveyOptions {
  store: ObjectStore
  state: ClusterState
  /** Lets other work run; awaited now and then. */
  pause(): Promise<void>
}

const OBJECTS_PER_TURN = 32
/** Obstacles of one kind that are told one by one. */
const TOLD_MAX = 5

/**
 * Looks at everything that a store of one node keeps otherwise than one of several, and changes nothing:
 *
 * 1. A block map has to be an object of its own, with all of its pages: who owns a VDI reads no others.
 * 2. A data object names, for each block, who has it. Of several nodes it inherits from one other object, so of several
 *    holders it keeps the one with most of its blocks, and gets bytes for the rest.
 * 3. What a deleted VDI has left, and no map names, may say that it inherits from what is gone: as nobody sees that, it becomes zeros.
 * 4. Of machine state the log says how many objects there are, and all of them exist.
 * 5. Values of attributes stand in the log, which has so much room.
 */
export async function surveyForFounding(options: FoundingSurveyOptions): Promise<FoundingSurvey> {
  const survey = new Survey(options)
  await survey.run()
  return survey.found
}

class Survey {
  readonly found: FoundingSurvey = { obstacles: [], maps: [], objects: [], machineState: [], dataBytes: 0, mapBytes: 0 }
  readonly #options: FoundingSurveyOptions
  readonly #unreadable: string[] = []
  #looks = 0

  constructor(options: FoundingSurveyOptions) {
    this.#options = options
  }

  async run(): Promise<void> {
    const { store, state } = this.#options
    const { obstacles } = this.found
    const { failedDisks } = await store.stats()
    if (failedDisks > 0) obstacles.push(`${failedDisks} of its disks have failed: \`collie disk list\` says which`)
    for (const vdi of [...state.vdis.values()]) await this.#lookAtMap(vdi)
    await this.#lookAtObjects()
    this.#lookAtAttributes()
    this.#lookAtMachineState()
    if (this.#unreadable.length > 0) {
      const named = this.#unreadable.slice(0, TOLD_MAX).join(', ')
      const count = this.#unreadable.length
      obstacles.push(`${count} objects cannot be read (${named}): \`collie cluster audit\` says whose they are`)
    }
    const { dataBytes, mapBytes } = this.found
    if (!store.hasRoomForNew(dataBytes, mapBytes))
      obstacles.push(
        `what its volumes and snapshots share takes ${dataBytes + mapBytes} bytes more, which are not free: make room, or add a disk`,
      )
  }

  async #lookAtMap({ vid }: Vdi): Promise<void> {
    const { store } = this.#options
    const oid = inodeOid(vid)
    if (!store.exists(oid)) {
      this.found.maps.push({ vid, runs: [] })
      this.found.mapBytes += OBJECT_TAIL_BYTES
      return
    }
    const runs = await this.#inheritedOf(oid)
    if (runs.length === 0) return
    this.found.maps.push({ vid, runs })
    this.found.mapBytes += bytesIn(runs)
  }

  async #lookAtObjects(): Promise<void> {
    const { store, state } = this.#options
    const found = new Map<bigint, readonly InheritRun[]>()
    const families = new Set<number>()
    for (const oid of [...store.oids()]) {
      const vdi = oidKind(oid) === 'data' ? state.vdis.get(oidVid(oid)) : undefined
      if (!vdi || !store.exists(oid)) continue
      const runs = await this.#inheritedOf(oid)
      if (!vdi.deleting && new Set(runs.map(({ holderVid }) => holderVid)).size < 2) continue
      if (runs.length === 0) continue
      found.set(oid, runs)
      families.add(vdi.family)
    }
    const seers = await this.#seersOf(families, new Set(found.keys()))
    for (const [oid, runs] of found) {
      const by = seers.get(oid) ?? []
      const isNamed = by.some((vid) => state.vdis.get(vid)?.deleting === false)
      const copied = isNamed ? withoutLargest(runs) : []
      const unseen = isNamed ? [] : runs
      if (copied.length + unseen.length === 0) continue
      this.found.objects.push({ oid, copied, unseen, seers: by })
      this.found.dataBytes += bytesIn(copied)
    }
  }

  /** The VDIs whose maps name these objects; of those that are deleted only that whose object it is. */
  async #seersOf(families: ReadonlySet<number>, oids: ReadonlySet<bigint>): Promise<Map<bigint, number[]>> {
    const { store, state } = this.#options
    const seers = new Map<bigint, number[]>()
    for (const { vid, sizeBytes, deleting } of [...families].flatMap((family) => state.vdis.ofFamily(family))) {
      try {
        for await (const entry of new BlockMap(store, vid).entries(Math.ceil(sizeBytes / OBJECT_BYTES))) {
          const oid = dataOid(entry.vid, entry.index)
          if (!oids.has(oid) || (deleting && entry.vid !== vid)) continue
          const known = seers.get(oid)
          if (known) known.push(vid)
          else seers.set(oid, [vid])
        }
      } catch (error) {
        this.#cannotRead(inodeOid(vid), error)
      }
      await this.#options.pause()
    }
    return seers
  }

  /** The runs of an object that lie in others. */
  async #inheritedOf(oid: bigint): Promise<readonly InheritRun[]> {
    const { store, pause } = this.#options
    if (++this.#looks % OBJECTS_PER_TURN === 0) await pause()
    try {
      const runs = await store.using(oid, (object) => store.inheritRuns(object))
      return runs.filter(({ holderVid }) => holderVid !== oidVid(oid))
    } catch (error) {
      this.#cannotRead(oid, error)
      return []
    }
  }

  #cannotRead(oid: bigint, error: unknown): void {
    if (!(error instanceof StoreError)) throw error
    if (this.#options.store.exists(oid)) this.#unreadable.push(formatOid(oid)) // else it was removed meanwhile
  }

  #lookAtAttributes(): void {
    const all = [...this.#options.state.attributes.all()]
    const bytes = all.reduce((sum, { attribute }) => sum + Math.ceil(attribute.valueBytes / 3) * 4, 0)
    if (bytes > VALUES_BYTES_MAX)
      this.found.obstacles.push(
        `the attributes of its VDIs hold ${bytes} bytes, more than the ${VALUES_BYTES_MAX} that several nodes keep: remove some with \`collie vdi attr delete\``,
      )
  }

  /** Objects that the log says there may be. */
  #lookAtMachineState(): void {
    const { store, state } = this.#options
    for (const { vid, vmstateObjects = 0, deleting } of state.vdis.values()) {
      if (deleting) continue
      for (let index = 0; index < vmstateObjects; index++)
        if (!store.exists(vmstateOid(vid, index))) this.found.machineState.push(vmstateOid(vid, index))
    }
    this.found.mapBytes += this.found.machineState.length * OBJECT_TAIL_BYTES
  }
}

/** Without those of the holder that has most of these blocks. */
function withoutLargest(runs: readonly InheritRun[]): readonly InheritRun[] {
  const blocks = new Map<number, number>()
  for (const { holderVid, count } of runs) blocks.set(holderVid, (blocks.get(holderVid) ?? 0) + count)
  const [largest] = [...blocks].reduce((most, each) => (each[1] > most[1] ? each : most))
  return runs.filter(({ holderVid }) => holderVid !== largest)
}

const bytesIn = (runs: readonly InheritRun[]): number => runs.reduce((sum, { count }) => sum + count * BLOCK_BYTES, 0)
