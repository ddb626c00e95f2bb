import { StoreError } from '../errors.ts'
import { VDI_COUNT } from '../protocol/constants.ts'
import { vidOfName } from '../protocol/hash.ts'
import type { Vdi } from './entries.ts'

/**
 * A vid that no VDI ever gets. Inodes that tgt reads name it where there is a hole, and every object of it reads as zeros: tgt
 * itself returns wrong bytes when a read goes from data into a hole.
 */
export const HOLE_VID = VDI_COUNT - 1

const nextVid = (vid: number): number => (vid + 1 === VDI_COUNT ? 1 : vid + 1)

/** All VDIs by vid, also those that were deleted and are not reclaimed yet; by name and by family; and how many there are. */
export class VdiTable {
  readonly #byVid = new Map<number, Vdi>()
  readonly #byName = new Map<string, Set<number>>()
  readonly #byFamily = new Map<number, Set<number>>()
  #working = 0
  #snapshots = 0
  readonly #provisionedByCopies = new Map<number, number>()

  get size(): number {
    return this.#byVid.size
  }

  /** How many are neither snapshots nor deleted. */
  get workingCount(): number {
    return this.#working
  }

  /** How many are snapshots, and not deleted. */
  get snapshotCount(): number {
    return this.#snapshots
  }

  /** Bytes that the working VDIs promise. */
  get provisionedBytes(): number {
    return [...this.#provisionedByCopies.values()].reduce((sum, bytes) => sum + bytes, 0)
  }

  /** The same by how many copies they have. */
  get provisionedByCopies(): ReadonlyMap<number, number> {
    return this.#provisionedByCopies
  }

  has(vid: number): boolean {
    return this.#byVid.has(vid)
  }

  get(vid: number): Vdi | undefined {
    return this.#byVid.get(vid)
  }

  keys(): IterableIterator<number> {
    return this.#byVid.keys()
  }

  values(): IterableIterator<Vdi> {
    return this.#byVid.values()
  }

  /** The working VDI of a name and its snapshots, without the deleted ones. */
  of(name: string): Vdi[] {
    return this.#all(this.#byName.get(name)).filter((vdi) => !vdi.deleting)
  }

  snapshotsOf(name: string): Vdi[] {
    return this.of(name).filter((vdi) => vdi.snapshotAt > 0)
  }

  hasWorking(name: string): boolean {
    for (const vid of this.#byName.get(name) ?? []) if (isWorking(this.#byVid.get(vid)!)) return true
    return false
  }

  /** All of a family, the deleted ones too. */
  ofFamily(family: number): Vdi[] {
    return this.#all(this.#byFamily.get(family))
  }

  families(): IterableIterator<number> {
    return this.#byFamily.keys()
  }

  /** Adds a VDI, or puts another record in the place of the one that its vid had, of the same name and family. */
  put(vdi: Vdi): void {
    this.#count(this.#byVid.get(vdi.vid), -1)
    this.#count(vdi, 1)
    this.#byVid.set(vdi.vid, vdi)
    addTo(this.#byName, vdi.name, vdi.vid)
    addTo(this.#byFamily, vdi.family, vdi.vid)
  }

  drop(vid: number): void {
    const vdi = this.#byVid.get(vid)
    if (!vdi) return
    this.#count(vdi, -1)
    this.#byVid.delete(vid)
    removeFrom(this.#byName, vdi.name, vid)
    removeFrom(this.#byFamily, vdi.family, vid)
  }

  /** The first free vid from a name's hash on that is not in `taken`. Throws FullVdi. */
  freeVid(name: string, taken?: { has(vid: number): boolean }): number {
    let vid = vidOfName(name)
    for (let probes = 1; probes < VDI_COUNT; probes++) {
      if (vid !== HOLE_VID && !this.has(vid) && !taken?.has(vid)) return vid
      vid = nextVid(vid)
    }
    throw new StoreError('FullVdi')
  }

  /**
   * Whether a free vid lies between the hash of some name and a VDI of that name. Clients look for VDIs from the hash on and
   * stop at the first vid that was never used, so that such a gap must look used to them.
   */
  isGap(vid: number): boolean {
    if (this.has(vid)) return false
    for (const { first, count } of this.probeRuns()) {
      if ((vid - first + VDI_COUNT) % VDI_COUNT < count) return true
    }
    return false
  }

  /** For each name the vids from its hash to its last VDI. One may go beyond the end of all vids, and on at 0. */
  *probeRuns(): Generator<{ first: number; count: number }> {
    for (const [name, vids] of this.#byName) {
      const first = vidOfName(name)
      let count = 1
      for (const vid of vids) {
        if (this.#byVid.get(vid)!.renamed) continue
        count = Math.max(count, ((vid - first + VDI_COUNT) % VDI_COUNT) + 1)
      }
      yield { first, count }
    }
  }

  /** The snapshot id of a new working VDI of this name. */
  nextSnapId(name: string): number {
    return 1 + this.of(name).reduce((last, { snapId }) => Math.max(last, snapId), 0)
  }

  #all(vids: Iterable<number> = []): Vdi[] {
    return Array.from(vids, (vid) => this.#byVid.get(vid)!)
  }

  #count(vdi: Vdi | undefined, by: 1 | -1): void {
    if (!vdi || vdi.deleting) return
    if (!isWorking(vdi)) this.#snapshots += by
    else {
      this.#working += by
      const bytes = this.#provisionedByCopies.get(vdi.copies) ?? 0
      this.#provisionedByCopies.set(vdi.copies, bytes + by * vdi.sizeBytes)
    }
  }
}

const isWorking = ({ snapshotAt, deleting }: Vdi): boolean => snapshotAt === 0 && !deleting

function addTo<K>(index: Map<K, Set<number>>, key: K, vid: number): void {
  const vids = index.get(key)
  if (vids) vids.add(vid)
  else index.set(key, new Set([vid]))
}

function removeFrom<K>(index: Map<K, Set<number>>, key: K, vid: number): void {
  const vids = index.get(key)
  vids?.delete(vid)
  if (vids?.size === 0) index.delete(key)
}
