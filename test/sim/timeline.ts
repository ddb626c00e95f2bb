export interface TimelineEvent {
  readonly atMs: number
  readonly order: number
  /** The life of the process that it belongs to; it ends with it. */
  readonly life: object
  readonly fire: () => void
  isCancelled: boolean
}

/** What is to happen, by time and then by the order in which it was asked for: a binary heap. */
export class Timeline {
  nowMs = 0
  #order = 0
  readonly #heap: TimelineEvent[] = []
  readonly #ended = new WeakSet<object>()

  add(delayMs: number, life: object, fire: () => void): TimelineEvent {
    const event = { atMs: this.nowMs + delayMs, order: this.#order++, life, fire, isCancelled: false }
    this.#heap.push(event)
    this.#rise(this.#heap.length - 1)
    return event
  }

  /** Nothing that belongs to this life happens any more. */
  drop(life: object): void {
    this.#ended.add(life)
  }

  /** Fires the next event; false when there is none. */
  step(): boolean {
    for (;;) {
      const event = this.#take()
      if (event === undefined) return false
      if (event.isCancelled || this.#ended.has(event.life)) continue
      this.nowMs = Math.max(this.nowMs, event.atMs)
      event.fire()
      return true
    }
  }

  #take(): TimelineEvent | undefined {
    const heap = this.#heap
    const first = heap[0]
    const last = heap.pop()
    if (heap.length > 0) {
      heap[0] = last!
      this.#sink()
    }
    return first
  }

  #rise(index: number): void {
    const heap = this.#heap
    while (index > 0) {
      const parent = (index - 1) >> 1
      if (!isBefore(heap[index]!, heap[parent]!)) return
      this.#swap(index, parent)
      index = parent
    }
  }

  #sink(): void {
    const heap = this.#heap
    for (let index = 0; ; ) {
      const left = 2 * index + 1
      const right = left + 1
      let least = index
      if (left < heap.length && isBefore(heap[left]!, heap[least]!)) least = left
      if (right < heap.length && isBefore(heap[right]!, heap[least]!)) least = right
      if (least === index) return
      this.#swap(index, least)
      index = least
    }
  }

  #swap(a: number, b: number): void {
    const heap = this.#heap
    const moved = heap[a]!
    heap[a] = heap[b]!
    heap[b] = moved
  }
}

function isBefore(a: TimelineEvent, b: TimelineEvent): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order)
}
