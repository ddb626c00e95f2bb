/** Creations, snapshots, deletions and attributes of one family take turns, in the order of asking; families do not wait for others. */
export class FamilyTurns {
  /** The last of each family that has any under way. */
  readonly #tails = new Map<number, Promise<unknown>>()

  take<T>(family: number, work: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(family) ?? Promise.resolve()
    const result = before.then(work, work)
    const tail = result
      .catch(() => {})
      .then(() => {
        if (this.#tails.get(family) === tail) this.#tails.delete(family)
      })
    this.#tails.set(family, tail)
    return result
  }
}
