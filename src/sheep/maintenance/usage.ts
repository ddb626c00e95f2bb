import { dataOid, inodeOid } from '../../protocol/oid.ts'
import type { Clock } from '../../runtime/clock.ts'
import { blocksIn, isBlocksLine } from '../accounts.ts'
import type { ClusterState } from '../cluster-state.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT } from '../object-format.ts'
import type { AccountChange, ObjectStore } from '../object-store.ts'
import { FamilyTree } from './heirs.ts'
import { arrange, atOnce, mostAlone, othersOf, type Seer } from './seers.ts'

export interface Usage {
  provisionedBytes: number
  /** What the VDI would take if it were alone: all its blocks with data. */
  allocatedBytes: number
  /** What comes back when it is deleted. */
  uniqueBytes: number
  /** The rest of what is allocated: others see it too. */
  sharedBytes: number
  /** False while `uniqueBytes` is still being counted: then it is the most that it can be. */
  isExact: boolean
}

const ENTRIES_PER_PAGE = BLOCK_BYTES / 4
/** How long an answer waits for what has to be counted. */
const PATIENCE_MS = 50
const OBJECTS_PER_TURN = 32

/**
 * Says for each VDI and snapshot how much of what it sees nobody else does, from the accounts. By FamilyTree, for the blocks of
 * one holder:
 *
 * 1. a VDI with a living ancestor that sees the holder has nothing of it alone;
 * 2. one that nobody else sees the holder beside or below has all of what it sees alone;
 * 3. one with a single heir below it, and nobody beside it, has alone what the heir has lost: the difference of two numbers;
 * 4. one with an heir below it that sees as much has nothing alone.
 *
 * What is left are holders with several branches which have all lost something: a snapshot with clones that were all written to.
 * There, blocks are looked for that all others have lost, beginning with what the one has lost that has lost least: its
 * map pages and tables that differ are read, and no others. What was found holds until an account changes that names the
 * holder.
 *
 * A block that only one VDI sees is in one `uniqueBytes`; one that several see is in the `sharedBytes` of each of them.
 */
export class UsageMeter {
  readonly #store: ObjectStore
  readonly #state: ClusterState
  readonly #clock: Clock
  /** Counts the changes of who sees what of a holder by others than itself. */
  readonly #versions = new Map<number, number>()
  /** Counts what changes more than a line: snapshots, clones, deletes. */
  #epoch = 0
  readonly #counted = new Map<number, Counted>()

  constructor(options: { store: ObjectStore; state: ClusterState; clock: Clock }) {
    this.#store = options.store
    this.#state = options.state
    this.#clock = options.clock
    this.#store.accountListeners.add((change) => this.#note(change))
  }

