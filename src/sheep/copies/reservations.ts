import { type Blocks, countBlocks, subtract, toBlocks } from './block-ranges.ts'

/** Blocks of objects for which space is set aside, and which have none on the disk yet. */
export class Reservations {
  readonly #objects = new Map<bigint, Blocks>()

  /** How many there are. */
  get blocks(): number {
    let sum = 0
    for (const blocks of this.#objects.values()) sum += countBlocks(blocks)
    return sum
  }

  has(oid: bigint): boolean {
    return this.#objects.has(oid)
  }

  of(oid: bigint): Blocks {
    return this.#objects.get(oid) ?? []
  }

  add(oid: bigint, blocks: Blocks): void {
    this.#objects.set(oid, toBlocks([...this.of(oid), ...blocks]))
  }

  /** They are being written. */
  use(oid: bigint, blocks: Blocks): void {
    const left = subtract(this.of(oid), blocks)
    if (left.length > 0) this.#objects.set(oid, left)
    else this.#objects.delete(oid)
  }

  release(oid: bigint): void {
    this.#objects.delete(oid)
  }
}
