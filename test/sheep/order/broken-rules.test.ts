import { describe, expect, it } from 'vitest'
import { type Break, OrderModel } from './order-model.ts'

/** Rules of the log, and how they are broken. A check that cannot find any of these proves nothing. */
const BREAKS: Record<string, Break> = {
  'said before it is on disk': { isHasty: true },
  'a node alone is a majority': {
    said: (message, node) =>
      message.type === 'report' ? { ...message, electorates: [{ index: 0, voters: [node] }] } : message,
  },
  'only the newest voters count': {
    said: (message) =>
      message.type === 'report' ? { ...message, electorates: message.electorates.slice(-1) } : message,
  },
  'a choice that need not be the best log': {
    said: (message) =>
      message.type === 'report'
        ? { ...message, adopted: { ...message.adopted, counter: 1, configuration: '' } }
        : message,
  },
  'promises are not written down': {
    written: ({ promised: _promised, ...change }) => change,
  },
}

/** The seed to begin with, where the first one that finds it is far away: one that found it when this was written. */
const FROM: Record<string, number> = { 'only the newest voters count': 170 }
const SEEDS = 200

describe('each rule of the ordered log, broken on purpose', () => {
  it.each(Object.entries(BREAKS))('%s: found', { timeout: 300_000 }, async (name, broken) => {
    const from = FROM[name] ?? 1
    const found = await seedThatFinds(broken, from)
    console.info({ seed: found })
    expect(found).toBeLessThan(from + SEEDS)
  })
})

async function seedThatFinds(broken: Break, from: number): Promise<number> {
  for (let seed = from; seed < from + SEEDS; seed++) {
    try {
      await new OrderModel(seed, broken).run(200)
    } catch {
      return seed
    }
  }
  return Number.POSITIVE_INFINITY
}
