import { StoreError } from '../../errors.ts'
import type { Account } from '../accounts.ts'
import { BLOCK_BYTES } from '../object-format.ts'
import type { FamilyAccounts } from './family-accounts.ts'
import { countView, difference, holderOf, type ObjectView, putInto } from './object-view.ts'
import type { BlockContents } from './replicated-objects.ts'

const NOTHING: Account = new Map()

/** Nothing was done, and that is sure. */
export const isUndone = (error: unknown): boolean => error instanceof StoreError && error.code === 'NoSpace'

/**
 * What each index adds to the account of a VDI. It is told of all changes there; where one failed, and may have been done all the same, it
 * is in doubt until somebody has looked.
 */
export class IndexCounts {
  readonly #accounts: FamilyAccounts
  /** What the account counts at indexes that are in doubt. */
  readonly #doubts = new Map<number, Account>()

  constructor(accounts: FamilyAccounts) {
    this.#accounts = accounts
  }

  isInDoubt(index: number): boolean {
    return this.#doubts.has(index)
  }

  get inDoubt(): number[] {
    return [...this.#doubts.keys()]
  }

  /** The VDI has another map from now on. */
  forget(): void {
    this.#doubts.clear()
  }

  /** A write to an object of the VDI itself has ended; the view becomes what it sees now. */
  wrote(vid: number, index: number, view: ObjectView, contents: BlockContents, error: unknown): void {
    if (error !== null) this.failed(vid, index, view, error)
    // After a failure beside this one all of the object is counted anew.
    else if (!this.#doubts.has(index)) this.#took(vid, index, view, contents)
  }

  /** The VDI sees something else at the index. */
  changed(vid: number, index: number, before: ObjectView | null, after: ObjectView | null): void {
    this.#accounts.add(vid, index, difference(countView(before), countView(after)))
  }

  /** A change of what it has seen there has failed. */
  failed(vid: number, index: number, view: ObjectView | null, error: unknown): void {
    if (isUndone(error)) return
    if (!this.#doubts.has(index)) this.#doubts.set(index, countView(view))
    this.#accounts.add(vid, index, NOTHING)
  }

  /** This is what it sees at an index that was in doubt. */
  settle(vid: number, index: number, found: ObjectView | null): void {
    const before = this.#doubts.get(index) ?? NOTHING
    this.#doubts.delete(index)
    this.#accounts.add(vid, index, difference(before, countView(found)))
  }

  #took(vid: number, index: number, view: ObjectView, { blocks, zeros }: BlockContents): void {
    const deltas = new Map<number, number>()
    const add = (holder: number, delta: number) => {
      if (holder !== 0) deltas.set(holder, (deltas.get(holder) ?? 0) + delta)
    }
    const move = (first: number, count: number, to: number) => {
      for (let block = first; block < first + count; block++) {
        const from = holderOf(view, block)
        if (from === to) continue
        add(from, -1)
        add(to, 1)
      }
    }
    for (const { first, bytes } of blocks) move(first, bytes.length / BLOCK_BYTES, vid)
    for (const { first, count } of zeros) move(first, count, 0)
    putInto(view, { blocks, zeros })
    if (deltas.size > 0) this.#accounts.add(vid, index, deltas)
  }
}
