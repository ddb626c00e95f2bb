import assert from 'node:assert'
import { dataOid, oidIndex, oidVid } from '../../protocol/oid.ts'
import { type Account, objectsOf } from '../accounts.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT } from '../object-format.ts'
import type { BlockContents, BlockRange, ObjectLayout, ReplicatedObjects } from './replicated-objects.ts'

/** What a VDI sees at one index: whose object has each block. */
export interface ObjectView {
  /** The vids whose objects are looked through, from the top down. */
  readonly chain: readonly number[]
  /** For each block 0 for zeros, or one more than the place in the chain of who has it. */
  readonly layers: Uint8Array
}

/** As many objects as one byte can tell apart. Owners keep chains much shorter. */
const CHAIN_MAX = 255

export function holderOf({ chain, layers }: ObjectView, block: number): number {
  const layer = layers[block]!
  return layer === 0 ? 0 : chain[layer - 1]!
}

/** The view of a new object that covers another one, with nothing of its own yet. */
export function coverOf(vid: number, base: ObjectView | null): ObjectView {
  const view = { chain: [vid, ...(base?.chain ?? [])], layers: new Uint8Array(BLOCKS_PER_OBJECT) }
  for (let block = 0; base && block < BLOCKS_PER_OBJECT; block++) view.layers[block] = below(base.layers[block]!, 1)
  return view
}

/** What is in one layer of an object is in a lower one for whoever sees it through others. */
const below = (layer: number, others: number): number => (layer === 0 ? 0 : layer + others)

/** The topmost object has been written to. */
export function putInto({ layers }: ObjectView, { blocks, zeros }: BlockContents): void {
  for (const { first, bytes } of blocks) layers.fill(1, first, first + bytes.length / BLOCK_BYTES)
  for (const { first, count } of zeros) layers.fill(0, first, first + count)
}

/** What one index adds to the account of a VDI whose map names the topmost object of the view; null where it names none. */
export function countView(view: ObjectView | null): Account {
  const counts = new Map<number, number>()
  if (!view) return counts
  counts.set(objectsOf(view.chain[0]!), 1)
  for (let block = 0; block < BLOCKS_PER_OBJECT; block++) {
    const holder = holderOf(view, block)
    if (holder !== 0) counts.set(holder, (counts.get(holder) ?? 0) + 1)
  }
  return counts
}

/** What has to be added to `before` to come to `after`. */
export function difference(before: Account, after: Account): Map<number, number> {
  const deltas = new Map(after)
  for (const [line, count] of before) deltas.set(line, (deltas.get(line) ?? 0) - count)
  for (const [line, delta] of deltas) if (delta === 0) deltas.delete(line)
  return deltas
}

interface Entry {
  view: Promise<ObjectView>
  /** When it is there. */
  known?: ObjectView
  users: number
  isTouched: boolean
}

export interface HeldView {
  readonly view: ObjectView
  release(): void
}

/**
 * Views by oid, of a whole family: a bounded number, and those that somebody holds. There is one of each object, which its owner
 * keeps as the object is; so it has to be held from before a write is sent until it is answered.
 */
export class ObjectViews {
  readonly #objects: ReplicatedObjects
  readonly #max: number
  readonly #entries = new Map<bigint, Entry>()

  constructor(objects: ReplicatedObjects, max: number) {
    this.#objects = objects
    this.#max = max
  }

