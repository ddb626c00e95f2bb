/** What was asked of one unit of a VDI, and what became of it. A value of 0 is zeros. */
type HistoryEvent =
  | { type: 'call'; operation: Operation }
  /** Nothing was done, and nothing will be. */
  | { type: 'refused'; operation: Operation }
  | { type: 'return'; operation: Operation }
  /** There was no answer, and from now on it does not happen any more. */
  | { type: 'over'; operation: Operation }
  | { type: 'flush'; operation: Operation }
  | { type: 'flushed'; operation: Operation }
  | { type: 'loss' }

export interface Operation {
  kind: 'read' | 'write' | 'flush'
  /** What was written, or read; null until that is known. */
  value: number | null
  isDurable: boolean
}

interface Config {
  value: number
  /** Those that have happened and were not answered yet. */
  happened: ReadonlySet<Operation>
}

/**
 * The history of one unit, and whether there is an order of all that was asked that explains what was read. Each operation happens at
 * some moment between call and return; one without a return may happen at any later moment, or never. After a loss of power the unit
 * has what was durable, or anything that was written since. With `repeats` a write may happen more than once until it is answered.
 */
export class UnitHistory {
  readonly #initial: number
  readonly #repeats: boolean
  readonly #events: HistoryEvent[] = []

  constructor({ initial = 0, repeats = false } = {}) {
    this.#initial = initial
    this.#repeats = repeats
  }

  add(event: HistoryEvent): void {
    this.#events.push(event)
  }

  /** Null, or why there is no such order. */
  whyNot(): string | null {
    let configs: Config[] = [{ value: this.#initial, happened: new Set() }]
    const pending = new Set<Operation>()
    /** What a loss of power may leave. */
    let left = new Set([this.#initial])
    const flushes = new Map<Operation, Set<number>>()
    // Of those that have no return, only what was read, or may have been, ever matters.
    const lastRead = new Map(
      this.#events.flatMap((event, at): [number | null, number][] =>
        'operation' in event && event.operation.kind === 'read' ? [[event.operation.value, at]] : [],
      ),
    )
    const returned = new Set(this.#events.flatMap((event) => (event.type === 'return' ? [event.operation] : [])))
    /** Those of which it matters which one has happened. */
    const bounded = new Set([
      ...returned,
      ...this.#events.flatMap((event) => (event.type === 'over' || event.type === 'refused' ? [event.operation] : [])),
    ])
    const possible = () =>
      new Set([
        ...configs.map(({ value }) => value),
        ...[...pending].flatMap(({ kind, value }) => (kind === 'write' ? [value!] : [])),
      ])
    /** No read needs those any more. */
    const forget = (at: number) => {
      const isPast = (operation: Operation) => !bounded.has(operation) && lastRead.get(operation.value)! < at
      const past = [...pending].filter(isPast)
      if (past.length === 0) return
      for (const operation of past) pending.delete(operation)
      const left = new Map<string, Config>()
      const ids = new Map([...pending].map((operation, id) => [operation, id]))
      for (const { value, happened } of configs) {
        const still = new Set([...happened].filter((operation) => ids.has(operation)))
        left.set(`${value}:${[...still].map((operation) => ids.get(operation)).sort()}`, { value, happened: still })
      }
      configs = [...left.values()]
    }
    for (const [at, event] of this.#events.entries()) {
      switch (event.type) {
        case 'call': {
          const { operation } = event
          if (operation.kind === 'read' && (!returned.has(operation) || operation.value === null)) break
          if (returned.has(operation) || (lastRead.get(operation.value) ?? -1) > at) pending.add(operation)
          if (operation.kind === 'write') for (const values of [left, ...flushes.values()]) values.add(operation.value!)
          break
        }
        case 'refused':
          pending.delete(event.operation)
          configs = configs.filter(({ happened }) => !happened.has(event.operation))
          break
        case 'return': {
          const { operation } = event
          if (!pending.has(operation)) break
          forget(at)
          const explained = happen(configs, pending, operation, bounded, this.#repeats)
          if (explained.length === 0) {
            const values = [...new Set(configs.map(({ value }) => value))]
            const others = [...pending].map(({ kind, value }) => `${kind} ${value}`)
            return `${operation.kind} of ${operation.value}, when it held ${values} with ${others} under way`
          }
          configs = explained
          pending.delete(operation)
          if (operation.isDurable && operation.kind === 'write') left = possible()
          break
        }
        case 'over':
          if (!pending.has(event.operation)) break
          configs = [
            ...configs.filter(({ happened }) => !happened.has(event.operation)),
            ...happen(configs, pending, event.operation, bounded, this.#repeats),
          ]
          pending.delete(event.operation)
          break
        case 'flush':
          flushes.set(event.operation, possible())
          break
        case 'flushed':
          left = flushes.get(event.operation) ?? left
          flushes.delete(event.operation)
          break
        case 'loss':
          configs = [...left].map((value) => ({ value, happened: new Set() }))
          pending.clear()
          flushes.clear()
      }
    }
    return null
  }
}

/**
 * All ways in which the operation, and what may have happened before it, has happened; for the last time, where it may have before. Of those that may happen at any later time one is
 * as good as another with the same value, and none of them happens for nothing.
 */
function happen(
  configs: readonly Config[],
  pending: ReadonlySet<Operation>,
  last: Operation,
  bounded: ReadonlySet<Operation>,
  repeats: boolean,
): Config[] {
  const seen = new Set<string>()
  const done = new Map<string, Config>()
  const ids = new Map([...pending].map((operation, id) => [operation, id]))
  const nameOf = (operation: Operation) => (bounded.has(operation) ? `${ids.get(operation)}` : `=${operation.value}`)
  const mayRepeat = repeats && last.kind === 'write'
  const visit = ({ value, happened }: Config, by: Operation = last): void => {
    const isOver = (operation: Operation) => happened.has(operation) && (!repeats || operation.value === value)
    const key = `${value}:${[...happened].map(nameOf).sort()}`
    if (happened.has(last) && by === last)
      done.set(key, { value, happened: new Set([...happened].filter((operation) => operation !== last)) })
    if (seen.has(key)) return
    seen.add(key)
    if (happened.has(last) && !mayRepeat) return
    const tried = new Set<number | null>([value])
    for (const operation of pending) {
      if (operation.kind === 'read' ? happened.has(operation) || operation.value !== value : isOver(operation)) continue
      if (!bounded.has(operation)) {
        if (tried.has(operation.value)) continue
        tried.add(operation.value)
      }
      const next = operation.kind === 'write' ? operation.value! : value
      visit({ value: next, happened: new Set([...happened, operation]) }, operation)
    }
  }
  for (const config of configs) visit(config)
  return [...done.values()]
}
