import type { Clock, Timer } from '../runtime/clock.ts'
import type { FileRange } from '../runtime/disk.ts'
import type { DiskArray } from './disks/disk-array.ts'
import type { Volume } from './disks/volume.ts'
import type { ObjectCache } from './object-cache.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT, blockPosition, slotOf } from './object-format.ts'
import type { ObjectWrite } from './object-write.ts'
import type { SlotPunches } from './slot-punches.ts'
import type { StoredObject } from './stored-object.ts'

const KEPT_BYTES_MAX_DEFAULT = 2 ** 30
/** Of the room that a file system has besides: a disk that is nearly full needs its space more than its speed. */
const KEPT_OF_ROOM_MAX = 1 / 4
/** How long the slots of an object are kept that no large write overwrites. */
const KEPT_MS = 10_000
/** How often to look for such objects, while there are any. */
const LOOK_MS = 5000
/** How often to try again, when changes that no checkpoint has seen yet stand in the way. */
const RETRY_MS = 1000

interface KeptObject {
  /** A byte for each block: whether the slot that the block is not in has bytes that nobody wants. */
  readonly blocks: Uint8Array
  count: number
  /** When slots were last kept. */
  keptMs: number
}

/**
 * Slots that overwriting has freed, and that are not given back at once: the next large write over the same blocks goes to them. What
 * is overwritten once is overwritten again, and to write over a slot that has its place on the device and its pages in the page cache
 * takes a quarter less of the processor than to write where a hole has just been made, and lets the client wait for much less.
 *
 * 1. For the store such a slot is free, as a hole is. That it is not empty matters to nobody: what was placed is told by its checksum.
 * 2. They are given back when no large write has overwritten the object for a while, when room becomes scarce, and at the end of
 *    the process. What a crash leaves the scrub finds (stray-slots.ts). What was discarded is never kept.
 * 3. No more is kept than a bound, and than a part of the room that there is. What is kept already stays, and what comes beyond is
 *    given back at once: so of a pass over more than the bound a part is spared, and not all of it replaced in turn.
 * 4. They count as room: whoever finds too little is told yes, if there is enough with them, and they are given back before
 *    the next checkpoint begins (`makeRoom`, slot-punches.ts).
 * 5. While a disk is emptied nothing is kept, so that they are not copied to another one.
 */
export class KeptSlots {
  readonly #disks: DiskArray
  readonly #cache: ObjectCache
  readonly #punches: SlotPunches
  readonly #clock: Clock
  readonly #bytesMax: number
  readonly #kept = new Map<StoredObject, KeptObject>()
  #blocks = 0
  #timer: Timer | null = null
  /** One at a time, since two could give back the same. */
  #giving: Promise<unknown> = Promise.resolve()
  #nextTryMs = 0
  #isClosed = false

  constructor(options: {
    disks: DiskArray
    cache: ObjectCache
    punches: SlotPunches
    clock: Clock
    bytesMax: number | undefined
  }) {
    this.#disks = options.disks
    this.#cache = options.cache
    this.#punches = options.punches
    this.#clock = options.clock
    this.#bytesMax = options.bytesMax ?? KEPT_BYTES_MAX_DEFAULT
  }

  get bytes(): number {
    return this.#blocks * BLOCK_BYTES
  }

  /**
   * A checkpoint has written this: whether the slots that it has freed by overwriting stay, if they `may`. If not, the caller gives
   * them back.
   */
  settle({ object, blocks }: ObjectWrite, may: boolean): boolean {
    if (object.removed || object.lost) {
      this.forget(object)
      return false
    }
    const before = this.#kept.get(object)
    const surplus: { block: number }[] = []
    const changed: { block: number }[] = []
    for (const write of blocks) {
      if (!write.freesOtherSlot) continue
      const isKept = before?.blocks[write.block] === 1
      if (isKept) changed.push(write)
      if (slotOf(write.word1) !== null && (write.fillsOtherSlot || isKept)) surplus.push(write)
    }
    const keeps = may && !this.#isClosed && this.#mayKeep(object, surplus.length - changed.length)
    if (before) this.#forgetBlocks(object, before, changed)
    if (keeps && surplus.length > 0) this.#keep(object, surplus)
    return keeps
  }

  #mayKeep(object: StoredObject, blocks: number): boolean {
    const { membership, placement } = this.#disks
    const bytes = (this.#blocks + blocks) * BLOCK_BYTES
    if (bytes > this.#bytesMax || membership.members.some(({ state }) => state === 'leaving')) return false
    return bytes <= placement.roomOf(placement.placeOf(object.oid)) * KEPT_OF_ROOM_MAX
  }

  #keep(object: StoredObject, surplus: readonly { block: number }[]): void {
    let kept = this.#kept.get(object)
    if (!kept) {
      kept = { blocks: new Uint8Array(BLOCKS_PER_OBJECT), count: 0, keptMs: 0 }
      this.#kept.set(object, kept)
    }
    for (const { block } of surplus) kept.blocks[block] = 1
    kept.count += surplus.length
    kept.keptMs = this.#clock.monotonicMs()
    this.#blocks += surplus.length
    this.#lookLater()
  }

