import type { StoreError } from '../../errors.ts'
import type { StoreDone } from '../change.ts'
import type { Member } from '../membership/view.ts'
import type { NodeId } from '../order/item.ts'
import { ALL_BLOCKS, type Blocks, blocksOf, overlaps, subtract } from './block-ranges.ts'
import type { BlockContents, BlockRange } from './copy-store.ts'
import type { Version } from './version.ts'

/** A copy that takes part in all that is done to an object. */
export interface ActingCopy {
  member: Member
  /** What it cannot answer with; none in one that is in sync. */
  missing: Blocks
}

/** What a write is to make of an object. */
export interface Writing {
  /** Null removes the object. */
  contents: BlockContents | null
  /** What the rest of it is when this makes the object; null: zeros. */
  base: bigint | null
  durable: boolean
}

/** A write that was sent, and is sent again after each open until it is done. */
export class PendingWrite implements Writing {
  readonly contents: BlockContents | null
  readonly base: bigint | null
  readonly durable: boolean
  readonly blocks: Blocks
  version: Version
  /** Those who have not answered yet. */
  readonly waiting = new Set<NodeId>()
  readonly #done: StoreDone
  #watchers: (() => void)[] | null = null

  constructor({ contents, base, durable }: Writing, version: Version, done: StoreDone) {
    this.contents = contents
    this.base = base
    this.durable = durable
    this.blocks = contents ? blocksOf(contents) : ALL_BLOCKS
    this.version = version
    this.#done = done
  }

  /** It is not under way any more. To be called once. */
  settle(error: StoreError | null): void {
    this.#done(error)
    for (const watcher of this.#watchers ?? []) watcher()
  }

  /** Resolves when it is not under way any more, whatever became of it. */
  over(): Promise<void> {
    return new Promise((resolve) => {
      this.#watchers ??= []
      this.#watchers.push(resolve)
    })
  }
}

/** An object as its owner has it. */
export class OwnedObject {
  readonly oid: bigint
  /** What the block map says: an object that it names has copies somewhere. */
  exists: boolean
  isOpen = false
  /** Counts opens: what was asked before the last one is void. */
  term = 0
  version: Version | null = null
  /**
   * Somebody who is away may have a later write that was not acknowledged. Whoever reads what is here decides that it was never
   * done: under a version of this owner, or it would come back with that node.
   */
  isUndecided = false
  readonly acting = new Map<NodeId, ActingCopy>()
  /** Blocks that have space on the disks of all acting copies. */
  roomy: Blocks = []
  /** Blocks that no copy can answer with any more. */
  rotten: Blocks = []
  readonly pending: PendingWrite[] = []
  opening: Promise<void> | null = null
  deciding: Promise<void> | null = null
  /** Reservations are made one after the other, so that each knows what the others got. */
  reserving: Promise<unknown> = Promise.resolve()
  /** Rotten blocks are mended one after the other. */
  mending: Promise<unknown> = Promise.resolve()
  /** Settles when it has been removed as often as was asked. */
  gone: Promise<unknown> = Promise.resolve()
  removals = 0
  /** Requests that are about it now. */
  users = 0
  /** Since it was looked at whether it can be forgotten. */
  wasUsed = false

  constructor(oid: bigint, exists: boolean) {
    this.oid = oid
    this.exists = exists
  }

  close(): void {
    this.isOpen = false
    this.term++
  }

  /** Nobody would notice if it were opened anew. */
  get isIdle(): boolean {
    return this.users === 0 && this.pending.length === 0 && this.opening === null
  }

  /** Resolves when none of the writes that overlap these blocks now is under way any more, whatever became of them. */
  async quiet(blocks: readonly BlockRange[]): Promise<void> {
    const overlapping = this.pending.filter((write) => overlaps(write.blocks, blocks))
    await Promise.all(overlapping.map((write) => write.over()))
  }

  /** Whether `quiet` would have nothing to wait for. */
  isQuiet(first: number, count: number): boolean {
    for (const { blocks } of this.pending)
      for (const range of blocks) if (first < range.first + range.count && range.first < first + count) return false
    return true
  }

