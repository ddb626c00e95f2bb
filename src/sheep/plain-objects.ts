import { StoreError, toStoreError } from '../errors.ts'
import { oidKind } from '../protocol/oid.ts'
import { partialBlocks, roundUp } from './block-range.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT, OBJECT_BYTES, OBJECT_TAIL_BYTES } from './object-format.ts'
import type { Change, ObjectStore, StoreDone } from './object-store.ts'
import type { StoredObject } from './stored-object.ts'
import type { ObjectBytes, ObjectWriteOptions } from './vdi-store.ts'

/** The objects of this node as plain bytes. */
export class PlainObjects implements ObjectBytes {
  readonly #store: ObjectStore
  /** The last write of each object that is under way: writes of one object take turns. */
  readonly #writing = new Map<bigint, Promise<void>>()

  constructor(store: ObjectStore) {
    this.#store = store
  }

  exists(oid: bigint): boolean {
    return this.#store.exists(oid)
  }

  read(oid: bigint, offset: number, target: Buffer, done: StoreDone): void {
    if (offset + target.length > OBJECT_BYTES) return done(new StoreError('InvalidParameters', 'beyond the object'))
    const object = this.#store.loadedNow(oid)
    if (object === undefined) return done(new StoreError('NoObject'))
    if (object && offset % BLOCK_BYTES === 0 && target.length % BLOCK_BYTES === 0) {
      this.#store.read(object, offset / BLOCK_BYTES, target.length / BLOCK_BYTES, target, done)
      return
    }
    this.#readLater(oid, offset, target).then(
      () => done(null),
      (error) => done(toStoreError(error)),
    )
  }

  readAll(oid: bigint, offset: number, target: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      this.read(oid, offset, target, (error) => (error ? reject(error) : resolve()))
    })
  }

  async #readLater(oid: bigint, offset: number, target: Buffer): Promise<void> {
    const start = offset - (offset % BLOCK_BYTES)
    const blocks = Buffer.allocUnsafe(roundUp(offset + target.length) - start)
    await this.#store.using(oid, (object) => this.#store.readBlocks(object, start / BLOCK_BYTES, blocks))
    blocks.copy(target, 0, offset - start, offset - start + target.length)
  }

  write(oid: bigint, offset: number, bytes: Buffer, options: ObjectWriteOptions): Promise<void> {
    const before = this.#writing.get(oid) ?? Promise.resolve()
    const written = before.then(() => this.#write(oid, offset, bytes, options))
    const tail = written
      .catch(() => {})
      .then(() => {
        if (this.#writing.get(oid) === tail) this.#writing.delete(oid)
      })
    this.#writing.set(oid, tail)
    return written
  }

  async #write(
    oid: bigint,
    offset: number,
    bytes: Buffer,
    { create, durable, check }: ObjectWriteOptions,
  ): Promise<void> {
    if (offset + bytes.length > OBJECT_BYTES) throw new StoreError('InvalidParameters', 'beyond the object')
    if (!create && !this.exists(oid)) throw new StoreError('NoObject')
    const object = this.exists(oid) ? await this.#store.hold(oid) : null
    try {
      const blocks = await this.#wholeBlocks(create ? null : object, offset, bytes)
      check()
      if (!this.#hasRoom(oid, object, blocks.length)) throw new StoreError('NoSpace')
      await this.#commit([...blank(oid, object, create), ...overlay(object ?? oid, offset, blocks)], durable)
    } finally {
      if (object) this.#store.release(object)
    }
  }

  /** Objects that are not data are on the first disk, as maps are. */
  #hasRoom(oid: bigint, object: StoredObject | null, bytes: number): boolean {
    if (object) return this.#store.hasRoom(object, bytes)
    const newBytes = bytes + OBJECT_TAIL_BYTES
    return oidKind(oid) === 'data' ? this.#store.hasRoomForNew(newBytes, 0) : this.#store.hasRoomForNew(0, newBytes)
  }

  async #wholeBlocks(object: StoredObject | null, offset: number, bytes: Buffer): Promise<Buffer> {
    const start = offset - (offset % BLOCK_BYTES)
    const blocks = Buffer.alloc(bytes.length === 0 ? 0 : roundUp(offset + bytes.length) - start)
    for (const block of object && bytes.length > 0 ? partialBlocks(offset, bytes.length) : []) {
      const at = block * BLOCK_BYTES - start
      await this.#store.readBlocks(object!, block, blocks.subarray(at, at + BLOCK_BYTES))
    }
    bytes.copy(blocks, offset - start)
    return blocks
  }

  #commit(changes: Change[], durable: boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#store.commit(changes, { durable }, (error) => (error ? reject(error) : resolve()))
    })
  }
}

/** An object that is created reads as zeros, also where another of its oid has been before. */
function blank(oid: bigint, object: StoredObject | null, create: boolean): Change[] {
  if (!object) return [{ kind: 'create', oid, runs: [] }]
  return create ? [{ kind: 'zero', object, first: 0, count: BLOCKS_PER_OBJECT }] : []
}

function overlay(object: StoredObject | bigint, offset: number, bytes: Buffer): Change[] {
  return bytes.length === 0 ? [] : [{ kind: 'blocks', object, first: Math.floor(offset / BLOCK_BYTES), bytes }]
}
