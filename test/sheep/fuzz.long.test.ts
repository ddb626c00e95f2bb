import { describe, expect, it } from 'vitest'
import { SeededRandom } from '../sim/random.ts'
import { runInputs } from '../sim/seeds.ts'
import { bytesInUse } from '../tools/heap.ts'
import { LiveSheep } from '../tools/live-sheep.ts'
import { fuzzFrames } from './frame-fuzz.ts'
import { JournalFuzz } from './journal-fuzz.ts'
import { ObjectFuzz } from './object-fuzz.ts'

/** A million inputs each, or `INPUTS`; no crash, and no memory that stays in use. About ten minutes each on one core. */
const INPUTS = 1_000_000
const FILE = 'test/sheep/fuzz.long.test.ts --config vitest.long.config.ts'
/** What caches, compiled code and counters may come to. A leak of a hundred bytes an input is three times that. */
const GROWTH_MAX_BYTES = 32 << 20

/** Runs rounds of inputs, and compares the memory in use after some of them with that at the end. */
async function fuzz(perSeed: number, round: (seed: number, inputs: number) => Promise<object>): Promise<void> {
  const totals: Record<string, number> = {}
  let rounds = 0
  let usedBytes = 0
  const inputs = await runInputs(FILE, INPUTS, perSeed, async (seed, count) => {
    for (const [name, value] of Object.entries(await round(seed, count))) totals[name] = (totals[name] ?? 0) + value
    if (++rounds === 10) usedBytes = bytesInUse()
  })
  const grownBytes = usedBytes === 0 ? 0 : bytesInUse() - usedBytes
  console.info({ inputs, ...totals, grownBytes })
  expect(grownBytes).toBeLessThan(GROWTH_MAX_BYTES)
}

/** Sessions end with their connections; everything else is removed, and must then be gone. */
async function empty({ sheep }: LiveSheep): Promise<void> {
  while (sheep.sessions.size > 0) await new Promise(setImmediate)
  for (const name of [...sheep.state.locks.keys()]) await sheep.unlock(name)
  for (const attachmentId of [...sheep.state.exports.keys()]) await sheep.removeExport(attachmentId)
  for (const vdi of [...sheep.state.vdis.values()]) if (!vdi.deleting) await sheep.deleteVdi(vdi.vid)
  await sheep.reclaimed()
  expect(sheep.state.vdis.size).toBe(0)
  expect((await sheep.stats()).objects).toBe(0)
}

describe('a million', () => {
  it('frames to one sheep, which keeps nothing of them', async () => {
    const live = await LiveSheep.start()
    try {
      await fuzz(5000, async (seed, inputs) => {
        await fuzzFrames(live, new SeededRandom(seed), inputs)
        expect((await live.sheep.audit()).problems).toEqual([])
        const made = { vdis: live.sheep.state.vdis.size }
        await empty(live)
        return made
      })
    } finally {
      await live.stop()
    }
  })

  it('damaged journals', async () => {
    await fuzz(250, async (seed, inputs) => {
      const journal = new JournalFuzz(seed)
      await journal.run(inputs)
      return journal.outcomes
    })
  })

  it('damaged objects', async () => {
    await fuzz(1000, async (seed, inputs) => {
      const objects = new ObjectFuzz(seed)
      await objects.run(inputs)
      return objects.outcomes
    })
  })
})
