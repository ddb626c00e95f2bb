/** What is done under one key takes turns, in the order of asking; other keys do not wait for it. */
export class Turns<K> {
  /** The last of each key that has any under way. */
  readonly #tails = new Map<K, Promise<unknown>>()

  isTaken(key: K): boolean {
    return this.#tails.has(key)
  }

  take<T>(key: K, work: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key) ?? Promise.resolve()
    const result = before.then(work, work)
    const tail = result
      .catch(() => {})
      .then(() => {
        if (this.#tails.get(key) === tail) this.#tails.delete(key)
      })
    this.#tails.set(key, tail)
    return result
  }

  /** As `take`, for work under several keys; those who ask for several name them in one order, so that nobody waits in a circle. */
  takeAll<T>(keys: readonly K[], work: () => Promise<T>): Promise<T> {
    return keys.reduceRight((rest, key) => () => this.take(key, rest), work)()
  }
}
