import { expect, it } from 'vitest'
import { torture } from '../tools/torture.ts'

/** `KILLS` and `FIRST_SEED` choose another number and another course. */
const KILLS = Number(process.env.KILLS ?? 60)

it.each(['flush', 'write'] as const)('keeps its promises through many kills, durability %s', async (durability) => {
  const seed = Number(process.env.FIRST_SEED ?? 1)
  const report = await torture({ seed, kills: KILLS, durability })
  console.info({ durability, seed, ...report })
  expect(report.checkpoints).toBeGreaterThan(0)
})
