import { describe, expect, it } from 'vitest'
import type { Group } from '../../../src/sheep/cluster/group.ts'
import { type Address, ProcessGroup } from '../../../src/sheep/cluster/process-group.ts'
import { SimClock } from '../../sim/clock.ts'
import { SimGroup } from '../../sim/group.ts'
import { SeededRandom } from '../../sim/random.ts'
import { runSeeds } from '../../sim/seeds.ts'
import { breachesOf, History, periodsOf } from './group-history.ts'

/** The number in `n1#1`; a process of a node has the same pid at every start, as in a container. */
const addressOf = (rawId: string): Address => `${Number(/^n(\d+)#/.exec(rawId)![1])}:1`

class Process {
  readonly history = new History()
  readonly clock: SimClock
  group!: ProcessGroup
  raw!: Group
  sent = 0

  constructor(clock: SimClock) {
    this.clock = clock
  }

  send(): void {
    this.group.send(Buffer.from(`${this.group.self} ${++this.sent}`))
  }
}

/** Process groups on a raw group that behaves as corosync's: it names processes by node and pid, and its changes not at all. */
class Cluster {
  readonly random: SeededRandom
  readonly clock: SimClock
  readonly raw: SimGroup
  readonly processes = new Map<string, Process>()
  readonly histories = new Map<string, History>()
  #starts = 0

  constructor(seed: number, loss: number) {
    this.random = new SeededRandom(seed)
    this.clock = new SimClock(this.random)
    this.raw = new SimGroup(this.clock, this.random, { loss })
  }

  pass(ms: number): Promise<void> {
    return this.clock.run(this.clock.mount().sleep(ms))
  }

  async start(node: string): Promise<Process> {
    const process = new Process(this.clock.node())
    let present: readonly string[] = []
    process.raw = await this.clock.run(
      this.raw.join(node, {
        configured: ({ members }) => {
          const left = present.filter((id) => !members.includes(id)).map(addressOf)
          const joined = members.filter((id) => !present.includes(id)).map(addressOf)
          present = members
          process.group.changed(members.map(addressOf), left, joined)
        },
        delivered: (sender, payload) => process.group.received(addressOf(sender), payload),
        quorate: () => {},
        lost: () => {},
      }),
    )
    process.group = new ProcessGroup({
      address: addressOf(process.raw.self),
      start: `start${++this.#starts}`,
      clock: process.clock.mount(),
      listener: process.history,
      multicast: (payload) => process.raw.send(payload),
    })
    this.processes.set(node, process)
    this.histories.set(process.group.self, process.history)
    return process
  }

  kill(node: string): void {
    this.raw.kill(node)
    this.processes.get(node)!.clock.endProcess()
    this.processes.delete(node)
  }

  stop(node: string): void {
    this.raw.stop(node)
    this.processes.get(node)!.clock.stop()
  }

  resume(node: string): void {
    this.raw.resume(node)
    this.processes.get(node)!.clock.resume()
  }

  told() {
    return new Map([...this.histories].map(([self, { told }]) => [self, told]))
  }

  last(node: string) {
    return periodsOf(this.processes.get(node)!.history.told).at(-1)!
  }
}

describe('a group on processes', () => {
  const nodes = ['n1', 'n2', 'n3', 'n4']

  it.each([0, 0.3])('keeps the contract under all faults, with %d of the messages lost at changes', async (loss) => {
    await runSeeds('test/sheep/cluster/process-group.test.ts', 40, async (seed) => {
      const cluster = new Cluster(seed, loss)
      const { random } = cluster
      const stopped = new Set<string>()
      for (let step = 0; step < 120; step++) {
        const node = random.pick(nodes)
        const process = cluster.processes.get(node)
        const roll = random.next()
        if (process === undefined) await cluster.start(node)
        else if (roll < 0.6) {
          for (let i = random.below(6); i >= 0 && !stopped.has(node); i--) process.send()
        } else if (roll < 0.7) {
          cluster.kill(node)
          stopped.delete(node)
        } else if (roll < 0.78) {
          cluster.stop(node)
          stopped.add(node)
        } else if (roll < 0.86) {
          cluster.resume(node)
          stopped.delete(node)
        } else if (roll < 0.93) {
          const at = 1 + random.below(nodes.length - 1)
          const shuffled = [...nodes].sort(() => random.next() - 0.5)
          cluster.raw.partition([shuffled.slice(0, at), shuffled.slice(at)])
        } else {
          cluster.raw.heal()
        }
        await cluster.pass(random.next() * 1000)
      }
      cluster.raw.heal()
      for (const node of stopped) cluster.resume(node)
      for (const node of nodes) if (!cluster.processes.has(node)) await cluster.start(node)
      await cluster.pass(60_000)
      for (const { group } of cluster.processes.values()) group.send(Buffer.from(`${group.self} last`))
      await cluster.pass(1000)
      expect(breachesOf(cluster.told())).toEqual([])
      const lasts = nodes.map((node) => cluster.last(node))
      expect(new Set(lasts.map(({ id }) => id)).size).toBe(1)
      for (const { members, messages } of lasts) {
        expect(members).toHaveLength(nodes.length)
        expect(messages.filter(({ message }) => message.endsWith('last'))).toHaveLength(nodes.length)
      }
    })
  })

  it('lets a newcomer in beside a process that is stopped, which comes back when it goes on', async () => {
    const cluster = new Cluster(1, 0)
    for (const node of ['n1', 'n2', 'n3']) await cluster.start(node)
    await cluster.pass(10_000)
    const { id } = cluster.last('n1')
    expect(cluster.last('n1').members).toHaveLength(3)
    cluster.stop('n3')
    await cluster.start('n4')
    await cluster.pass(500)
    cluster.processes.get('n1')!.send()
    await cluster.pass(500)
    expect(cluster.last('n2')).toMatchObject({ id, messages: [{ sender: cluster.processes.get('n1')!.group.self }] })
    await cluster.pass(10_000)
    const members = (...names: string[]) => names.map((name) => cluster.processes.get(name)!.group.self).sort()
    for (const node of ['n1', 'n2', 'n4']) expect(cluster.last(node).members).toEqual(members('n1', 'n2', 'n4'))
    expect(cluster.last('n3').id).toBe(id)
    cluster.resume('n3')
    await cluster.pass(10_000)
    for (const node of nodes) expect(cluster.last(node).members).toEqual(members(...nodes))
    expect(breachesOf(cluster.told())).toEqual([])
  })

  it('does not take a process that has the pid of another one for it', async () => {
    const cluster = new Cluster(1, 0)
    for (const node of ['n1', 'n2']) await cluster.start(node)
    await cluster.pass(10_000)
    const before = cluster.last('n1')
    cluster.kill('n2')
    await cluster.start('n2') // before anybody has noticed the end of the one before
    await cluster.pass(10_000)
    const after = cluster.last('n1')
    expect(after.members).toHaveLength(2)
    expect(after.members).not.toEqual(before.members)
    expect(after.id).not.toBe(before.id)
  })

  it('sends what was sent before there was a configuration as soon as there is one', async () => {
    const cluster = new Cluster(1, 0)
    const process = await cluster.start('n1')
    process.send()
    await cluster.pass(10_000)
    expect(cluster.last('n1').messages).toEqual([{ sender: process.group.self, message: `${process.group.self} 1` }])
  })
})
