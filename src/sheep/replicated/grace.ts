/** Lets whoever takes something away wait for all who may still be looking at it. */
export class Grace {
  readonly #inside = new Set<Promise<unknown>>()

  async during<T>(look: () => Promise<T>): Promise<T> {
    const looking = look()
    this.#inside.add(looking)
    try {
      return await looking
    } finally {
      this.#inside.delete(looking)
    }
  }

  /** Resolves when all that was under way has ended. What begins later finds things as they are now. */
  async passed(): Promise<void> {
    await Promise.allSettled([...this.#inside])
  }
}
