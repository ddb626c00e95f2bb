/** What somebody has started, to be ended by him in the opposite order, also when he gets no further. */
export class Started {
  readonly #stops: (() => unknown)[] = []

  keep<T extends { stop(): Promise<void> }>(server: T): T {
    this.onStop(() => server.stop())
    return server
  }

  /** Waits for all of them, also when one does not start; then rejects. */
  async keepAll<T extends { stop(): Promise<void> }>(starting: readonly Promise<T>[]): Promise<void> {
    const outcomes = await Promise.allSettled(starting)
    for (const outcome of outcomes) if (outcome.status === 'fulfilled') this.keep(outcome.value)
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
  }

  onStop(stop: () => unknown): void {
    this.#stops.unshift(stop)
  }

  async stop(): Promise<void> {
    for (const stop of this.#stops.splice(0)) await stop()
  }
}