  #note(change: AccountChange): void {
    if (change.kind === 'accountSet') {
      this.#epoch++
      return
    }
    for (const line of change.deltas.keys()) {
      if (isBlocksLine(line) && line !== change.vid) this.#versions.set(line, (this.#versions.get(line) ?? 0) + 1)
    }
  }

  /** By vid; VDIs that were deleted are not in it. */
  async all(): Promise<Map<number, Usage>> {
    const unique = new Map<number, { blocks: number; isExact: boolean }>()
    const pending: Promise<void>[] = []
    const add = (vid: number, blocks: number, isExact = true) => {
      const sum = unique.get(vid) ?? { blocks: 0, isExact: true }
      unique.set(vid, { blocks: sum.blocks + blocks, isExact: sum.isExact && isExact })
    }
    const open: { holder: number; top: Seer[] }[] = []
    const tree = new FamilyTree(this.#state)
    for (const [holder, seers] of this.#seersByHolder()) {
      const top = arrange(seers, tree)
      if (top.some((seer) => atOnce(seer, top) === null)) {
        open.push({ holder, top })
        pending.push(this.#count(holder, top))
      } else for (const seer of top) add(seer.vdi.vid, atOnce(seer, top)!)
    }
    if (pending.length > 0) await Promise.race([Promise.all(pending), this.#clock.sleep(PATIENCE_MS)])
    for (const { holder, top } of open) {
      const counted = this.#counted.get(holder)
      const isExact = counted?.key === this.#keyOf(holder) && counted.blocks !== null
      for (const seer of top) {
        const { vid } = seer.vdi
        if (isExact) add(vid, counted.blocks?.get(vid) ?? 0)
        else add(vid, atOnce(seer, top) ?? mostAlone(seer), atOnce(seer, top) !== null)
      }
    }
    const holders = new Set(open.map(({ holder }) => holder))
    for (const holder of [...this.#counted.keys()]) if (!holders.has(holder)) this.#counted.delete(holder)
    const usage = new Map<number, Usage>()
    for (const vdi of this.#state.vdis.values()) {
      if (vdi.deleting) continue
      const allocated = blocksIn(this.#store.accounts.of(vdi.vid))
      const { blocks, isExact } = unique.get(vdi.vid) ?? { blocks: 0, isExact: true }
      usage.set(vdi.vid, {
        provisionedBytes: vdi.sizeBytes,
        allocatedBytes: allocated * BLOCK_BYTES,
        uniqueBytes: Math.min(blocks, allocated) * BLOCK_BYTES,
        sharedBytes: Math.max(0, allocated - blocks) * BLOCK_BYTES,
        isExact,
      })
    }
    return usage
  }

  #seersByHolder(): Map<number, Seer[]> {
    const holders = new Map<number, Seer[]>()
    for (const vdi of this.#state.vdis.values()) {
      if (vdi.deleting) continue
      for (const [holder, blocks] of this.#store.accounts.of(vdi.vid)) {
        if (!isBlocksLine(holder)) continue
        const seer = { vdi, blocks, below: [] }
        const seers = holders.get(holder)
        if (seers) seers.push(seer)
        else holders.set(holder, [seer])
      }
    }
    return holders
  }

  #keyOf(holder: number): string {
    return `${this.#epoch}:${this.#versions.get(holder) ?? 0}`
  }

  /** Resolves when the blocks of a holder that only one VDI sees are counted as they were at some moment since now. */
  async #count(holder: number, top: readonly Seer[]): Promise<void> {
    const before = this.#counted.get(holder)
    if (before?.running) return before.running
    const key = this.#keyOf(holder)
    if (before?.key === key && before.blocks) return
    const counted: Counted = { key: before?.key ?? '', blocks: before?.blocks ?? null, running: null }
    this.#counted.set(holder, counted)
    counted.running = this.#countAlone(holder, top)
      .then((blocks) => {
        counted.blocks = blocks
        counted.key = this.#keyOf(holder) === key ? key : ''
      })
      .catch(() => {
        counted.blocks = null // what cannot be read stays an estimate; the audit says what is damaged
      })
      .finally(() => {
        counted.running = null
      })
    return counted.running
  }

  async #countAlone(holder: number, top: readonly Seer[]): Promise<Map<number, number>> {
    const alone = new Map<number, number>()
    for (const seer of top) {
      const known = atOnce(seer, top)
      alone.set(seer.vdi.vid, known ?? (await this.#lostByAllOthers(holder, seer, top)))
    }
    return alone
  }

  /** Blocks of a holder that one VDI sees and none of the others. */
  async #lostByAllOthers(holder: number, seer: Seer, top: readonly Seer[]): Promise<number> {
    const others = othersOf(seer, top).sort((a, b) => b.blocks - a.blocks)
    let count = 0
    let looks = 0
    for await (const index of this.#differences(holder, others[0]!.vdi.vid)) {
      let blocks = await this.#seen(seer.vdi.vid, holder, index)
      for (const other of others) {
        if (blocks.size === 0) break
        if (++looks % OBJECTS_PER_TURN === 0) await new Promise<void>((resolve) => this.#clock.afterInput(resolve))
        const seen = await this.#seen(other.vdi.vid, holder, index)
        blocks = new Set([...blocks].filter((block) => !seen.has(block)))
      }
      count += blocks.size
    }
    return count
  }

  /** Indexes of objects of a holder that the map of another VDI does not name. */
  async *#differences(holder: number, vid: number): AsyncGenerator<number> {
    for (const number of await this.#ownPages(holder)) {
      const own = await this.#page(holder, number)
      const page = await this.#page(vid, number)
      if (!own) continue
      for (let i = 0; i < ENTRIES_PER_PAGE; i++) {
        const index = number * ENTRIES_PER_PAGE + i
        if (own.readUInt32LE(i * 4) !== holder || page?.readUInt32LE(i * 4) === holder) continue
        if (this.#store.exists(dataOid(holder, index))) yield index
      }
    }
  }

  /** The pages of its map that a VDI has changed itself: only they can name objects of its own. */
  async #ownPages(vid: number): Promise<number[]> {
    const oid = inodeOid(vid)
    if (!this.#store.exists(oid)) return []
    return this.#store.using(oid, (object) => {
      const pages = Array.from({ length: BLOCKS_PER_OBJECT }, (_, number) => number)
      return pages.filter((number) => this.#store.holderOf(object, number) === vid)
    })
  }

  /** A page of a map; null when it has nothing in it. */
  async #page(vid: number, number: number): Promise<Buffer | null> {
    const oid = inodeOid(vid)
    if (!this.#store.exists(oid)) return null
    return this.#store.using(oid, async (object) => {
      if (this.#store.blockState(object, number)?.state === 'zero') return null
      const page = Buffer.alloc(BLOCK_BYTES)
      await this.#store.readBlocks(object, number, page)
      return page
    })
  }

  /** The blocks of a holder's object that a VDI sees. */
  async #seen(vid: number, holder: number, index: number): Promise<Set<number>> {
    const page = await this.#page(vid, Math.floor(index / ENTRIES_PER_PAGE))
    const owner = page?.readUInt32LE((index % ENTRIES_PER_PAGE) * 4) ?? 0
    const oid = dataOid(owner, index)
    const blocks = new Set<number>()
    if (owner === 0 || !this.#store.exists(oid)) return blocks
    await this.#store.using(oid, (object) => {
      for (let block = 0; block < BLOCKS_PER_OBJECT; block++) {
        if (this.#store.holderOf(object, block) === holder) blocks.add(block)
      }
    })
    return blocks
  }
}

interface Counted {
  key: string
  blocks: Map<number, number> | null
  running: Promise<void> | null
}
