import { expect, it } from 'vitest'
import { runInputs } from '../sim/seeds.ts'
import { JournalFuzz } from './journal-fuzz.ts'
import { ObjectFuzz } from './object-fuzz.ts'

const FILE = 'test/sheep/store-fuzz.test.ts'

it('a damaged journal opens with what was durable, or not at all', async () => {
  const outcomes = { open: 0, cut: 0, refused: 0 }
  await runInputs(FILE, 4000, 250, async (seed, inputs) => {
    const fuzz = new JournalFuzz(seed)
    await fuzz.run(inputs)
    for (const [name, count] of Object.entries(fuzz.outcomes)) outcomes[name as keyof typeof outcomes] += count
  })
  expect(Math.min(...Object.values(outcomes))).toBeGreaterThan(0)
})

it('a damaged object reads as what was written, or as corrupt', async () => {
  const outcomes = { right: 0, corrupt: 0 }
  await runInputs(FILE, 2000, 250, async (seed, inputs) => {
    const fuzz = new ObjectFuzz(seed)
    await fuzz.run(inputs)
    for (const [name, count] of Object.entries(fuzz.outcomes)) outcomes[name as keyof typeof outcomes] += count
  })
  expect(Math.min(...Object.values(outcomes))).toBeGreaterThan(0)
})