  /** Asks the copies for what is not known. Throws NoObject. */
  async hold(oid: bigint): Promise<HeldView> {
    let entry = this.#entries.get(oid)
    if (!entry) {
      entry = { view: this.#load(oid), users: 0, isTouched: true }
      this.#entries.set(oid, entry)
      this.#shrink()
    }
    const held = entry
    held.users++
    held.isTouched = true
    try {
      const view = await held.view
      held.known = view
      return { view, release: () => void held.users-- }
    } catch (error) {
      held.users--
      if (this.#entries.get(oid) === held) this.#entries.delete(oid)
      throw error
    }
  }

  /** What is known without asking; null when it is not. */
  holdNow(oid: bigint): HeldView | null {
    const entry = this.#entries.get(oid)
    if (!entry?.known) return null
    entry.users++
    entry.isTouched = true
    return { view: entry.known, release: () => void entry.users-- }
  }

  /** An object was made that nobody else knows yet. */
  put(oid: bigint, view: ObjectView): void {
    this.#entries.set(oid, { view: Promise.resolve(view), known: view, users: 0, isTouched: true })
    this.#shrink()
  }

  /** What is known of an object does not hold any more. */
  drop(oid: bigint): void {
    this.#entries.delete(oid)
  }

  /** From the top down, as far as something is seen: what nobody sees any more may be gone. */
  async #load(oid: bigint): Promise<ObjectView> {
    const chain: number[] = []
    const layers = new Uint8Array(BLOCKS_PER_OBJECT)
    let open: readonly BlockRange[] = [{ first: 0, count: BLOCKS_PER_OBJECT }]
    for (let at: bigint | null = oid; at !== null && open.length > 0; ) {
      const known: ObjectView | undefined = at === oid ? undefined : this.#entries.get(at)?.known
      const above = chain.length
      if (known) {
        chain.push(...known.chain)
        for (const block of blocksIn(open)) layers[block] = below(known.layers[block]!, above)
        break
      }
      const layout: ObjectLayout = await this.#objects.layoutOf(at)
      chain.push(oidVid(at))
      assert(chain.length <= CHAIN_MAX)
      for (const { first, count } of intersect(open, layout.data)) layers.fill(above + 1, first, first + count)
      open = intersect(open, layout.inherited)
      at = layout.base
    }
    return { chain, layers }
  }

  /** Those that were not touched since the last round go. */
  #shrink(): void {
    let looks = this.#entries.size
    for (const [oid, entry] of this.#entries) {
      if (this.#entries.size <= this.#max || looks-- === 0) return
      this.#entries.delete(oid)
      if (entry.users === 0 && !entry.isTouched) continue
      entry.isTouched = false
      this.#entries.set(oid, entry)
    }
  }
}

/** Reads blocks of an object into `target`, and what it inherits from where it lies. */
export async function readThrough(
  objects: ReplicatedObjects,
  oid: bigint,
  first: number,
  target: Buffer,
): Promise<void> {
  const contents = await objects.read(oid, { first, count: target.length / BLOCK_BYTES })
  for (const run of contents.blocks) run.bytes.copy(target, (run.first - first) * BLOCK_BYTES)
  for (const zeros of contents.zeros) {
    const start = (zeros.first - first) * BLOCK_BYTES
    target.fill(0, start, start + zeros.count * BLOCK_BYTES)
  }
  if (contents.inherited.length === 0) return
  const base = contents.base
  assert(base !== null && oidIndex(base) === oidIndex(oid), 'what is inherited comes from somewhere')
  await Promise.all(
    contents.inherited.map((range) => {
      const start = (range.first - first) * BLOCK_BYTES
      return readThrough(objects, base, range.first, target.subarray(start, start + range.count * BLOCK_BYTES))
    }),
  )
}

function intersect(a: readonly BlockRange[], b: readonly BlockRange[]): BlockRange[] {
  const both: BlockRange[] = []
  for (const x of a) {
    for (const y of b) {
      const first = Math.max(x.first, y.first)
      const end = Math.min(x.first + x.count, y.first + y.count)
      if (first < end) both.push({ first, count: end - first })
    }
  }
  return both
}

function* blocksIn(ranges: readonly BlockRange[]): Generator<number> {
  for (const { first, count } of ranges) for (let block = first; block < first + count; block++) yield block
}

/** The oid of the object at the place `layer` - 1 of a chain. */
export const oidOfLayer = (view: ObjectView, layer: number, index: number): bigint =>
  dataOid(view.chain[layer - 1]!, index)