  #forgetBlocks(object: StoredObject, kept: KeptObject, blocks: readonly { block: number }[]): void {
    for (const { block } of blocks) {
      if (kept.blocks[block] === 0) continue
      kept.blocks[block] = 0
      kept.count--
      this.#blocks--
    }
    if (kept.count === 0) this.#kept.delete(object)
  }

  /** The object is gone, with its file or with its disk. */
  forget(object: StoredObject): void {
    this.#blocks -= this.#kept.get(object)?.count ?? 0
    this.#kept.delete(object)
  }

  #lookLater(): void {
    this.#timer ??= this.#clock.timer(LOOK_MS, () => {
      this.#timer = null
      const nowMs = this.#clock.monotonicMs()
      const old = [...this.#kept].filter(([, { keptMs }]) => nowMs - keptMs >= KEPT_MS)
      if (old.length > 0) void this.#giveBack(old.map(([object]) => object))
      if (this.#kept.size > 0) this.#lookLater()
    })
  }

  /**
   * There is too little room: begins to give everything back, and tells whether there will be enough by that. `fits` is told of each
   * file system how much comes.
   */
  makeRoom(fits: (comingOn: (volume: Volume) => number) => boolean): boolean {
    if (this.#blocks === 0) return false
    const nowMs = this.#clock.monotonicMs()
    if (nowMs >= this.#nextTryMs) {
      this.#nextTryMs = nowMs + RETRY_MS
      void this.giveAllBack()
    }
    return fits((volume) => this.#bytesOn(volume))
  }

  #bytesOn(volume: Volume): number {
    let blocks = 0
    for (const [object, { count }] of this.#kept) {
      if (!object.removed && !object.lost && this.#disks.placement.placeOf(object.oid).volume === volume)
        blocks += count
    }
    return blocks * BLOCK_BYTES
  }

  /** Resolves with how many bytes that were. What changes stand in the way of, the checkpoint after them frees anew. */
  giveAllBack(): Promise<number> {
    return this.#giveBack([...this.#kept.keys()])
  }

  /** Nothing is kept any more; what is left is given back, as far as it can be. */
  async close(): Promise<void> {
    this.#isClosed = true
    this.#timer?.cancel()
    await this.giveAllBack()
  }

  #giveBack(objects: readonly StoredObject[]): Promise<number> {
    const given = this.#giving.then(async () => {
      let blocks = 0
      for (const object of objects) blocks += await this.#giveBackOf(object)
      if (blocks > 0) await this.#disks.membership.refresh()
      return blocks * BLOCK_BYTES
    })
    const result = given.catch(() => 0) // the next checkpoint meets it, too
    this.#giving = result
    return result
  }

  async #giveBackOf(object: StoredObject): Promise<number> {
    if (object.removed || object.lost || !(await this.#isHeld(object))) {
      this.forget(object)
      return 0
    }
    try {
      const kept = this.#kept.get(object)
      if (!kept || !object.file) return 0
      // From here to `give` in one turn. A block that has changed since its checkpoint may be in the slot, or come to it.
      const blocks: { block: number }[] = []
      for (const [block, isKept] of kept.blocks.entries()) {
        if (isKept === 1 && !object.overlay.has(block)) blocks.push({ block })
      }
      kept.keptMs = this.#clock.monotonicMs() // for what is left
      if (blocks.length === 0) return 0
      const { volume } = this.#disks.placement.placeOf(object.oid)
      await this.#punches.give(object, [...otherSlots(object, blocks)])
      const before = this.#blocks
      if (this.#kept.get(object) === kept) this.#forgetBlocks(object, kept, blocks)
      // They are no promise any more, so they have to be room before the disk is asked again.
      volume.freeBytes += (before - this.#blocks) * BLOCK_BYTES
      return blocks.length
    } finally {
      this.#cache.release(object)
    }
  }

  /** False for one that cannot be read: whoever wants to read it is told why. */
  async #isHeld(object: StoredObject): Promise<boolean> {
    try {
      await this.#cache.holdObject(object)
      return true
    } catch {
      return false
    }
  }
}

/** Where the blocks are not, in runs. All of them are data, and as the table says. */
function* otherSlots(object: StoredObject, blocks: readonly { block: number }[]): Iterable<FileRange> {
  const { file } = object
  let run: FileRange | null = null
  for (const { block } of blocks) {
    const slot = object.tableSlot(block)
    if (!file || slot === null) continue
    const position = blockPosition(block, slot === 0 ? 1 : 0)
    if (run && run.position + run.length === position) {
      run.length += BLOCK_BYTES
      continue
    }
    if (run) yield run
    run = { file, position, length: BLOCK_BYTES }
  }
  if (run) yield run
}