  /** The copy of this life of a node, if it has all blocks of a range. */
  nearCopy(first: number, count: number, near: string): ActingCopy | null {
    for (const copy of this.acting.values()) {
      if (copy.member.incarnation !== near) continue
      return copy.missing.length === 0 || !overlaps(copy.missing, [{ first, count }]) ? copy : null
    }
    return null
  }

  /**
   * Which copies have the blocks of a range between them; null when some are in none. In as few parts as it takes; from the copy of
   * this life of a node, where it has them, else from another one each `turn`.
   */
  sourcesOf(
    { first, count }: BlockRange,
    { turn, near }: { turn: number; near: string },
  ): { member: Member; range: BlockRange }[] | null {
    const own = this.nearCopy(first, count, near)
    if (own) return [{ member: own.member, range: { first, count } }]
    const copies = [...this.acting.values()]
    for (let i = 0; i < copies.length; i++) {
      const { member, missing } = copies[(turn + i) % copies.length]!
      if (!overlaps(missing, [{ first, count }])) return [{ member, range: { first, count } }]
    }
    const sources: { member: Member; range: BlockRange }[] = []
    for (let at = first; at < first + count; ) {
      let best: { member: Member; range: BlockRange } | null = null
      for (const { member, missing } of copies) {
        const [range] = subtract([{ first: at, count: first + count - at }], missing)
        if (range?.first === at && (!best || range.count > best.range.count)) best = { member, range }
      }
      if (!best) return null
      sources.push(best)
      at += best.range.count
    }
    return sources
  }

  /** Of a copy which `isWanted` the blocks that it lacks and another one has; null when there is none with any. */
  lackOf(isWanted: (copy: ActingCopy) => boolean): { copy: ActingCopy; missing: Blocks } | null {
    for (const copy of this.acting.values()) {
      const missing = isWanted(copy) ? subtract(copy.missing, this.rotten) : []
      if (missing.length > 0) return { copy, missing }
    }
    return null
  }

  /** These are good again in one copy. */
  mended(copy: ActingCopy, blocks: Blocks): void {
    this.rotten = subtract(this.rotten, blocks)
    copy.missing = subtract(copy.missing, blocks)
  }

  /** These are good in all copies that take part. */
  wrote(blocks: Blocks): void {
    if (this.rotten.length > 0) this.rotten = subtract(this.rotten, blocks)
    for (const copy of this.acting.values()) if (copy.missing.length > 0) copy.missing = subtract(copy.missing, blocks)
  }
}

/** The objects that an owner uses, or has used lately: what is known of the others is asked for anew. */
export class OwnedObjects {
  readonly #objects = new Map<bigint, OwnedObject>()
  readonly #idleMax: number

  constructor(idleMax: number) {
    this.#idleMax = idleMax
  }

  find(oid: bigint): OwnedObject | undefined {
    return this.#objects.get(oid)
  }

  /** `exists` says whether the block map names it, or did: what is being removed is named no more, whoever had seen that it was. */
  async use<T>(oid: bigint, exists: boolean, use: (object: OwnedObject) => Promise<T>): Promise<T> {
    const object = this.#objects.get(oid) ?? this.#begin(oid, exists)
    if (object.removals === 0) object.exists ||= exists
    this.enter(object)
    try {
      return await use(object)
    } finally {
      this.leave(object)
    }
  }

  /** Somebody is about to use one that was found, and calls `leave` when that is over. */
  enter(object: OwnedObject): void {
    object.users++
    object.wasUsed = true
  }

  leave(object: OwnedObject): void {
    object.users--
    this.#forgetIdle()
  }

  #begin(oid: bigint, exists: boolean): OwnedObject {
    const object = new OwnedObject(oid, exists)
    this.#objects.set(oid, object)
    return object
  }

  /** Those that were used since they were looked at last come again after the others: to move each at every use would cost every request. */
  #forgetIdle(): void {
    if (this.#objects.size <= this.#idleMax) return
    for (const [oid, object] of this.#objects) {
      if (!object.isIdle) continue
      this.#objects.delete(oid)
      if (object.wasUsed) this.#objects.set(oid, object)
      object.wasUsed = false
      if (this.#objects.size <= this.#idleMax) return
    }
  }

  [Symbol.iterator](): Iterator<OwnedObject> {
    return this.#objects.values()
  }
}
