import { describe, expect, it } from 'vitest'
import { runSeeds } from '../../sim/seeds.ts'
import { type MembershipBreak, MembershipModel } from './membership-model.ts'

describe('the membership of a cluster, whatever happens to its nodes', () => {
  it('has one view after the other, nobody that acts outside of the last, and everybody in it when all is mended', {
    timeout: 3_600_000,
  }, async () => {
    const totals = { ...new MembershipModel(0).moments }
    const seeds = await runSeeds('test/sheep/membership/membership.test.ts', 20, async (seed) => {
      const model = new MembershipModel(seed)
      await model.run(150)
      for (const key of Object.keys(totals) as (keyof typeof totals)[]) totals[key] += model.moments[key]
    })
    console.info({ seeds, ...totals })
    expect(Math.min(...Object.values(totals))).toBeGreaterThan(Math.floor(seeds / 20) - 1)
  })
})

const BREAKS: Record<string, MembershipBreak> = {
  'voters acknowledge at once what ends a lease': { holdsNothing: true },
  'members act without a lease': { actsWithoutLease: true },
  'a view is proposed to follow whatever there is by then': { insists: true },
  'two voters change at a time': { leapsVoters: true },
  'another cluster is listened to': { hearsStrangers: true },
  'a node is the same one after it was put out': { staysTheSame: true },
  'heartbeats prove nothing': { provesNothing: true },
}

describe('each rule of the membership, broken on purpose', () => {
  it.each(Object.entries(BREAKS))('%s: found', { timeout: 3_600_000 }, async (_name, broken) => {
    const found = await seedThatFinds(broken)
    console.info({ seeds: found })
    expect(found).toBeLessThanOrEqual(100)
  })
})

async function seedThatFinds(broken: MembershipBreak): Promise<number> {
  for (let seed = 1; seed <= 100; seed++) {
    try {
      await new MembershipModel(seed, broken).run(150)
    } catch {
      return seed
    }
  }
  return Number.POSITIVE_INFINITY
}
