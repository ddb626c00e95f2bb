/** One at a time, in the order of asking. */
export class Turns {
  #isTaken = false
  readonly #waiting: (() => void)[] = []

  /** Null when it is the caller's turn at once, else what resolves when it is. Each turn is given back once. */
  take(): Promise<void> | null {
    if (this.#isTaken) return new Promise((resolve) => this.#waiting.push(resolve))
    this.#isTaken = true
    return null
  }

  give(): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#isTaken = false
    else next()
  }
}
