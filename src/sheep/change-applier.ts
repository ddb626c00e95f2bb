import assert from 'node:assert'
import type { Accounts } from './accounts.ts'
import type { AccountChange, Change } from './change.ts'
import type { DiskArray } from './disks/disk-array.ts'
import type { AccountImage } from './journal-format.ts'
import type { ObjectCache } from './object-cache.ts'
import {
  BLOCK_BYTES,
  BLOCKS_PER_OBJECT,
  dataWord1,
  type InheritRun,
  inheritWord1,
  slotOf,
  zeroWord0,
  zeroWord1,
} from './object-format.ts'
import type { PlacedWrites, Placement } from './placed-writes.ts'
import { type WrittenBlocks, writtenCrc } from './run-crc.ts'
import { NO_PAYLOAD, NOT_WRITTEN, type OverlayEntry, PENDING, PLACED, StoredObject, slotBit } from './stored-object.ts'
import { Transaction } from './transaction.ts'

/**
 * Makes changes in memory, so that the next read sees them, and puts together what the journal and the next checkpoint have to know
 * of them. Everything that they need is loaded; nothing here waits, or fails.
 */
export class ChangeApplier {
  readonly #cache: ObjectCache
  readonly #disks: DiskArray
  readonly #accounts: Accounts
  readonly #placedWrites: PlacedWrites

  /** The epoch that new blocks are stamped with, unless a transaction brings its own. */
  epoch = 1
  /** That of the transaction that is being applied. */
  #stamp = 1

  /** Told of each change of an account. */
  readonly accountListeners = new Set<(change: AccountChange) => void>()

  /** Told of bytes that hold nothing any more, once a checkpoint has given them back; of an object that is not loaded at most so many. */
  onFreed: (bytes: number) => void = () => {}

  constructor(options: { cache: ObjectCache; disks: DiskArray; accounts: Accounts; placedWrites: PlacedWrites }) {
    this.#cache = options.cache
    this.#disks = options.disks
    this.#accounts = options.accounts
    this.#placedWrites = options.placedWrites
  }

  /** `placement` is where the bytes of one of the changes are already. */
  apply(changes: readonly Change[], placement: Placement | null, epoch: number): Transaction {
    this.#stamp = epoch
    const transaction = new Transaction()
    for (const change of changes) this.#applyOne(change, placement, transaction)
    return transaction
  }

