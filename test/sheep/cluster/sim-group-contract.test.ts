import { describe } from 'vitest'
import { SimClock } from '../../sim/clock.ts'
import { SimGroup } from '../../sim/group.ts'
import { SeededRandom } from '../../sim/random.ts'
import { skipUnless } from '../../tools/require-command.ts'
import { type ContractMember, groupContract, type Stage } from './group-contract.ts'
import { LocalMember } from './group-member.ts'

const NODES = ['n1', 'n2', 'n3']
const EVENTS_MAX = 200_000
const EVENTS_PER_CHECK = 50 // a check may look at thousands of messages

class SimStage implements Stage {
  readonly nodes = NODES
  readonly minority = 'goes on'
  readonly #random: SeededRandom
  readonly #clock: SimClock
  readonly #groups = new Map<string, SimGroup>()

  constructor(seed: number) {
    this.#random = new SeededRandom(seed)
    this.#clock = new SimClock(this.#random)
  }

  async join(node: string, cluster: string): Promise<ContractMember> {
    const group = this.#groups.get(cluster) ?? new SimGroup(this.#clock, this.#random, { votes: NODES })
    this.#groups.set(cluster, group)
    const member = await this.#clock.run(LocalMember.join((listener) => group.join(node, listener)))
    return {
      self: member.self,
      told: member.told,
      misuses: member.misuses,
      send: (burst) => member.send(burst),
      leave: () => this.#clock.run(member.leave()),
    }
  }

  async until(condition: () => boolean): Promise<boolean> {
    for (let count = 0; count < EVENTS_MAX; count++) {
      await new Promise<void>((resolve) => setImmediate(resolve))
      if (count % EVENTS_PER_CHECK === 0 && condition()) return true
      if (!this.#clock.step()) return condition()
    }
    return false
  }

  #each(act: (group: SimGroup) => void): void {
    for (const group of this.#groups.values()) act(group)
  }

  readonly kill = async (node: string) => this.#each((group) => group.kill(node))
  readonly stop = async (node: string) => this.#each((group) => group.stop(node))
  readonly resume = async (node: string) => this.#each((group) => group.resume(node))
  readonly heal = async () => this.#each((group) => group.heal())
  readonly cut = async (node: string) =>
    this.#each((group) => group.partition([NODES.filter((other) => other !== node), [node]]))
}

describe.each([1, 2])('the simulated group, seed %d', (seed) => {
  const stage = new SimStage(seed)
  groupContract(skipUnless(false), () => stage, ['kill', 'stop', 'resume', 'cut', 'heal', 'minority'])
})
