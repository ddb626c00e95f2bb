import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { AccountLog } from '../../src/sheep/account-log.ts'
import { AccountImages, Accounts } from '../../src/sheep/accounts.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../src/sheep/object-format.ts'
import { SimClock } from '../sim/clock.ts'
import { SimDisk } from '../sim/disk.ts'
import { SeededRandom } from '../sim/random.ts'
import { SheepBench } from './sheep-bench.ts'

const STORE_ID = Buffer.alloc(16, 7)

class Bench {
  readonly clock: SimClock
  readonly disk: SimDisk

  constructor(seed = 1) {
    const random = new SeededRandom(seed)
    this.clock = new SimClock(random)
    this.disk = new SimDisk(random, this.clock)
  }

  open(generation: number, storeId = STORE_ID) {
    return this.clock.run(AccountLog.open(this.disk.mount(), storeId, generation))
  }
}

/** An account as text, in order. */
const said = (accounts: Accounts) =>
  [...accounts.images()].map(({ vid, blocks }) => `${vid} ${[...blocks].sort((a, b) => a[0] - b[0])}`).sort()

describe('accounts', () => {
  it('never fall below zero, and forget what is nothing', () => {
    const accounts = new Accounts()
    accounts.add(5, new Map([[5, 3]]))
    expect(accounts.add(5, new Map([[5, -4]])).blocks).toEqual([[5, 0]])
    expect([...accounts.images()]).toEqual([])
    expect(accounts.of(5).size).toBe(0)
  })

  it('say the same however often the images of a generation are applied', () => {
    const change = fc.record({
      vid: fc.nat({ max: 3 }),
      whole: fc.boolean(),
      lines: fc.array(fc.tuple(fc.nat({ max: 3 }), fc.nat({ max: 5 })), { maxLength: 3 }),
    })
    fc.assert(
      fc.property(fc.array(change, { maxLength: 20 }), (changes) => {
        const accounts = new Accounts()
        const images = new AccountImages()
        for (const { vid, whole, lines } of changes) {
          const blocks = [...new Map(lines)]
          images.put(whole ? accounts.replace(vid, new Map(blocks)) : accounts.add(vid, new Map(blocks)))
        }
        const replayed = new Accounts()
        for (let i = 0; i < 2; i++) for (const image of images) replayed.apply(image)
        expect(said(replayed)).toEqual(said(accounts))
      }),
    )
  })
})

describe('the file of the accounts', () => {
  it('has at each start what the generation of the superblock left, after a crash at any moment', async () => {
    for (let seed = 1; seed <= 60; seed++) {
      const bench = new Bench(seed)
      const random = new SeededRandom(seed)
      const accounts = new Accounts()
      /** What was said at the end of each generation. */
      const history = [said(accounts)]
      let generation = 0
      let found = await bench.open(0)
      for (let step = 0; step < 40; step++) {
        const images = new AccountImages()
        for (let i = random.below(4); i > 0; i--) {
          const vid = random.below(5)
          const lines = new Map([[random.below(300), 1 + random.below(9)]])
          images.put(random.chance(0.2) ? accounts.replace(vid, lines) : accounts.add(vid, lines))
        }
        const appending = found.log.append(generation + 1, images)
        history[generation + 1] = said(accounts)
        if (random.chance(0.8)) {
          await bench.clock.run(appending)
          generation++ // the superblock names it
          continue
        }
        for (let i = random.below(6); i > 0; i--) {
          await new Promise<void>((resolve) => setImmediate(resolve))
          bench.clock.step()
        }
        if (random.chance(0.5)) bench.disk.powerLoss()
        else bench.disk.kill()
        found = await bench.open(generation)
        expect(found.known).toBe(true)
        expect(said(found.accounts)).toEqual(history[generation])
        accounts.clear()
        for (const image of found.accounts.images()) accounts.apply(image)
      }
    }
  })

  it('does not grow without an end', async () => {
    const bench = new Bench()
    const { log } = await bench.open(0)
    const accounts = new Accounts()
    for (let generation = 1; generation <= 4000; generation++) {
      const images = new AccountImages()
      images.put(accounts.add(generation % 7, new Map([[generation % 5, 1]])))
      await bench.clock.run(log.append(generation, images))
      expect(bench.disk.sizeOf('accounts')).toBeLessThan(100_000)
    }
    bench.disk.powerLoss()
    const found = await bench.open(4000)
    expect(found.known).toBe(true)
    expect(said(found.accounts)).toEqual(said(accounts))
  })

  it('is not believed when any bit of it is another, when it is missing, old, or of another store', async () => {
    const image = { kind: 'account', vid: 3, whole: false, blocks: [[3, 9]] } as const
    const written = async () => {
      const bench = new Bench()
      const { log } = await bench.open(0)
      for (const generation of [1, 2]) await bench.clock.run(log.append(generation, [image]))
      bench.disk.kill()
      return bench
    }
    const sizeBytes = (await written()).disk.sizeOf('accounts')
    for (let at = 0; at < sizeBytes; at++) {
      const bench = await written()
      bench.disk.flipBit('accounts', at)
      expect((await bench.open(2)).known, `byte ${at}`).toBe(false)
    }
    expect((await (await written()).open(3)).known).toBe(false)
    expect((await (await written()).open(2, Buffer.alloc(16, 8))).known).toBe(false)
    expect((await new Bench().open(1)).known).toBe(false)
    expect((await (await written()).open(2)).known).toBe(true)
  })

  it('that was lost says nothing until somebody has counted, and then everything', async () => {
    const bench = new Bench()
    const image = (vid: number, whole: boolean) => ({ kind: 'account', vid, whole, blocks: [[vid, 1]] }) as const
    const { log, known } = await bench.open(7)
    expect(known).toBe(false)
    await bench.clock.run(log.append(8, [image(1, false)]))
    bench.disk.powerLoss()
    const again = await bench.open(8)
    expect(again.known).toBe(false)
    await bench.clock.run(again.log.append(9, [image(1, true)]))
    again.log.trust(10)
    await bench.clock.run(again.log.append(10, [image(2, true)]))
    await bench.clock.run(again.log.append(11, []))
    bench.disk.powerLoss()
    const found = await bench.open(11)
    expect(found.known).toBe(true)
    expect(said(found.accounts)).toEqual(['1 1,1', '2 2,1'])
  })
})

it('counts again what all snapshots of a long row hold, though the journal is too small for that in one piece', async () => {
  const bench = await SheepBench.open({ segmentBytes: 20 * BLOCK_BYTES })
  const snapshots = 100
  const vid = await bench.create('disk', snapshots * OBJECT_BYTES)
  const session = bench.session(vid)
  for (let i = 0; i < snapshots; i++) {
    await bench.write(session, i * OBJECT_BYTES, Buffer.alloc(BLOCK_BYTES, 1))
    await bench.run(bench.sheep.snapshot(session.vid, `snapshot ${i}`))
  }
  const before = bench.sheep.allocatedBytes
  await bench.run(bench.sheep.close())
  bench.disk.kill()
  bench.disk.remove('accounts')
  await bench.open()
  expect(bench.sheep.allocatedBytes).toBe(before)
  expect((await bench.audit()).problems).toEqual([])
})