  #applyOne(change: Change, placement: Placement | null, transaction: Transaction): void {
    switch (change.kind) {
      case 'create': {
        const object = this.#create(change.oid, change.runs)
        if (placement?.file && placement.oid === change.oid) {
          object.file = placement.file
          object.tag = placement.tag
        }
        const { oid, version, tag } = object
        const disk = tag === 0 ? 0 : this.#disks.placement.placeOf(oid).shortId
        transaction.add(object, { kind: 'create', oid, version, epoch: this.#stamp, tag, disk, runs: change.runs })
        return
      }
      case 'blocks': {
        const object = this.#objectOf(change.object)
        if (placement?.bytes === change.bytes) this.#applyPlaced(object, change.first, placement, transaction)
        else this.#applyBlocks(object, change, transaction)
        return
      }
      case 'zero': {
        const { first, count } = change
        const object = this.#objectOf(change.object)
        const word1 = zeroWord1(this.#stamp)
        const wordsOf = (block: number) => ({ word0: zeroWord0(object.words, block, word1), word1 })
        transaction.inPlace.push(...this.#setWords(object, first, count, wordsOf))
        const { oid, version } = object
        transaction.add(object, { kind: 'zero', oid, version, epoch: this.#stamp, first, count })
        return
      }
      case 'inherit': {
        const { first, count, holderVid } = change
        const object = this.#objectOf(change.object)
        const wordsOf = (block: number) => ({
          word0: holderVid,
          word1: inheritWord1(object.words, block, holderVid),
        })
        transaction.inPlace.push(...this.#setWords(object, first, count, wordsOf))
        const { oid, version } = object
        transaction.add(object, { kind: 'inherit', oid, version, first, count, holderVid })
        return
      }
      case 'remove': {
        if (!this.#cache.exists(change.oid)) return
        const object = this.#cache.find(change.oid)
        this.onFreed(ownBytesMax(object))
        object.version++
        object.removed = true
        this.#cache.remove(object)
        this.#disks.placement.removing(object)
        transaction.removed.push(object)
        transaction.add(object, { kind: 'remove', oid: change.oid, version: object.version })
        return
      }
      case 'entry':
        transaction.records.push(change)
        transaction.entries.push(change)
        return
      case 'account':
      case 'accountSet': {
        const image = this.#account(change)
        transaction.records.push(image)
        transaction.accounts.push(image)
        return
      }
      case 'copies':
        transaction.records.push(change.record)
        transaction.copies ??= []
        transaction.copies.push(change.record)
        return
    }
  }

  #applyPlaced(object: StoredObject, first: number, placement: Placement, transaction: Transaction): void {
    const { words } = placement
    const count = words.length / 2
    object.version++
    for (let i = 0; i < count; i++) {
      transaction.inPlace.push(this.#overlay(object, first + i, words[i * 2]!, words[i * 2 + 1]!, PLACED))
    }
    transaction.add(object, { kind: 'placed', oid: object.oid, version: object.version, first, count, words })
    transaction.placedBlocks += placement.newBlocks
    if (placement.file) transaction.placedFiles++
    this.#placedWrites.note(object, placement.file !== null, placement.newBlocks)
  }

  #applyBlocks(object: StoredObject, blocks: WrittenBlocks, transaction: Transaction): void {
    const { first, bytes } = blocks
    const count = bytes.length / BLOCK_BYTES
    assert(object.loaded && Number.isInteger(count) && first + count <= BLOCKS_PER_OBJECT)
    object.version++
    const words = new Uint32Array(count * 2)
    for (let i = 0; i < count; i++) {
      // The checkpoint writes it over what it replaces; the journal has it until that is durable. So it stays in the slot of its
      // neighbours: runs of what was written at once are read, placed and given back in one go.
      const word1 = dataWord1(this.#stamp, object.slotToCome(first + i) ?? 0)
      const word0 = writtenCrc(object.words, blocks, i, word1)
      words[i * 2] = word0
      words[i * 2 + 1] = word1
      transaction.journaled.push(this.#overlay(object, first + i, word0, word1, PENDING))
    }
    transaction.payload.push(bytes)
    transaction.add(object, { kind: 'blocks', oid: object.oid, version: object.version, first, count, words })
  }

  /** Changes of a transaction may name an object by its oid, because an earlier change of the same makes it. */
  #objectOf(object: StoredObject | bigint): StoredObject {
    return typeof object === 'bigint' ? this.#cache.find(object) : object
  }

  #account(change: AccountChange): AccountImage {
    const image =
      change.kind === 'account'
        ? this.#accounts.add(change.vid, change.deltas)
        : this.#accounts.replace(change.vid, change.account)
    for (const listen of this.accountListeners) listen(change)
    return image
  }

  #create(oid: bigint, runs: readonly InheritRun[]): StoredObject {
    assert(!this.#cache.exists(oid), `object ${oid.toString(16)} exists`)
    const object = new StoredObject(oid)
    object.version = 1
    object.fresh = true
    object.begin(this.#stamp, runs)
    this.#cache.add(object)
    return object
  }

  /** Makes blocks what has no bytes of its own. */
  #setWords(
    object: StoredObject,
    first: number,
    count: number,
    wordsOf: (block: number) => { word0: number; word1: number },
  ): OverlayEntry[] {
    assert(object.loaded && first + count <= BLOCKS_PER_OBJECT)
    object.version++
    const entries: OverlayEntry[] = []
    let freed = 0
    for (let block = first; block < first + count; block++) {
      const { word0, word1 } = wordsOf(block)
      if (object.slotToCome(block) !== null) freed++
      entries.push(this.#overlay(object, block, word0, word1, NO_PAYLOAD))
    }
    if (freed > 0) this.onFreed(freed * BLOCK_BYTES)
    return entries
  }

  #overlay(object: StoredObject, block: number, word0: number, word1: number, location: number): OverlayEntry {
    const previous = object.overlay.get(block) ?? null
    const freesOtherSlot = location !== PENDING || previous?.freesOtherSlot === true
    const placedSlots = location === PLACED ? slotBit(slotOf(word1)!) : 0
    const entry = {
      word0,
      word1,
      location,
      freesOtherSlot,
      placedSlots,
      generation: 0,
      sequence: NOT_WRITTEN,
      previous,
    }
    object.overlay.set(block, entry)
    return entry
  }
}

function ownBytesMax(object: StoredObject): number {
  if (!object.loaded) return BLOCKS_PER_OBJECT * BLOCK_BYTES
  let blocks = 0
  for (let block = 0; block < BLOCKS_PER_OBJECT; block++) if (object.slotToCome(block) !== null) blocks++
  return blocks * BLOCK_BYTES
}
