/** What was asked of one block, by a count of events. `end` is infinite when there was no answer. */
export interface Operation {
  kind: 'read' | 'write'
  value: number
  start: number
  end: number
}

/**
 * Whether there is an order of the operations on one block that explains what was read: null, or why not. All writes have
 * values of their own; 0 is what the block had at first; a write without an answer may happen whenever it likes, or never.
 *
 * For values that are written once, as Gibbons and Korach show (Testing Shared Memories, 1997), it is enough to look at the zone of
 * each value: from the first end to the last start of what concerns it. When the one comes before the other, the block had
 * that value all the time between, so two such zones never overlap; when not, there must be a moment in it that is in none of them.
 */
export function whyNotLinearizable(operations: readonly Operation[]): string | null {
  const writes = new Map<number, Operation>([[0, { kind: 'write', value: 0, start: -1, end: -1 }]])
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
