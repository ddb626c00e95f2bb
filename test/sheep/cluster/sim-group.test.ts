import { describe, expect, it } from 'vitest'
import type { Group } from '../../../src/sheep/cluster/group.ts'
import { SimClock } from '../../sim/clock.ts'
import { SimGroup } from '../../sim/group.ts'
import { SeededRandom } from '../../sim/random.ts'
import { runSeeds } from '../../sim/seeds.ts'
import { breachesOf, History, periodsOf } from './group-history.ts'

const NODES = ['n1', 'n2', 'n3', 'n4', 'n5']
const STEPS = 150

interface Running {
  group: Group
  history: History
}

/** Joins, sends, leaves, kills, stops, cuts and heals at random; at the end everything is well and still for a while. */
class Schedule {
  readonly #random: SeededRandom
  readonly #clock: SimClock
  readonly #group: SimGroup
  readonly histories = new Map<string, History>()
  readonly running = new Map<string, Running>()
  readonly #stopped = new Set<string>()
  readonly #sent = new Map<Group, number>()

  constructor(seed: number) {
    this.#random = new SeededRandom(seed)
    this.#clock = new SimClock(this.#random)
    this.#group = new SimGroup(this.#clock, this.#random, { votes: NODES })
  }

  async run(): Promise<void> {
    for (let step = 0; step < STEPS; step++) {
      await this.#step()
      await this.#pass(this.#random.next() * 400)
    }
    this.#group.heal()
    for (const node of this.#stopped) this.#group.resume(node)
    for (const node of NODES) if (!this.running.has(node)) await this.#start(node)
    await this.#pass(10_000)
    for (const { group } of this.running.values()) this.#send(group)
    await this.#pass(10_000)
  }

  #pass(ms: number): Promise<void> {
    return this.#clock.run(this.#clock.mount().sleep(ms))
  }

  #send(group: Group): void {
    const number = (this.#sent.get(group) ?? 0) + 1
    this.#sent.set(group, number)
    group.send(Buffer.from(`${group.self} ${number}`))
  }

  async #start(node: string): Promise<void> {
    const history = new History()
    const group = await this.#clock.run(this.#group.join(node, history))
    this.running.set(node, { group, history })
    this.histories.set(group.self, history)
  }

  async #step(): Promise<void> {
    const node = this.#random.pick(NODES)
    const running = this.running.get(node)
    const isStopped = this.#stopped.has(node)
    if (running === undefined && !isStopped) return this.#start(node)
    const roll = this.#random.next()
    if (roll < 0.6) {
      for (let i = this.#random.below(8); i >= 0 && running && !isStopped; i--) this.#send(running.group)
    } else if (roll < 0.66) {
      this.#group.kill(node)
      this.#stopped.delete(node)
      this.running.delete(node)
    } else if (roll < 0.7) {
      this.#group.lose(node)
      this.running.delete(node)
    } else if (roll < 0.74) {
      if (isStopped) return
      void running?.group.leave()
      this.running.delete(node)
    } else if (roll < 0.8) {
      this.#group.stop(node)
      this.#stopped.add(node)
    } else if (roll < 0.86) {
      this.#group.resume(node)
      this.#stopped.delete(node)
    } else if (roll < 0.93) {
      const at = 1 + this.#random.below(NODES.length - 1)
      const shuffled = [...NODES].sort(() => this.#random.next() - 0.5)
      this.#group.partition([shuffled.slice(0, at), shuffled.slice(at)])
    } else {
      this.#group.heal()
    }
  }
}

describe('the simulated group', () => {
  it('keeps the contract under all faults, is as weak as it allows, and ends in one configuration', async () => {
    const met = new Set<string>()
    const seeds = await runSeeds('test/sheep/cluster/sim-group.test.ts', 60, async (seed) => {
      const schedule = new Schedule(seed)
      await schedule.run()
      const told = new Map([...schedule.histories].map(([self, history]) => [self, history.told]))
      expect(breachesOf(told)).toEqual([])
      for (const weakness of weaknessesOf(schedule.histories)) met.add(weakness)
      const lasts = NODES.map((node) => periodsOf(schedule.running.get(node)!.history.told).at(-1)!)
      expect(new Set(lasts.map(({ id }) => id)).size).toBe(1)
      expect(lasts[0]!.members).toHaveLength(NODES.length)
      for (const { messages } of lasts) expect(messages.length).toBeGreaterThanOrEqual(NODES.length)
      for (const { history } of schedule.running.values()) {
        expect(history.told.findLast(({ kind }) => kind === 'quorate')).toEqual({ kind: 'quorate', isQuorate: true })
      }
    })
    if (seeds < 60) return // a few do not meet all
    expect([...met].sort()).toEqual([
      'a member that was cut off was told its own message in the configuration with those who were not',
      'of a sender, a message was lost and a later one was told',
      'one side of a cut was told a message that the other was not',
      'quorate was told after the configuration without a majority',
      'quorate was told before the configuration without a majority',
    ])
  })
})

/** By names, so that the test above says what it looks for. */
function* weaknessesOf(histories: ReadonlyMap<string, History>): Generator<string> {
  const told = [...histories].map(([self, history]) => ({ self, told: history.told, periods: periodsOf(history.told) }))
  for (const a of told) {
    for (const { id, messages, members } of a.periods) {
      for (const b of told) {
        const other = b.periods.find((period) => period.id === id)
        if (a === b || other === undefined) continue
        const others = new Set(other.messages.map(({ message }) => message))
        const untold = messages.filter(({ message }) => !others.has(message))
        if (b.periods.at(-1) === other || untold.length === 0) continue
        yield 'one side of a cut was told a message that the other was not'
        const allOthers = told.filter(({ self }) => self !== a.self && members.includes(self))
        const isAlone = ({ sender, message }: { sender: string; message: string }) =>
          sender === a.self &&
          !allOthers.some(({ periods }) => periods.some((period) => period.messages.some((m) => m.message === message)))
        if (untold.some(isAlone)) {
          yield 'a member that was cut off was told its own message in the configuration with those who were not'
        }
      }
    }
    const own = a.periods.flatMap(({ messages }) => messages).filter(({ sender }) => sender === a.self)
    const numbers = own.map(({ message }) => Number(message.split(' ')[1]))
    if (numbers.some((number, index) => index > 0 && number > numbers[index - 1]! + 1)) {
      yield 'of a sender, a message was lost and a later one was told'
    }
    for (const [index, event] of a.told.entries()) {
      if (event.kind !== 'quorate' || event.isQuorate) continue
      const before = periodsOf(a.told.slice(0, index)).at(-1)
      if (before === undefined) continue
      const isMinority = 2 * before.members.length <= NODES.length
      if (isMinority) yield 'quorate was told after the configuration without a majority'
      else yield 'quorate was told before the configuration without a majority'
    }
  }
}
