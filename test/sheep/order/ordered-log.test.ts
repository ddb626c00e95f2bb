import { describe, expect, it } from 'vitest'
import { NO_BALLOT } from '../../../src/sheep/order/ballot.ts'
import type { Durable } from '../../../src/sheep/order/machine.ts'
import { runSeeds } from '../../sim/seeds.ts'
import { type Node, OrderModel } from './order-model.ts'

describe('the ordered log on a group that promises little', () => {
  it('is one log on all nodes, keeps what was acknowledged, and goes on when everything is mended', {
    timeout: 3_600_000,
  }, async () => {
    const totals = { ...new OrderModel(0).counts }
    const seeds = await runSeeds('test/sheep/order/ordered-log.test.ts', 100, async (seed) => {
      const model = new OrderModel(seed)
      await model.run(200)
      for (const key of Object.keys(totals) as (keyof typeof totals)[]) totals[key] += model.counts[key]
    })
    console.info({ seeds, ...totals })
    const { kills, powerLosses, blackouts, cuts, stops, engines, electorates, installs } = totals
    const faults = [kills, powerLosses, blackouts, cuts, stops, engines, electorates, installs]
    expect(Math.min(...faults)).toBeGreaterThan(Math.floor(seeds / 100) - 1)
  })

  it('goes on without what one node has, from whom nobody can fetch though the group has it', {
    timeout: 600_000,
  }, async () => {
    for (let seed = 1; seed <= 20; seed++) {
      const model = new OneUnread(seed, {}, 3 + 2 * (seed % 2))
      await model.play(() => model.scenario(100))
    }
  })

  it('goes on at a node that was late, and has promised more than what the others chose', async () => {
    for (let seed = 1; seed <= 20; seed++) {
      const model = new OneLate(seed, {}, 3)
      await model.play(() => model.scenario())
    }
  })
})

/** Cuts have left the last node with a promise above those of all others, and it stands still while they choose. */
class OneLate extends OrderModel {
  async scenario(): Promise<void> {
    for (const node of this.nodes) await this.start(node)
    const late = this.nodes.at(-1)!
    this.stop(late)
    await this.clock.sleep(2000)
    this.resume(late)
    await this.expectProgress()
  }

  protected override founding(node: Node): Durable | undefined {
    if (node !== this.nodes.at(-1)) return super.founding(node)
    const promised = { ...NO_BALLOT, counter: 10 }
    return { promised, adopted: NO_BALLOT, baseIndex: 0, items: [] }
  }
}

/** The group reaches all nodes, and the way that entries are fetched reaches the first one no more. */
class OneUnread extends OrderModel {
  #isUnread = false

  async scenario(steps: number): Promise<void> {
    for (const node of this.nodes) await this.start(node)
    const voters = this.nodes.map(({ name }) => name)
    await this.propose(this.nodes[0]!, 'voters', { voters, afterIndex: 1 })
    await this.expectProgress()
    for (const { process } of this.nodes) process!.state.checkpoint() // all know that these are the voters
    this.#isUnread = true
    for (let step = 0; step < steps; step++) {
      await this.clock.sleep(this.random.next() * 200)
      this.act()
    }
    await this.mendAll()
    await this.expectProgress()
  }

  protected override reach(from: Node, to: Node): boolean {
    return super.reach(from, to) && !(this.#isUnread && to === this.nodes[0])
  }

  /** They stay as they are. */
  protected override changeVoters(): void {}
}
