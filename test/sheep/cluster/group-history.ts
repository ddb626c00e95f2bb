import type { Configuration, GroupListener, MemberId } from '../../../src/sheep/cluster/group.ts'

/** What one member was told, in order. A message is a text: what was sent itself, or a digest of it. */
export type Told =
  | { kind: 'configured'; id: string; members: readonly MemberId[] }
  | { kind: 'delivered'; sender: MemberId; message: string }
  | { kind: 'quorate'; isQuorate: boolean }
  | { kind: 'lost'; reason: string }

/** A listener that remembers. */
export class History implements GroupListener {
  readonly told: Told[] = []
  readonly #textOf: (message: Buffer) => string

  constructor(textOf = (message: Buffer) => message.toString('latin1')) {
    this.#textOf = textOf
  }

  configured({ id, members }: Configuration): void {
    this.remember({ kind: 'configured', id, members })
  }

  delivered(sender: MemberId, message: Buffer): void {
    this.remember({ kind: 'delivered', sender, message: this.#textOf(message) })
  }

  quorate(isQuorate: boolean): void {
    this.remember({ kind: 'quorate', isQuorate })
  }

  lost(reason: Error): void {
    this.remember({ kind: 'lost', reason: reason.message })
  }

  protected remember(event: Told): void {
    this.told.push(event)
  }
}

/** A configuration as one member had it, and what it was told until the next one. */
export interface Period {
  readonly id: string
  readonly members: readonly MemberId[]
  readonly messages: { sender: MemberId; message: string }[]
}

export function periodsOf(told: readonly Told[]): Period[] {
  const periods: Period[] = []
  for (const event of told) {
    if (event.kind === 'configured') periods.push({ id: event.id, members: event.members, messages: [] })
    if (event.kind === 'delivered') periods.at(-1)?.messages.push({ sender: event.sender, message: event.message })
  }
  return periods
}

/**
 * What members were told against the numbered rules of the contract; messages have to be different from each other. Says each
 * breach in words.
 */
export function breachesOf(histories: ReadonlyMap<MemberId, readonly Told[]>): string[] {
  const breaches: string[] = []
  const membersOf = new Map<string, string>()
  const between = new Map<string, string>()
  for (const [self, told] of histories) {
    const firstMessage = told.findIndex(({ kind }) => kind === 'delivered')
    const firstConfiguration = told.findIndex(({ kind }) => kind === 'configured')
    if (firstMessage !== -1 && (firstConfiguration === -1 || firstMessage < firstConfiguration)) {
      breaches.push(`${self} was told a message before any configuration`)
    }
    const lost = told.findIndex(({ kind }) => kind === 'lost')
    if (lost !== -1 && lost < told.length - 1) breaches.push(`${self} was told something after its end`)

    const seen = new Set<string>()
    const periods = periodsOf(told)
    for (const [index, { id, members, messages }] of periods.entries()) {
      const names = members.join(' ')
      if (!members.includes(self)) breaches.push(`${self} was told configuration ${id} without itself: ${names}`)
      if (getOrInsert(membersOf, id, names) !== names) {
        breaches.push(`configuration ${id} is both ${membersOf.get(id)} and ${names}`)
      }
      if (seen.has(id)) breaches.push(`${self} was told configuration ${id} twice`)
      seen.add(id)
      for (const { sender, message } of messages) {
        if (!members.includes(sender)) breaches.push(`${self} was told ${message} of ${sender}, which is not in ${id}`)
        if (seen.has(`message ${message}`)) breaches.push(`${self} was told ${message} twice`)
        seen.add(`message ${message}`)
      }
      const next = periods[index + 1]
      if (next === undefined) continue
      const passage = `from ${id} to ${next.id}`
      const text = messages.map(({ sender, message }) => `${sender}: ${message}`).join(', ')
      if (getOrInsert(between, passage, text) !== text) {
        breaches.push(`${self} was told [${text}] on its way ${passage}, and another one [${between.get(passage)}]`)
      }
    }
  }
  breaches.push(...orderBreaches(histories))
  return breaches
}

/** Two members that were told the same two messages were told them in one order, and those of one sender in its own. */
function orderBreaches(histories: ReadonlyMap<MemberId, readonly Told[]>): string[] {
  const breaches: string[] = []
  const orders = [...histories].map(([self, told]) => ({
    self,
    places: new Map(
      periodsOf(told)
        .flatMap(({ messages }) => messages.map(({ message }) => message))
        .map((m, i) => [m, i]),
    ),
  }))
  for (const [index, a] of orders.entries()) {
    for (const b of orders.slice(index + 1)) {
      const common = [...a.places.keys()].filter((message) => b.places.has(message))
      for (const [i, message] of common.entries()) {
        const next = common[i + 1]
        if (next === undefined || b.places.get(message)! < b.places.get(next)!) continue
        breaches.push(`${a.self} was told ${message} before ${next}, and ${b.self} after it`)
      }
    }
  }
  return breaches
}

function getOrInsert(map: Map<string, string>, key: string, value: string): string {
  const existing = map.get(key)
  if (existing === undefined) map.set(key, value)
  return existing ?? value
}
