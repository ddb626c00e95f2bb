import { objectsOf } from './accounts.ts'
import type { Change } from './change.ts'

/** What a change does to the account of a VDI: so many blocks, or objects, more or less of each holder. */
export class Tally {
  readonly #deltas = new Map<number, number>()

  /** A block goes from one holder to another; 0 is none. */
  move(before: number, after: number): void {
    if (before === after) return
    this.#add(before, -1)
    this.#add(after, 1)
  }

  /** The object of `before` leaves the place in the map to that of `after`; 0 is none. */
  moveObject(before: number, after: number): void {
    if (before !== 0) this.#add(objectsOf(before), -1)
    if (after !== 0) this.#add(objectsOf(after), 1)
  }

  #add(holder: number, delta: number): void {
    if (holder !== 0) this.#deltas.set(holder, (this.#deltas.get(holder) ?? 0) + delta)
  }

  /** For the transaction that does it; none when it does nothing. */
  changes(vid: number, index: number): Change[] {
    return this.#deltas.size > 0 ? [{ kind: 'account', vid, index, deltas: this.#deltas }] : []
  }
}
