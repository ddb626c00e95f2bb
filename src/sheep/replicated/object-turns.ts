/** So many are kept while nothing is under way: what comes and goes with each write is garbage that lasts (runtime/under-way.ts). */
const IDLE_MAX = 256

/**
 * The order of changes of one object, by index: those that say themselves what blocks become go at the same time; one that depends
 * on what there is goes alone. First come, first served.
 */
export class ObjectTurns {
  readonly #objects = new Map<number, Turns>()

  shared<T>(index: number, change: () => Promise<T>): Promise<T> {
    return this.#take(index, change, false)
  }

  alone<T>(index: number, change: () => Promise<T>): Promise<T> {
    return this.#take(index, change, true)
  }

  /** As `shared`, of a change that is under way until `end` is called. False, and it is not, when it would have to wait. */
  beginShared(index: number): boolean {
    const turns = this.#objects.get(index)
    if (turns?.isAlone || turns?.waiting.length) return false
    if (turns) turns.under++
    else this.#objects.set(index, { under: 1, isAlone: false, waiting: [] })
    return true
  }

  #take<T>(index: number, change: () => Promise<T>, isAlone: boolean): Promise<T> {
    let turns = this.#objects.get(index)
    if (!turns) {
      turns = { under: 0, isAlone: false, waiting: [] }
      this.#objects.set(index, turns)
    }
    const { waiting } = turns
    const done = new Promise<T>((resolve, reject) => {
      const run = () =>
        change()
          .then(resolve, reject)
          .finally(() => this.end(index))
      waiting.push({ isAlone, run })
    })
    this.#next(turns)
    return done
  }

  /** A change that was under way is not any more. */
  end(index: number): void {
    const turns = this.#objects.get(index)!
    turns.under--
    turns.isAlone = false
    this.#next(turns)
    if (turns.under === 0 && this.#objects.size > IDLE_MAX) this.#objects.delete(index)
  }

  #next(turns: Turns): void {
    for (;;) {
      const next = turns.waiting[0]
      if (!next || turns.isAlone || (next.isAlone && turns.under > 0)) return
      turns.waiting.shift()
      turns.under++
      turns.isAlone = next.isAlone
      void next.run()
    }
  }
}

interface Turns {
  under: number
  /** The one under way is alone. */
  isAlone: boolean
  waiting: { isAlone: boolean; run: () => Promise<void> }[]
}
