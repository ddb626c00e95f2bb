import { eachNextHash, type Hash64, sdHash } from '../protocol/hash.ts'

/** Points on the circle of 2^64, in order: the halves of each, and whose it is. Numbers, since there are some ten thousands. */
export interface Points {
  highs: Uint32Array
  lows: Uint32Array
  owners: Uint32Array
}

export const NO_POINTS: Points = { highs: new Uint32Array(), lows: new Uint32Array(), owners: new Uint32Array() }

/** More nodes are never remembered: about 4 KiB each. */
const NODES_MAX = 1024

/** The points of nodes, which are the same in each ring that a node is in: to hash them again takes longer than all the rest. */
export class PointCache {
  readonly #known = new Map<string, Points>()

  /** Of the node with this key: `count` hashes, each of the one before. */
  pointsOf(key: Buffer, count: number, owner: number): Points {
    const name = `${key.toString('hex')}/${count}`
    let points = this.#known.get(name)
    if (points) this.#known.delete(name)
    else points = hashed(key, count)
    this.#known.set(name, points) // as the one used last
    if (this.#known.size > NODES_MAX) this.#known.delete(this.#known.keys().next().value!)
    return { ...points, owners: new Uint32Array(count).fill(owner) }
  }
}

function hashed(key: Buffer, count: number): Points {
  const hashes = new BigUint64Array(count)
  const words = new DataView(hashes.buffer)
  const isLittle = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1
  eachNextHash(sdHash(key), count, ({ high, low }, at) => {
    words.setUint32(8 * at + (isLittle ? 4 : 0), high, isLittle)
    words.setUint32(8 * at + (isLittle ? 0 : 4), low, isLittle)
  })
  hashes.sort()
  const half = (position: number) =>
    Uint32Array.from({ length: count }, (_, at) => words.getUint32(8 * at + position, isLittle))
  return { highs: half(isLittle ? 4 : 0), lows: half(isLittle ? 0 : 4), owners: new Uint32Array(count) }
}

/** Of points that are the same, those of the lower owner are first. */
export function mergeAll(all: readonly Points[]): Points {
  if (all.length === 0) return NO_POINTS
  if (all.length === 1) return all[0]!
  const middle = all.length >>> 1
  return merge(mergeAll(all.slice(0, middle)), mergeAll(all.slice(middle)))
}

function merge(a: Points, b: Points): Points {
  const count = a.owners.length + b.owners.length
  const merged = { highs: new Uint32Array(count), lows: new Uint32Array(count), owners: new Uint32Array(count) }
  let atA = 0
  let atB = 0
  for (let at = 0; at < count; at++) {
    const isOfA = atB === b.owners.length || (atA < a.owners.length && !isBefore(b, atB, a.highs[atA]!, a.lows[atA]!))
    const from = isOfA ? a : b
    const index = isOfA ? atA++ : atB++
    merged.highs[at] = from.highs[index]!
    merged.lows[at] = from.lows[index]!
    merged.owners[at] = from.owners[index]!
  }
  return merged
}

const isBefore = ({ highs, lows }: Points, at: number, high: number, low: number): boolean =>
  highs[at]! < high || (highs[at]! === high && lows[at]! < low)

/** Index of the first point that is not before `hash`; as many as there are when all are. */
export function firstAtOrAfter(points: Points, { high, low }: Hash64): number {
  let from = 0
  let to = points.owners.length
  while (from < to) {
    const middle = (from + to) >>> 1
    if (isBefore(points, middle, high, low)) from = middle + 1
    else to = middle
  }
  return from
}
