import type { Member } from '../membership/view.ts'
import type { NodeId } from '../order/item.ts'
import { type Blocks, overlaps } from './block-ranges.ts'
import type { BlockContents, BlockRange } from './copy-store.ts'
import type { Version } from './version.ts'

/** A copy that takes part in all that is done to an object. */
export interface ActingCopy {
  member: Member
  /** What it cannot answer with; none in one that is in sync. */
  missing: Blocks
}

/** A write that was sent, and is sent again after each open until it is done. */
export interface PendingWrite {
  contents: BlockContents
  blocks: Blocks
  durable: boolean
  version: Version
  /** Those who have not answered yet. */
  waiting: Set<NodeId>
  settled: Deferred
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
  readonly acting = new Map<NodeId, ActingCopy>()
  /** Blocks that have space on the disks of all acting copies. */
  roomy: Blocks = []
  readonly pending: PendingWrite[] = []
  opening: Promise<void> | null = null
  /** Reservations are made one after the other, so that each knows what the others got. */
  reserving: Promise<unknown> = Promise.resolve()

  constructor(oid: bigint, exists: boolean) {
    this.oid = oid
    this.exists = exists
  }

  close(): void {
    this.isOpen = false
    this.term++
  }

  /** Resolves when none of the writes that overlap these blocks now is under way any more, whatever became of them. */
  async quiet(blocks: readonly BlockRange[]): Promise<void> {
    const overlapping = this.pending.filter((write) => overlaps(write.blocks, blocks))
    await Promise.allSettled(overlapping.map(({ settled }) => settled.promise))
  }
}

export interface Deferred {
  promise: Promise<void>
  resolve(): void
  reject(error: Error): void
}

export function deferred(): Deferred {
  let settle: Omit<Deferred, 'promise'> | null = null
  const promise = new Promise<void>((resolve, reject) => {
    settle = { resolve, reject }
  })
  promise.catch(() => {}) // who waits for it hears of it
  return { promise, ...settle! }
}
