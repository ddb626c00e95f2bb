import assert from 'node:assert'
import { StoreError } from '../../errors.ts'
import { inodeOid } from '../../protocol/oid.ts'
import { BLOCK_BYTES } from '../object-format.ts'
import type { VdiMap } from '../owner-contract.ts'
import { readWords, writeWords } from '../words.ts'
import type { ReplicatedObjects } from './replicated-objects.ts'

export const ENTRIES_PER_PAGE = BLOCK_BYTES / 4
/** Pages that a walk through the map asks for at once. */
const PAGES_PER_READ = 64

interface Page {
  /** As the copies have it. */
  words: Uint32Array
  pins: number
  isTouched: boolean
}

interface MapChange {
  index: number
  vid: number
  settle(error: unknown): void
}

/**
 * The block map of a VDI in its inode object, laid out as BlockMap says: page p of 1024 entries in block p. Pages are read when they
 * are needed, and a bounded number of them is kept.
 *
 * 1. What is looked up is on the disks of the copies: an entry is seen from the moment on at which its change was answered.
 * 2. While changes are being written, those that come wait together and are written with one request.
 * 3. When it is not certain whether changes were done, their pages are read again.
 */
export class ReplicatedMap implements VdiMap {
  readonly #objects: ReplicatedObjects
  readonly #pagesMax: number
  readonly #pages = new Map<number, Page>()
  readonly #loading = new Map<number, Promise<Page>>()
  #waiting: MapChange[] = []
  #isWriting = false
  #oid: bigint

  constructor(objects: ReplicatedObjects, vid: number, pagesMax: number) {
    this.#objects = objects
    this.#oid = inodeOid(vid)
    this.#pagesMax = pagesMax
  }

  /** The VDI goes on under another vid, whose inode object has the same pages. */
  moveTo(vid: number): void {
    assert(!this.#isWriting)
    this.#oid = inodeOid(vid)
  }

  lookupNow(index: number): number | null {
    const page = this.#pages.get(pageOf(index))
    if (!page) return null
    page.isTouched = true
    return page.words[index % ENTRIES_PER_PAGE]!
  }

  async lookup(index: number): Promise<number> {
    return this.lookupNow(index) ?? (await this.#page(pageOf(index))).words[index % ENTRIES_PER_PAGE]!
  }

  async load(index: number): Promise<void> {
    await this.#page(pageOf(index))
  }

  /** Runs `use` when all entries of a range can be looked up at once. */
  async withRange({ first, count }: { first: number; count: number }, use: () => void): Promise<void> {
    const numbers = new Set<number>()
    for (let index = first; index < first + count; index += ENTRIES_PER_PAGE) numbers.add(pageOf(index))
    numbers.add(pageOf(first + Math.max(0, count - 1)))
    const pinned: Page[] = []
    try {
      for (const number of numbers) {
        pinned.push(await this.#pin(number))
      }
      // One that could not be written meanwhile has gone in spite of the pin.
      if ([...numbers].some((number) => !this.#pages.has(number))) return await this.withRange({ first, count }, use)
      use()
    } finally {
      for (const page of pinned) page.pins--
    }
  }

  /** Resolves when the entry is on the disks of the copies, and seen. Errors as those of ReplicatedObjects. */
  set(index: number, vid: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ index, vid, settle: (error) => (error ? reject(error) : resolve()) })
      if (!this.#isWriting) void this.#write()
    })
  }

  async *entries(limit: number, from = 0): AsyncGenerator<{ index: number; vid: number }> {
    const pages = Math.ceil(limit / ENTRIES_PER_PAGE)
    for (let first = pageOf(from); first < pages; first += PAGES_PER_READ) {
      const read = await readPages(this.#objects, this.#oid, first, Math.min(PAGES_PER_READ, pages - first))
      for (const [number, words] of read) {
        for (let i = 0; i < ENTRIES_PER_PAGE; i++) {
          const index = number * ENTRIES_PER_PAGE + i
          if (words[i] !== 0 && index >= from && index < limit) yield { index, vid: words[i]! }
        }
      }
    }
  }

  async #write(): Promise<void> {
    this.#isWriting = true
    while (this.#waiting.length > 0) {
      const changes = this.#waiting
      this.#waiting = []
      const error = await this.#writeChanges(changes)
      for (const { settle } of changes) settle(error)
    }
    this.#isWriting = false
  }

  async #writeChanges(changes: readonly MapChange[]): Promise<unknown> {
    const pages = new Map<number, { page: Page; words: Uint32Array }>()
    try {
      for (const { index, vid } of changes) {
        const number = pageOf(index)
        let changed = pages.get(number)
        if (!changed) {
          const page = await this.#pin(number) // read again now, it might come back as it was before
          changed = { page, words: page.words.slice() }
          pages.set(number, changed)
        }
        changed.words[index % ENTRIES_PER_PAGE] = vid
      }
      const blocks = [...pages].map(([number, { words }]) => ({ first: number, bytes: encodePage(words) }))
      await this.#objects.write(this.#oid, { blocks, zeros: [] }, { exists: true, durable: true })
    } catch (error) {
      const isUndone = error instanceof StoreError && error.code === 'NoSpace'
      for (const number of isUndone ? [] : pages.keys()) this.#pages.delete(number)
      return error
    } finally {
      for (const { page } of pages.values()) page.pins--
    }
    for (const { page, words } of pages.values()) page.words = words
    return null
  }

  async #pin(number: number): Promise<Page> {
    for (;;) {
      const page = this.#pages.get(number)
      if (page) {
        page.pins++
        return page
      }
      await this.#page(number)
    }
  }

  async #page(number: number): Promise<Page> {
    const known = this.#pages.get(number)
    if (known) {
      known.isTouched = true
      return known
    }
    let loading = this.#loading.get(number)
    if (!loading) {
      loading = this.#load(number).finally(() => this.#loading.delete(number))
      this.#loading.set(number, loading)
    }
    return loading
  }

  async #load(number: number): Promise<Page> {
    const [read] = await readPages(this.#objects, this.#oid, number, 1)
    const page = { words: read?.[1] ?? new Uint32Array(ENTRIES_PER_PAGE), pins: 0, isTouched: true }
    this.#pages.set(number, page)
    this.#shrink()
    return page
  }

  #shrink(): void {
    let looks = this.#pages.size
    for (const [number, page] of this.#pages) {
      if (this.#pages.size <= this.#pagesMax || looks-- === 0) return
      this.#pages.delete(number)
      if (page.pins === 0 && !page.isTouched) continue
      page.isTouched = false
      this.#pages.set(number, page)
    }
  }
}

const pageOf = (index: number): number => Math.floor(index / ENTRIES_PER_PAGE)

function encodePage(words: Uint32Array): Buffer {
  const bytes = Buffer.allocUnsafeSlow(BLOCK_BYTES)
  writeWords(bytes, words)
  return bytes
}

/** The pages with anything in them. */
export async function readPages(
  objects: ReplicatedObjects,
  inode: bigint,
  first: number,
  count: number,
): Promise<[number, Uint32Array][]> {
  const { blocks } = await objects.read(inode, { first, count })
  const pages: [number, Uint32Array][] = []
  for (const run of blocks) {
    for (let i = 0; i * BLOCK_BYTES < run.bytes.length; i++) {
      const bytes = run.bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES)
      pages.push([run.first + i, readWords(bytes, ENTRIES_PER_PAGE)])
    }
  }
  return pages
}
