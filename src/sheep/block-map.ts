import { inodeOid } from '../protocol/oid.ts'
import { BLOCK_BYTES } from './object-format.ts'
import type { Change, ObjectStore } from './object-store.ts'
import type { StoredObject } from './stored-object.ts'
import { readWords, writeWords } from './words.ts'

const ENTRIES_PER_PAGE = BLOCK_BYTES / 4

/**
 * Which object holds each 4 MiB of a VDI: index → the vid that owns the object, 0 for none (the inode's data_vdi_id). It
 * is kept in pages of 1024 entries, page p in block p of the VDI's inode object, so that snapshots share the pages
 * that nobody has changed. A VDI that was never written to has no inode object at all.
 */
export class BlockMap {
  readonly #store: ObjectStore
  readonly #pages = new Map<number, Uint32Array>()
  #oid: bigint

  constructor(store: ObjectStore, vid: number) {
    this.#store = store
    this.#oid = inodeOid(vid)
  }

  /** The VDI goes on under another vid, whose inode object has inherited all pages. */
  moveTo(vid: number): void {
    this.#oid = inodeOid(vid)
  }

  /** The owner of an index, or null when its page must be loaded first. */
  lookupNow(index: number): number | null {
    const page = this.#pages.get(Math.floor(index / ENTRIES_PER_PAGE))
    return page ? page[index % ENTRIES_PER_PAGE]! : null
  }

  /** Loads the page of an index, so that `lookupNow` need not wait. */
  async load(index: number): Promise<void> {
    const number = Math.floor(index / ENTRIES_PER_PAGE)
    if (this.#pages.has(number)) return
    const bytes = Buffer.alloc(BLOCK_BYTES)
    if (this.#store.exists(this.#oid)) {
      await this.#store.using(this.#oid, (object) => this.#store.readBlocks(object, number, bytes))
    }
    // Whoever waited for the same page at the same time read the same bytes: the first one in counts.
    if (!this.#pages.has(number)) this.#pages.set(number, readWords(bytes, ENTRIES_PER_PAGE))
  }

  isLoaded({ first, count }: { first: number; count: number }): boolean {
    for (let index = first; index < first + count; index += ENTRIES_PER_PAGE) {
      if (this.lookupNow(index) === null) return false
    }
    return this.lookupNow(first + count - 1) !== null
  }

  async loadRange({ first, count }: { first: number; count: number }): Promise<void> {
    for (let index = first; index < first + count; index += ENTRIES_PER_PAGE) await this.load(index)
    await this.load(first + count - 1)
  }

  /** Keeps the inode object loaded, so that `change` need not wait; null when there is none yet. */
  holdInode(): Promise<StoredObject> | null {
    return this.#store.exists(this.#oid) ? this.#store.hold(this.#oid) : null
  }

  /** Whether `change` can be called without loading anything. */
  changeable(index: number): boolean {
    return this.lookupNow(index) !== null && this.#store.loadedNow(this.#oid) !== null
  }

  /** Sets an entry and returns what must be committed with whatever made it so. */
  change(index: number, vid: number): Change[] {
    const number = Math.floor(index / ENTRIES_PER_PAGE)
    const page = this.#pages.get(number)!
    page[index % ENTRIES_PER_PAGE] = vid
    const changes: Change[] = this.#store.exists(this.#oid) ? [] : [{ kind: 'create', oid: this.#oid, runs: [] }]
    const bytes = Buffer.allocUnsafeSlow(BLOCK_BYTES)
    writeWords(bytes, page)
    changes.push({ kind: 'blocks', object: this.#oid, first: number, bytes })
    return changes
  }

  /** Allocated indexes from `from` on and below `limit`, with their owners, in order. Loads pages as it goes. */
  async *entries(limit: number, from = 0): AsyncGenerator<{ index: number; vid: number }> {
    if (!this.#store.exists(this.#oid)) return
    const start = from - (from % ENTRIES_PER_PAGE)
    for (let first = start; first < limit; first += ENTRIES_PER_PAGE) {
      await this.load(first)
      const page = this.#pages.get(first / ENTRIES_PER_PAGE)!
      for (let i = Math.max(0, from - first); i < ENTRIES_PER_PAGE && first + i < limit; i++) {
        const vid = page[i]!
        if (vid !== 0) yield { index: first + i, vid }
      }
    }
  }
}
