/** A change that a client has asked for, and that is not answered. */
export interface OrderedChange {
  /** Its bytes. */
  readonly start: number
  readonly end: number
  /** It waits for others. */
  isHeld: boolean
  /** Nothing stands before it any more. Not called for one that had nothing to wait for. */
  go(): void
}

/**
 * The order of the changes that clients make through one attachment: one that overlaps an earlier one waits for its answer.
 *
 * A change without an answer is sent again to the next owner, and may have been done by the former one. As long as nothing else is done to
 * its bytes that shows nobody a difference, however often it is done, and whoever has read it meanwhile.
 */
export class ChangeOrder {
  /** As they came. */
  readonly #changes: OrderedChange[] = []
  #heldCount = 0

  /** Whether it may go. Else it is told when. */
  begin(change: OrderedChange): boolean {
    change.isHeld = this.#isBehind(change, this.#changes.length)
    if (change.isHeld) this.#heldCount++
    this.#changes.push(change)
    return !change.isHeld
  }

  /** It was answered, or nobody sends it again. */
  end(change: OrderedChange): void {
    const at = this.#changes.indexOf(change)
    if (at === -1) return
    this.#changes.splice(at, 1)
    if (change.isHeld) this.#heldCount--
    if (this.#heldCount === 0) return
    const free = this.#changes.filter((other, place) => other.isHeld && !this.#isBehind(other, place))
    for (const other of free) other.isHeld = false
    this.#heldCount -= free.length
    for (const other of free) other.go()
  }

  get size(): number {
    return this.#changes.length
  }

  /** Whether one of the first `count` overlaps it. */
  #isBehind({ start, end }: OrderedChange, count: number): boolean {
    for (let place = 0; place < count; place++) {
      const earlier = this.#changes[place]!
      if (earlier.start < end && start < earlier.end) return true
    }
    return false
  }
}
