import { randomUUID } from 'node:crypto'
import { expect } from 'vitest'
import { MESSAGE_BYTES_MAX, type MemberId } from '../../../src/sheep/cluster/group.ts'
import type { testUnless } from '../../tools/require-command.ts'
import { breachesOf, periodsOf, type Told } from './group-history.ts'
import type { Burst } from './group-member.ts'

export interface ContractMember {
  readonly self: MemberId
  readonly told: readonly Told[]
  /** Times at which the listener must not be called and was; for a process of its own, as of the last leave or measurement. */
  readonly misuses: readonly string[]
  send(burst: Burst): void
  leave(): Promise<void>
  /** Of the process that it is in, where that is its own. */
  residentBytes?(): Promise<number>
}

/** Where a driver is tested. What it lacks it does not claim, and the tests of it are not made. */
export interface Stage {
  readonly nodes: readonly string[]
  join(node: string, cluster: string): Promise<ContractMember>
  /** Lets things happen until the condition holds; false after a generous time. */
  until(condition: () => boolean): Promise<boolean>
  readonly kill?: (node: string) => Promise<void>
  /** The process stands still, and goes on. */
  readonly stop?: (node: string) => Promise<void>
  readonly resume?: (node: string) => Promise<void>
  readonly cut?: (node: string) => Promise<void>
  readonly heal?: (node: string) => Promise<void>
  /** Whether who is cut off goes on alone, or is told that it is lost. */
  readonly minority?: 'goes on' | 'is lost'
  readonly endEngine?: (node: string) => Promise<void>
  readonly restartEngine?: (node: string) => Promise<void>
}

/** One test's members, in a cluster of its own. */
class Play {
  readonly #stage: Stage
  readonly #cluster = randomUUID()
  readonly members: ContractMember[] = []

  constructor(stage: Stage) {
    this.#stage = stage
  }

  async join(node: string): Promise<ContractMember> {
    const member = await this.#stage.join(node, this.#cluster)
    this.members.push(member)
    return member
  }

