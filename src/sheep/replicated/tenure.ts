import { StoreError } from '../../errors.ts'
import type { StoreDone } from '../change.ts'
import type {
  BlockContents,
  BlockRange,
  FoundObjects,
  ObjectContents,
  ObjectLayout,
  ReplicatedObjects,
  WriteOptions,
} from './replicated-objects.ts'

/** The objects for as long as this node owns the family: from the first OldEpoch on, that is the answer to everything. */
export class Tenure implements ReplicatedObjects {
  readonly #objects: ReplicatedObjects
  #ended: StoreError | null = null

  constructor(objects: ReplicatedObjects) {
    this.#objects = objects
  }

  /** What everything is answered with, once there is another owner. */
  get ended(): StoreError | null {
    return this.#ended
  }

  write(oid: bigint, contents: BlockContents, options: WriteOptions): Promise<void> {
    return this.#ask(() => this.#objects.write(oid, contents, options))
  }

  writeNow(oid: bigint, contents: BlockContents, durable: boolean, done: StoreDone): boolean {
    if (this.#ended) return false
    return this.#objects.writeNow(oid, contents, durable, (error) => {
      if (error) this.#failed(error)
      done(error)
    })
  }

  read(oid: bigint, range: BlockRange): Promise<ObjectContents> {
    return this.#ask(() => this.#objects.read(oid, range))
  }

  readNow(oid: bigint, first: number, target: Buffer, done: (isRead: boolean) => void): boolean {
    return this.#ended === null && this.#objects.readNow(oid, first, target, done)
  }

  making(oid: bigint): () => void {
    return this.#objects.making(oid)
  }

  layoutOf(oid: bigint): Promise<ObjectLayout> {
    return this.#ask(() => this.#objects.layoutOf(oid))
  }

  remove(oid: bigint): Promise<void> {
    return this.#ask(() => this.#objects.remove(oid))
  }

  flush(): Promise<void> {
    return this.#ask(() => this.#objects.flush())
  }

  confirm(vid: number): Promise<void> {
    return this.#ask(() => this.#objects.confirm(vid))
  }

  objectsOf(vid: number): Promise<FoundObjects> {
    return this.#ask(() => this.#objects.objectsOf(vid))
  }

  async #ask<T>(question: () => Promise<T>): Promise<T> {
    if (this.#ended) throw this.#ended
    try {
      return await question()
    } catch (error) {
      this.#failed(error)
      throw error
    }
  }

  #failed(error: unknown): void {
    if (error instanceof StoreError && error.code === 'OldEpoch')
      this.#ended ??= new StoreError('OldEpoch', 'the VDI has another owner now', { cause: error })
  }
}
