import assert from 'node:assert'

const PLACE_BITS = 20
const PLACES_MAX = 2 ** PLACE_BITS
const TURNS = 2 ** (32 - PLACE_BITS)

/**
 * What is under way, each under a number of 32 bits that comes again only 4,096 uses of its place later.
 *
 * A Map or a Set of what comes and goes does the same, but makes a new table for every few entries; and while a former table waits in the
 * old generation to be collected, the garbage collector keeps what it had last and the table that followed, with all that hangs
 * on them, as if somebody had it.
 */
export class UnderWay<T> {
  readonly #items: (T | null)[] = []
  /** By place, like the items. */
  readonly #numbers: number[] = []
  readonly #orders: number[] = []
  readonly #free: number[] = []
  #added = 0

  get size(): number {
    return this.#items.length - this.#free.length
  }

  /** Returns its number. */
  add(item: T): number {
    const place = this.#free.pop() ?? this.#newPlace()
    const turn = ((this.#numbers[place]! >>> PLACE_BITS) + 1) % TURNS
    const number = ((turn << PLACE_BITS) | place) >>> 0
    this.#items[place] = item
    this.#numbers[place] = number
    this.#orders[place] = ++this.#added
    return number
  }

  get(number: number): T | undefined {
    const place = number % PLACES_MAX
    return this.#numbers[place] === number ? (this.#items[place] ?? undefined) : undefined
  }

  delete(number: number): void {
    if (this.get(number) === undefined) return
    const place = number % PLACES_MAX
    this.#items[place] = null
    this.#free.push(place)
  }

  clear(): void {
    for (const [place, item] of this.#items.entries()) if (item !== null) this.delete(this.#numbers[place]!)
  }

  /** In the order in which they were added. */
  values(): T[] {
    const places = [...this.#items.keys()].filter((place) => this.#items[place] !== null)
    return places.sort((a, b) => this.#orders[a]! - this.#orders[b]!).map((place) => this.#items[place]!)
  }

  #newPlace(): number {
    const place = this.#items.length
    assert(place < PLACES_MAX, 'a million are under way')
    this.#items.push(null)
    this.#numbers.push(place)
    this.#orders.push(0)
    return place
  }
}
