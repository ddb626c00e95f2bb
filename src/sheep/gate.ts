import type { StoreDone } from './change.ts'

/** Requests pass as long as it is open, and are counted until they are answered; what comes while it is closed waits at it. */
export class Gate {
  #inFlight = 0
  #waiting: (() => void)[] | null = null
  #onIdle: (() => void) | null = null

  get isClosed(): boolean {
    return this.#waiting !== null
  }

  /** Keeps `run` for when the gate opens. False when it is open. */
  holds(run: () => void): boolean {
    if (this.#waiting === null) return false
    this.#waiting.push(run)
    return true
  }

  /** Something has passed: what is returned has to be called when it is answered, with the answer for `done`. */
  pass(done: StoreDone): StoreDone {
    this.#inFlight++
    return (error) => {
      this.#inFlight--
      done(error)
      if (this.#inFlight > 0 || this.#onIdle === null) return
      this.#onIdle()
      this.#onIdle = null
    }
  }

  /** Resolves when everything that has passed is answered. */
  async close(): Promise<void> {
    this.#waiting ??= []
    if (this.#inFlight === 0) return
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve
    })
  }

  open(): void {
    const waiting = this.#waiting ?? []
    this.#waiting = null
    for (const run of waiting) run()
  }
}
