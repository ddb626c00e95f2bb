import assert from 'node:assert'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../../src/sheep/object-format.ts'
import { type Operation, UnitHistory } from '../replicated/unit-history.ts'

/** Of each object the first blocks are looked at: many requests meet there. */
export const TESTED_BLOCKS = 4
export const TESTED_BYTES = TESTED_BLOCKS * BLOCK_BYTES
/** What is written as one: half a block, so that some writes have to read first. */
export const UNIT_BYTES = BLOCK_BYTES / 2
const UNITS = TESTED_BYTES / UNIT_BYTES

/** What was asked of a range: an operation on each of its units. */
export type RangeOperation = ReadonlyMap<number, Operation>

export interface Held {
  name: string
  tag: string
  /** The tested bytes of each object. */
  bytes: Buffer
}

/** A VDI that clients write to, with the history of each unit. */
export class TestedVdi {
  readonly name: string
  objects: number
  /** What does not change any more: snapshots, and clones that nobody writes to. */
  readonly held: Held[] = []
  /** Those under way that say what all of it is: not beside those that make it larger, which an unanswered one may come after. */
  rollbacks = 0
  growths = 0
  readonly #isShared: boolean
  readonly #units = new Map<number, UnitHistory>()

  /** Through several attachments a write may happen again until it is answered: docs/replication.md. */
  constructor(name: string, objects: number, isShared: boolean) {
    this.name = name
    this.#isShared = isShared
    this.objects = 0
    this.grow(objects)
  }

  get sizeBytes(): number {
    return this.objects * OBJECT_BYTES
  }

  grow(objects: number): void {
    for (let index = this.objects; index < objects; index++)
      for (let unit = 0; unit < UNITS; unit++)
        this.#units.set(index * UNITS + unit, new UnitHistory({ repeats: this.#isShared }))
    this.objects = objects
  }

  begin(kind: 'read' | 'write', offset: number, lengthBytes: number, value: number, isDurable: boolean) {
    const operation = new Map(
      this.#unitsOf(offset, lengthBytes).map((unit): [number, Operation] => [
        unit,
        { kind, value: kind === 'write' ? value : null, isDurable },
      ]),
    )
    this.#tell(operation, 'call')
    return operation
  }

  /** It is about to hold again what a snapshot of it holds. */
  beginRollback(bytes: Buffer): RangeOperation {
    const heldIn = (unit: number) => (unit * UNIT_BYTES < bytes.length ? bytes.readUInt32LE(unit * UNIT_BYTES) : 0)
    const operation = new Map(
      [...this.#units.keys()].map((unit): [number, Operation] => [
        unit,
        { kind: 'write', value: heldIn(unit), isDurable: true },
      ]),
    )
    this.#tell(operation, 'call')
    return operation
  }

  /** It was answered. */
  end(operation: RangeOperation): void {
    this.#tell(operation, 'return')
  }

  /** It failed, or was left behind: it may have happened, and happens no more. */
  giveUp(operation: RangeOperation): void {
    this.#tell(operation, 'over')
  }

  /** What a read of whole tested parts has found, from object `first` on. */
  found(operation: RangeOperation, first: number, bytes: Buffer): void {
    for (const [unit, read] of operation) {
      const start = (unit - first * UNITS) * UNIT_BYTES
      const value = bytes.readUInt32LE(start)
      const last = bytes.readUInt32LE(start + UNIT_BYTES - 4)
      assert.equal(last, value, `${this.#nameOf(unit)} begins with one write and ends with another`)
      read.value = value
    }
  }

  beginFlush(): Operation {
    const operation: Operation = { kind: 'flush', value: null, isDurable: false }
    for (const history of this.#units.values()) history.add({ type: 'flush', operation })
    return operation
  }

  endFlush(operation: Operation): void {
    for (const history of this.#units.values()) history.add({ type: 'flushed', operation })
  }

  /** All nodes have lost power. */
  lose(): void {
    for (const history of this.#units.values()) history.add({ type: 'loss' })
  }

  check(): void {
    for (const [unit, history] of this.#units) {
      const why = history.whyNot()
      assert(why === null, `${this.#nameOf(unit)}: ${why}`)
    }
  }

  #nameOf(unit: number): string {
    return `unit ${unit % UNITS} of object ${Math.floor(unit / UNITS)} of ${this.name}`
  }

  #tell(operation: RangeOperation, type: 'call' | 'return' | 'over'): void {
    for (const [unit, each] of operation) this.#units.get(unit)!.add({ type, operation: each })
  }

  #unitsOf(offset: number, lengthBytes: number): number[] {
    const end = offset + lengthBytes
    const isWithin = (unit: number) => {
      const start = Math.floor(unit / UNITS) * OBJECT_BYTES + (unit % UNITS) * UNIT_BYTES
      return start >= offset && start + UNIT_BYTES <= end
    }
    return [...this.#units.keys()].filter(isWithin)
  }
}

/** What a write of this value puts into a range of units. */
export function bytesOf(value: number, lengthBytes: number): Buffer {
  const bytes = Buffer.alloc(lengthBytes)
  for (let start = 0; start < lengthBytes; start += UNIT_BYTES) {
    bytes.writeUInt32LE(value, start)
    bytes.writeUInt32LE(value, start + UNIT_BYTES - 4)
  }
  return bytes
}