  /** On all nodes, and in a configuration of all. */
  async joinAll(): Promise<ContractMember[]> {
    const members = await Promise.all(this.#stage.nodes.map((node) => this.join(node)))
    await this.untilTogether(members)
    return members
  }

  async until(what: string, condition: () => boolean): Promise<void> {
    if (await this.#stage.until(condition)) return
    const told = this.members.map(({ self, told }) => `${self}: ${JSON.stringify(told.slice(-10))}`).join('\n')
    throw new Error(`this was not to be waited for: ${what}\n${told}`)
  }

  /** Until the last configuration of each is the same, and has exactly these. */
  async untilTogether(members: readonly ContractMember[]): Promise<void> {
    const names = members.map(({ self }) => self).sort()
    const isLast = (member: ContractMember) => {
      const last = lastOf(member)
      return (
        last !== undefined && [...last.members].sort().join() === names.join() && last.id === lastOf(members[0]!)!.id
      )
    }
    await this.until(`a configuration of ${names.join(', ')}`, () => members.every(isLast))
  }

  /** Until each has been told the messages with these texts. */
  async untilTold(members: readonly ContractMember[], texts: readonly string[]): Promise<void> {
    const has = (member: ContractMember) => {
      const told = new Set(messagesTo(member))
      return texts.every((text) => told.has(text))
    }
    await this.until(`${texts.length} messages, of which one is ${texts.at(-1)}`, () => members.every(has))
  }

  async end(): Promise<void> {
    for (const member of this.members) {
      const isWell = !member.told.some(({ kind }) => kind === 'lost')
      if (isWell) await member.leave().catch(() => {}) // it may have been killed
    }
    expect(breachesOf(new Map(this.members.map(({ self, told }) => [self, told])))).toEqual([])
    expect(this.members.flatMap(({ misuses }) => misuses)).toEqual([])
    expect(new Set(this.members.map(({ self }) => self)).size).toBe(this.members.length)
  }
}

const lastOf = (member: ContractMember) => periodsOf(member.told).at(-1)
const messagesTo = ({ told }: ContractMember) =>
  told.flatMap((event) => (event.kind === 'delivered' ? event.message : []))
const textsOf = ({ text, count, bytes }: Burst) =>
  Array.from({ length: count }, (_, i) => (bytes === undefined ? `${text} ${i}` : `${text} ${i} (${bytes} bytes)`))

const BURST = 5000
const BURST_BYTES = 200
/** What a member may need more while far more is sent at once than it is willing to keep. */
const FLOOD = 4000
const FLOOD_BYTES_MAX = 192 * 1024 * 1024

/** The tests of `src/sheep/cluster/group.ts`, for a stage that is there when they run. */
export function groupContract(
  test: ReturnType<typeof testUnless>,
  open: () => Stage,
  has: readonly (keyof Stage)[],
): void {
  const play = (name: string, needs: readonly (keyof Stage)[], body: (play: Play, stage: Stage) => Promise<void>) => {
    if (needs.some((need) => !has.includes(need))) return
    test(name, async () => {
      const stage = open()
      for (const need of needs) expect(stage[need]).toBeDefined()
      const play = new Play(stage)
      await body(play, stage)
      await play.end()
    })
  }
  const playWithOthers = (name: string, body: (play: Play, stage: Stage) => Promise<void>) => play(name, ['kill'], body)

  play(
    'who is alone is told a configuration of itself, and its own messages in their order',
    [],
    async (play, stage) => {
      const member = await play.join(stage.nodes[0]!)
      await play.untilTogether([member])
      const burst = { text: 'own', count: 50 }
      member.send(burst)
      await play.untilTold([member], textsOf(burst))
      expect(lastOf(member)!.messages).toEqual(textsOf(burst).map((message) => ({ sender: member.self, message })))
    },
  )

  play('nothing is told after leave', [], async (play, stage) => {
    const member = await play.join(stage.nodes[0]!)
    await play.untilTogether([member])
    member.send({ text: 'late', count: 20 })
    await member.leave()
    const next = await play.join(stage.nodes[0]!)
    await play.untilTogether([next])
    next.send({ text: 'next', count: 1 })
    await play.untilTold([next], ['next 0'])
    expect(messagesTo(next)).toEqual(['next 0'])
  })

  playWithOthers('several that send at once are all told one order, their own messages too', async (play) => {
    const members = await play.joinAll()
    const bursts = members.map(({ self }) => ({ text: self, count: 300 }))
    for (const [index, member] of members.entries()) member.send(bursts[index]!)
    await play.untilTold(members, bursts.flatMap(textsOf))
    const [first, ...others] = members.map((member) => lastOf(member)!.messages)
    for (const messages of others) expect(messages).toEqual(first)
    expect(first).toHaveLength(bursts.length * 300)
  })

  playWithOthers('who joins and who leaves makes a configuration that all have alike', async (play, stage) => {
    const [one, two, three] = stage.nodes as [string, string, string]
    const a = await play.join(one)
    await play.untilTogether([a])
    const b = await play.join(two)
    await play.untilTogether([a, b])
    const c = await play.join(three)
    await play.untilTogether([a, b, c])
    await b.leave()
    await play.untilTogether([a, c])
    a.send({ text: 'after', count: 1 })
    await play.untilTold([a, c], ['after 0'])
    const again = await play.join(two)
    await play.untilTogether([a, c, again])
    expect(again.self).not.toBe(b.self)
    expect(messagesTo(b)).toEqual([])
  })

  playWithOthers('clusters do not hear of each other', async (play, stage) => {
    const other = new Play(stage)
    const [one, two] = stage.nodes as [string, string]
    const members = [await play.join(one), await play.join(two)]
    const others = [await other.join(one), await other.join(two)]
    await play.untilTogether(members)
    await other.untilTogether(others)
    members[0]!.send({ text: 'here', count: 5 })
    others[0]!.send({ text: 'there', count: 5 })
    await play.untilTold(members, textsOf({ text: 'here', count: 5 }))
    await other.untilTold(others, textsOf({ text: 'there', count: 5 }))
    for (const member of members) expect(messagesTo(member)).toHaveLength(5)
    await other.end()
  })

  playWithOthers('messages of the greatest size come as they were sent', async (play) => {
    const members = await play.joinAll()
    const bursts = members.map(({ self }) => ({ text: self, count: 4, bytes: MESSAGE_BYTES_MAX }))
    for (const [index, member] of members.entries()) member.send(bursts[index]!)
    await play.untilTold(members, bursts.flatMap(textsOf))
  })

  playWithOthers(`${BURST} messages that are sent at once are all told`, async (play) => {
    const members = await play.joinAll()
    const burst = { text: 'burst', count: BURST, bytes: BURST_BYTES }
    members[0]!.send(burst)
    await play.untilTold(members, textsOf(burst))
    for (const member of members) expect(lastOf(member)!.messages.map(({ message }) => message)).toEqual(textsOf(burst))
  })

  play('what is too much to be kept is lost, and costs little memory', ['kill', 'endEngine'], async (play) => {
    const members = await play.joinAll()
    const sender = members[0]!
    const before = await sender.residentBytes!()
    sender.send({ text: 'flood', count: FLOOD, bytes: 64 * 1024 })
    const after = await sender.residentBytes!()
    expect(after - before).toBeLessThan(FLOOD_BYTES_MAX)
    await play.until('the first of the flood', () => messagesTo(members[1]!).length > 0)
    let attempts = 0
    await play.until('a message after the flood', () => {
      if (attempts++ % 50 === 0) sender.send({ text: `after ${attempts}`, count: 1 })
      return members.every((member) => messagesTo(member).some((message) => message.startsWith('after')))
    })
    expect(messagesTo(members[1]!).length).toBeLessThan(FLOOD)
  })

  playWithOthers('a process that is killed is gone, and its next start is another member', async (play, stage) => {
    const [a, b, c] = await play.joinAll()
    b!.send({ text: 'before', count: 5 })
    await play.untilTold([a!, c!], textsOf({ text: 'before', count: 5 }))
    await stage.kill!(stage.nodes[1]!)
    await play.untilTogether([a!, c!])
    const again = await play.join(stage.nodes[1]!)
    await play.untilTogether([a!, c!, again])
    again.send({ text: 'again', count: 1 })
    await play.untilTold([a!, c!, again], ['again 0'])
  })

  play(
    'who is cut off is apart from the others, and with them again after the heal',
    ['cut', 'minority'],
    async (play, stage) => {
      if (stage.minority === 'is lost') return isLostWhenCutOff(play, stage)
      const [a, b, c] = await play.joinAll()
      await stage.cut!(stage.nodes[2]!)
      await Promise.all([play.untilTogether([a!, b!]), play.untilTogether([c!])])
      a!.send({ text: 'majority', count: 3 })
      c!.send({ text: 'minority', count: 3 })
      await play.untilTold([a!, b!], textsOf({ text: 'majority', count: 3 }))
      await play.untilTold([c!], textsOf({ text: 'minority', count: 3 }))
      await stage.heal!(stage.nodes[2]!)
      await play.untilTogether([a!, b!, c!])
      c!.send({ text: 'healed', count: 1 })
      await play.untilTold([a!, b!, c!], ['healed 0'])
      expect(messagesTo(a!)).not.toContain('minority 0')
      expect(messagesTo(c!)).not.toContain('majority 0')
      await play.until('the votes of who was cut off', () => {
        const votes = c!.told.flatMap((event) => (event.kind === 'quorate' ? event.isQuorate : []))
        return votes.slice(-2).join() === 'false,true'
      })
    },
  )

  async function isLostWhenCutOff(play: Play, stage: Stage): Promise<void> {
    const [a, b, c] = await play.joinAll()
    await stage.cut!(stage.nodes[2]!)
    c!.send({ text: 'minority', count: 3 })
    await play.untilTogether([a!, b!])
    await play.until('the end of the member that is cut off', () => c!.told.at(-1)?.kind === 'lost')
    await stage.heal!(stage.nodes[2]!)
    const again = await play.join(stage.nodes[2]!)
    await play.untilTogether([a!, b!, again])
    expect(messagesTo(a!)).not.toContain('minority 0')
  }

  play(
    'a process that is stopped holds nobody up, and is among them when it goes on',
    ['stop', 'minority'],
    async (play, stage) => {
      const [one, two, three] = stage.nodes as [string, string, string]
      const a = await play.join(one)
      const b = await play.join(two)
      await play.untilTogether([a, b])
      await stage.stop!(two)
      a.send({ text: 'meanwhile', count: 3 })
      await play.untilTold([a], textsOf({ text: 'meanwhile', count: 3 }))
      const c = await play.join(three)
      await play.until(
        'a configuration with the newcomer',
        () => lastOf(c) !== undefined && lastOf(a)!.id === lastOf(c)!.id,
      )
      if (stage.minority === 'is lost') await play.untilTogether([a, c])
      await stage.resume!(two)
      if (stage.minority === 'goes on') await play.untilTogether([a, b, c])
      else await play.until('the end of who stood still', () => b.told.at(-1)?.kind === 'lost')
    },
  )

  play('the end of the engine is told', ['endEngine', 'restartEngine'], async (play, stage) => {
    const members = await play.joinAll()
    const node = stage.nodes[0]!
    await stage.endEngine!(node)
    await play.until('the end of the engine', () => members[0]!.told.at(-1)?.kind === 'lost')
    members[0]!.send({ text: 'nobody hears it', count: 1 })
    await expect(play.join(node)).rejects.toThrow()
    await stage.restartEngine!(node)
    const again = await play.join(node)
    await play.until(
      'a configuration with the one that is back',
      () => lastOf(again)?.members.includes(again.self) ?? false,
    )
  })
}
