import { BLOCKS_PER_OBJECT } from './object-format.ts'
import type { OverlayEntry } from './stored-object.ts'

const PAGE_SHIFT = 6
const PAGE_BLOCKS = 1 << PAGE_SHIFT
const PAGES = BLOCKS_PER_OBJECT >> PAGE_SHIFT

type Page = (OverlayEntry | undefined)[]

/**
 * What has changed of an object: block → entry, in the order of the blocks. Each write looks here once for each of its blocks, so it
 * is an array where something has changed, and nothing elsewhere: a map takes three times as long.
 */
export class Overlay {
  #pages: (Page | undefined)[] | null = null
  #size = 0

  get size(): number {
    return this.#size
  }

  get(block: number): OverlayEntry | undefined {
    if (this.#pages === null) return undefined
    const page = this.#pages[block >> PAGE_SHIFT]
    return page === undefined ? undefined : page[block & (PAGE_BLOCKS - 1)]
  }

  has(block: number): boolean {
    return this.get(block) !== undefined
  }

  set(block: number, entry: OverlayEntry): void {
    this.#pages ??= new Array<Page | undefined>(PAGES).fill(undefined)
    let page = this.#pages[block >> PAGE_SHIFT]
    if (page === undefined) {
      page = new Array<OverlayEntry | undefined>(PAGE_BLOCKS).fill(undefined)
      this.#pages[block >> PAGE_SHIFT] = page
    }
    if (page[block & (PAGE_BLOCKS - 1)] === undefined) this.#size++
    page[block & (PAGE_BLOCKS - 1)] = entry
  }

  delete(block: number): void {
    if (!this.has(block)) return
    this.#pages![block >> PAGE_SHIFT]![block & (PAGE_BLOCKS - 1)] = undefined
    if (--this.#size === 0) this.#pages = null
  }

  clear(): void {
    this.#pages = null
    this.#size = 0
  }

  /** As the iterator below, for where there are thousands: that makes two objects for each. */
  forEach(use: (block: number, entry: OverlayEntry) => void): void {
    const pages = this.#pages ?? []
    for (let number = 0; number < pages.length; number++) {
      const page = pages[number]
      if (page === undefined) continue
      for (let i = 0; i < PAGE_BLOCKS; i++) {
        const entry = page[i]
        if (entry !== undefined) use((number << PAGE_SHIFT) + i, entry)
      }
    }
  }

  *[Symbol.iterator](): Generator<[block: number, entry: OverlayEntry]> {
    for (const [number, page] of (this.#pages ?? []).entries()) {
      if (page === undefined) continue
      for (const [i, entry] of page.entries()) {
        if (entry !== undefined) yield [(number << PAGE_SHIFT) + i, entry]
      }
    }
  }
}
