import { expect, it } from 'vitest'
import { torture } from '../tools/torture.ts'

/** With flushes each moment once, and once more while writing; the others while writing and while starting. */
const KILLS = { flush: 5, write: 3 }

it.each(['flush', 'write'] as const)('keeps its promises through kills, durability %s', async (durability) => {
  const seed = Number(process.env.FIRST_SEED ?? 1)
  const report = await torture({ seed, kills: KILLS[durability], durability })
  console.info({ durability, seed, ...report })
  expect(report.writesAcknowledged).toBeGreaterThan(100)
  expect(report.snapshotsChecked).toBeGreaterThan(0)
})
