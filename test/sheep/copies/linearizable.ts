/** What was asked of one block, by a count of events. `end` is infinite when there was no answer. */
export interface Operation {
  kind: 'read' | 'write'
  value: number
  start: number
  end: number
}

/**
 * Whether there is an order of the operations on one block that explains what was read: null, or why not. All writes have
 * values of their own; `initial` is what the block had at first; a write without an answer may happen whenever it likes, or never.
 *
 * For values that are written once, as Gibbons and Korach show (Testing Shared Memories, 1997), it is enough to look at the zone of
 * each value: from the first end to the last start of what concerns it. When the one comes before the other, the block had
 * that value all the time between, so two such zones never overlap; when not, there must be a moment in it that is in none of them.
 */
export function whyNotLinearizable(operations: readonly Operation[], initial = 0): string | null {
  const writes = new Map<number, Operation>([[initial, { kind: 'write', value: initial, start: -1, end: -1 }]])
  for (const operation of operations) if (operation.kind === 'write') writes.set(operation.value, operation)
  const zones = new Map<number, { end: number; start: number }>()
  for (const { value, start, end } of writes.values()) zones.set(value, { end, start })
  const read = new Set<number>()
  for (const { kind, value, start, end } of operations) {
    if (kind === 'write' || end === Number.POSITIVE_INFINITY) continue
    const write = writes.get(value)
    if (!write) return `${value} was read, and its write was refused or never sent`
    if (end < write.start) return `${value} was read before it was written`
    read.add(value)
    const zone = zones.get(value)!
    zone.end = Math.min(zone.end, end)
    zone.start = Math.max(zone.start, start)
  }
  const seen = [...zones].filter(([value, { end }]) => read.has(value) || end !== Number.POSITIVE_INFINITY)
  const lasting = seen.filter(([, { end, start }]) => end < start)
  for (const [value, zone] of lasting) {
    for (const [other, { end, start }] of seen) {
      if (value === other) continue
      const isLasting = end < start
      const isWithin = isLasting ? end < zone.start && zone.end < start : zone.end < start && end < zone.start
      if (isWithin)
        return `${value} was there from ${zone.end} to ${zone.start}, and so was ${other} between ${Math.min(start, end)} and ${Math.max(start, end)}`
    }
  }
  return null
}

/** Times of what concerns all blocks. */
export interface Durability {
  /** Everything that was acknowledged before the start of one was on the disks at its end. */
  flushes: readonly Pick<Operation, 'start' | 'end'>[]
  /** All nodes lose power at once. */
  blackouts: readonly number[]
}

/** What a block is that nobody has looked at since the power was gone. */
const NOBODY_KNOWS = -2

/**
 * As `whyNotLinearizable`, of a block whose acknowledged writes may be gone after a blackout unless a flush came after them. What it
 * is then is the last write before the last flush, or one that came later; and one of them only.
 */
export function whyNotDurable(operations: readonly Operation[], { flushes, blackouts }: Durability): string | null {
  let from = -1
  /** What the block may be at `from`. */
  let candidates: readonly Operation[] = [{ kind: 'write', value: 0, start: -1, end: -1 }]
  for (const to of [...blackouts, Number.POSITIVE_INFINITY]) {
    const within = operations
      .filter(({ start, end }) => start < to && end > from)
      .map((each) => partWithin(each, from, to))
    const written = new Set(within.flatMap(({ kind, value }) => (kind === 'write' ? [value] : [])))
    const read = new Set(
      within.flatMap(({ kind, value, end }) => (kind === 'read' && Number.isFinite(end) ? [value] : [])),
    )
    const seen = candidates.filter(({ value }) => !written.has(value) && read.has(value))
    if (seen.length > 1) return `${seen.map(({ value }) => value)} are all there after the blackout at ${from}`
    const [initial] = candidates.length === 1 ? candidates : seen
    const why = whyNotLinearizable(within, initial?.value ?? NOBODY_KNOWS)
    if (why) return why
    const writes = within.filter(({ kind }) => kind === 'write')
    const certain = initial ? [{ ...initial, start: from, end: from }, ...writes] : writes
    const safe = flushes.filter(({ end }) => end < to).reduce((latest, { start }) => Math.max(latest, start), -1)
    const durable = certain.filter(({ end }) => end < safe)
    candidates = [...(initial ? [] : candidates), ...certain].filter(
      (write) => !durable.some(({ start }) => write.end < start),
    )
    from = to
  }
  return null
}

/** An operation as the time between two blackouts sees it: of what goes on beyond its end nobody has heard. */
function partWithin(operation: Operation, from: number, to: number): Operation {
  const { kind, start, end } = operation
  const isCut = end > to || (kind === 'read' && start < from)
  return { ...operation, start: Math.max(start, from), end: isCut ? Number.POSITIVE_INFINITY : end }
}
