import { dataOid } from '../../protocol/oid.ts'
import type { Edges } from '../block-range.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT } from '../object-format.ts'
import type { Grace } from './grace.ts'
import { type ObjectView, oidOfLayer, putInto, readThrough } from './object-view.ts'
import type { BlockContents, BlockRange, ReplicatedObjects } from './replicated-objects.ts'

/** What a write says an object is to hold, from what its VDI sees there. */

interface Source {
  objects: ReplicatedObjects
  grace: Grace
}

/** Whole blocks, as they are. */
export async function readEdges(
  { objects, grace }: Source,
  index: number,
  view: ObjectView | null,
  blocks: readonly number[],
): Promise<Edges> {
  const edges: Edges = new Map()
  const read = async (block: number) => {
    const bytes = Buffer.alloc(BLOCK_BYTES)
    edges.set(block, bytes)
    const layer = view?.layers[block] ?? 0
    if (layer === 0) return
    await grace.during(() => readThrough(objects, oidOfLayer(view!, layer, index), block, bytes))
  }
  await Promise.all(blocks.map(read))
  return edges
}

/** What an object that inherits nothing must hold to be what its base is, but for what is written to it. */
export async function flattened(
  { objects, grace }: Source,
  index: number,
  base: ObjectView,
  { blocks, zeros }: BlockContents,
): Promise<BlockContents> {
  const view = { chain: base.chain, layers: base.layers.slice() }
  for (const { first, bytes } of blocks) view.layers.fill(0, first, first + bytes.length / BLOCK_BYTES)
  for (const { first, count } of zeros) view.layers.fill(0, first, first + count)
  const runs = runsOf(0, BLOCKS_PER_OBJECT, (block) => view.layers[block] !== 0)
  const kept = await Promise.all(
    runs.map(async ({ first, count }) => {
      const bytes = Buffer.allocUnsafe(count * BLOCK_BYTES)
      await grace.during(() => readThrough(objects, dataOid(base.chain[0]!, index), first, bytes))
      return { first, bytes }
    }),
  )
  return { blocks: [...blocks, ...kept].sort((a, b) => a.first - b.first), zeros: [] }
}

/**
 * The zeros of a base are stated in the object that covers it, and only blocks with bytes inherited: nobody has to look for them in
 * the base, and it is needed no longer than its bytes are.
 */
export function withZerosOf(base: ObjectView | null, contents: BlockContents): BlockContents {
  if (!base) return contents
  const layers = base.layers.slice()
  putInto({ chain: base.chain, layers }, contents)
  for (const { first, count } of contents.zeros) layers.fill(1, first, first + count)
  const zeros = runsOf(0, BLOCKS_PER_OBJECT, (block) => layers[block] === 0)
  return { blocks: contents.blocks, zeros: [...contents.zeros, ...zeros] }
}

/** The runs of blocks in a range of which something holds. */
export function runsOf(first: number, end: number, holds: (block: number) => boolean): BlockRange[] {
  const runs: BlockRange[] = []
  for (let block = first; block < end; block++) {
    if (!holds(block)) continue
    const last = runs.at(-1)
    if (last && last.first + last.count === block) last.count++
    else runs.push({ first: block, count: 1 })
  }
  return runs
}
