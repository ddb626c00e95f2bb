/** Those who came to look before somebody began to wait for them. */
interface Lookers {
  count: number
  /** Called when the last one has gone, once nobody is added any more. */
  allGone: (() => void) | null
}

/** Lets whoever takes something away wait for all who may still be looking at it. */
export class Grace {
  #now: Lookers = { count: 0, allGone: null }
  /** Resolves when all have gone that came before those of now. */
  #before: Promise<void> = Promise.resolve()

  /** Somebody looks, until what is returned is handed to `leave`. */
  enter(): Lookers {
    this.#now.count++
    return this.#now
  }

  leave(lookers: Lookers): void {
    if (--lookers.count === 0) lookers.allGone?.()
  }

  async during<T>(look: () => Promise<T>): Promise<T> {
    const lookers = this.enter()
    try {
      return await look()
    } finally {
      this.leave(lookers)
    }
  }

  /** Resolves when all that was under way has ended. What begins later finds things as they are now. */
  passed(): Promise<void> {
    const lookers = this.#now
    if (lookers.count === 0) return this.#before
    this.#now = { count: 0, allGone: null }
    const gone = new Promise<void>((resolve) => {
      lookers.allGone = resolve
    })
    this.#before = Promise.all([this.#before, gone]).then(() => {})
    return this.#before
  }
}
