import type { Disk, DiskFile } from '../runtime/disk.ts'
import type { ObjectCache } from './object-cache.ts'
import {
  BLOCK_BYTES,
  blockCrc,
  blockPosition,
  dataWord1,
  objectDirectory,
  objectPath,
  oidWords,
  type Slot,
  slotOf,
} from './object-format.ts'
import type { StoredObject } from './stored-object.ts'

/** Where the bytes of a large write were put. */
export interface Placement {
  oid: bigint
  /** The file of a new object, and the tag that its name bears; null and 0 for an object that has its file. */
  file: DiskFile | null
  tag: number
  /** Two words for each block: its entry. */
  words: Uint32Array
}

const TAG_COUNT = 0xffff

/**
 * Large writes: the bytes go into the object's file at once, where nothing is that anybody still wants, and the journal gets only
 * their checksums. So they are written once and not twice. What makes that safe:
 *
 * 1. The slot is free: a block of which the journal holds anything is not placed, and of the others the table says which
 *    slot they use. So whatever a crash leaves of the write, the state before it is whole.
 * 2. The file, and the name of a new one, are synced before the journal is (`sync`), so a frame that is known to be durable
 *    has its bytes. Of other frames a replay proves it (placed-replay.ts).
 * 3. The file of a new object gets its own name from the checkpoint; until then it bears a tag, because a removed object of
 *    that name may still be wanted by a replay.
 */
export class PlacedWrites {
  readonly #disk: Disk
  readonly #cache: ObjectCache
  #lastTag = 0
  /** Written since the last sync; held, so that their files stay open. */
  #unsynced = new Set<StoredObject>()
  /** Of those, the ones whose names are new as well. */
  #newNames = new Set<StoredObject>()

  constructor(options: { disk: Disk; cache: ObjectCache }) {
    this.#disk = options.disk
    this.#cache = options.cache
  }

  /**
   * Puts whole blocks into the file of an object, or of one that is about to be created; null when they have to go through
   * the journal. Throws what writing throws; then nothing has changed.
   */
  place(object: StoredObject | bigint, first: number, bytes: Buffer, epoch: number): Placement | null {
    if (typeof object === 'bigint') return this.#placeNew(object, first, bytes, epoch)
    // A replay would make the file of an untagged new object anew.
    const isMadeAnew = object.fresh && object.tag === 0
    if (!object.file || isMadeAnew || !isClean(object, first, bytes.length / BLOCK_BYTES)) return null
    const words = entriesOf(object.oid, first, bytes, epoch, (block) => freeSlot(object, block))
    writeRuns(object.file, first, words, bytes)
    return { oid: object.oid, file: null, tag: 0, words }
  }

  #placeNew(oid: bigint, first: number, bytes: Buffer, epoch: number): Placement | null {
    const tag = (this.#lastTag % TAG_COUNT) + 1
    const file = this.#createNow(objectPath(oid, tag))
    if (!file) return null
    this.#lastTag = tag
    const words = entriesOf(oid, first, bytes, epoch, () => 0)
    writeRuns(file, first, words, bytes)
    return { oid, file, tag, words }
  }

  #createNow(path: string): DiskFile | null {
    try {
      return this.#disk.createNow(path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null // the checkpoint will make the directory
      throw error
    }
  }

  /** The object has placed blocks in a transaction that is being appended to the journal. */
  note(object: StoredObject, isNew: boolean): void {
    if (isNew) this.#newNames.add(object)
    if (this.#unsynced.has(object)) return
    this.#unsynced.add(object)
    this.#cache.holdLoaded(object)
  }

  /** Makes all blocks placed so far durable. */
  async sync(): Promise<void> {
    if (this.#unsynced.size === 0) return
    const objects = [...this.#unsynced]
    const directories = new Set([...this.#newNames].map((object) => objectDirectory(object.oid)))
    this.#unsynced = new Set()
    this.#newNames = new Set()
    try {
      await this.#disk.syncMany(
        objects.map((object) => object.file).filter((file) => file !== null),
        [...directories],
      )
    } finally {
      for (const object of objects) this.#cache.release(object)
    }
  }
}

/** Whether the table alone says where these blocks are. */
function isClean(object: StoredObject, first: number, count: number): boolean {
  if (object.overlay.size === 0) return true
  for (let block = first; block < first + count; block++) if (object.overlay.has(block)) return false
  return true
}

function freeSlot(object: StoredObject, block: number): Slot {
  return slotOf(object.table![block * 2 + 1]!) === 0 ? 1 : 0
}

function entriesOf(
  oid: bigint,
  first: number,
  bytes: Buffer,
  epoch: number,
  slot: (block: number) => Slot,
): Uint32Array {
  const object = oidWords(oid)
  const count = bytes.length / BLOCK_BYTES
  const words = new Uint32Array(count * 2)
  for (let i = 0; i < count; i++) {
    const word1 = dataWord1(epoch, slot(first + i))
    const block = bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES)
    words[i * 2] = blockCrc(object, first + i, word1, block)
    words[i * 2 + 1] = word1
  }
  return words
}

/** Writes blocks to their slots, neighbours in one go. */
function writeRuns(file: DiskFile, first: number, words: Uint32Array, bytes: Buffer): void {
  const count = words.length / 2
  for (let start = 0; start < count; ) {
    const slot = slotOf(words[start * 2 + 1]!)!
    let end = start + 1
    while (end < count && slotOf(words[end * 2 + 1]!) === slot) end++
    file.writeNow([bytes.subarray(start * BLOCK_BYTES, end * BLOCK_BYTES)], blockPosition(first + start, slot))
    start = end
  }
}
