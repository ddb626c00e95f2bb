import { describe, expect, it } from 'vitest'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../src/sheep/object-format.ts'
import { SheepBench } from './sheep-bench.ts'

const OBJECTS = 8
const SIZE_BYTES = OBJECTS * OBJECT_BYTES
const blocks = (count: number, fill: number) => Buffer.alloc(count * BLOCK_BYTES, fill)

/** A VDI with data in all its objects, and a chain of snapshots before each of which two blocks of two objects were written. */
async function chain(snapshots: number): Promise<{ bench: SheepBench; vids: number[] }> {
  const bench = await SheepBench.open({ segmentBytes: 600 * BLOCK_BYTES })
  let vid = await bench.create('a', SIZE_BYTES)
  for (let index = 0; index < OBJECTS; index++) {
    await bench.write(bench.session(vid), index * OBJECT_BYTES, blocks(4, 1))
  }
  const vids: number[] = []
  for (let i = 0; i < snapshots; i++) {
    for (const index of [i % OBJECTS, (i + 3) % OBJECTS]) {
      await bench.write(bench.session(vid), index * OBJECT_BYTES + (i % 4) * BLOCK_BYTES, blocks(1, 2))
    }
    await bench.run(bench.sheep.sessions.closeAll())
    vids.push(vid)
    vid = (await bench.run(bench.sheep.snapshot(vid, `s${i}`))).vid
  }
  return { bench, vids }
}

/** Files that the store looks into while it deletes a snapshot and reclaims what that leaves, with nothing loaded before. */
async function costOfDelete({ bench, vids }: { bench: SheepBench; vids: number[] }): Promise<number> {
  await bench.run(bench.sheep.close())
  await bench.restart()
  const before = bench.disk.opens
  await bench.run(bench.sheep.deleteVdi(vids[Math.floor(vids.length / 2)]!))
  await bench.run(bench.sheep.reclaimed())
  return bench.disk.opens - before
}

describe('the cost of a delete', () => {
  it('of one snapshot does not depend on how many the family has', async () => {
    const few = await costOfDelete(await chain(10))
    const many = await costOfDelete(await chain(100))
    // Its own map and two objects, the map of its heir and what that has in their place, and the files of a checkpoint.
    expect(few).toBeLessThan(20)
    expect(many).toBeLessThanOrEqual(few + 2)
  }, 120_000)

  it('is the same until it is acknowledged, whether the VDI is empty, small, large or full', async () => {
    const costs: number[] = []
    for (const [sizeBytes, objects] of [
      [2 ** 30, 0],
      [2 ** 40, 0],
      [2 ** 40, 300],
    ] as const) {
      const bench = await SheepBench.open({ segmentBytes: 600 * BLOCK_BYTES })
      const vid = await bench.create('a', sizeBytes)
      for (let i = 0; i < objects; i++) await bench.write(bench.session(vid), i * 800 * OBJECT_BYTES, blocks(1, 1))
      await bench.run(bench.sheep.sessions.closeAll())
      await bench.run(bench.sheep.close())
      await bench.restart()
      const [opens, startMs] = [bench.disk.opens, bench.clock.mount().monotonicMs()]
      await bench.run(bench.sheep.deleteVdi(vid))
      costs.push(bench.clock.mount().monotonicMs() - startMs)
      expect(bench.disk.opens - opens).toBeLessThanOrEqual(2) // the reclaim that begins at once may have come so far
      await bench.run(bench.sheep.reclaimed())
      expect((await bench.run(bench.sheep.stats())).objects).toBe(0)
    }
    const [small, large, full] = costs
    // The virtual time of one transaction with a sync: a few operations of the device, 2 ms at most each.
    for (const cost of [small!, large!, full!]) expect(cost).toBeLessThan(20)
  }, 120_000)

  it('ends, also when the power fails again and again on the way', async () => {
    const objects = 40
    for (let moment = 1; moment <= 12; moment++) {
      const bench = await SheepBench.open({ seed: moment })
      const vid = await bench.create('a', 2 ** 40)
      for (let i = 0; i < objects; i++) await bench.write(bench.session(vid), i * 900 * OBJECT_BYTES, blocks(1, 1))
      await bench.run(bench.sheep.sessions.closeAll())
      await bench.run(bench.sheep.deleteVdi(vid))
      for (let failures = 0; failures < 5; failures++) {
        await bench.step(moment * 5)
        await bench.restart()
      }
      // A bound in events of the disk: each object is removed once, and each page of the map is read once.
      let events = 0
      for (; bench.sheep.state.vdis.size > 0; events++) await bench.step(1)
      expect(events).toBeLessThan(20 * objects)
      expect((await bench.audit()).objects).toBe(0)
      expect(bench.sheep.allocatedBytes).toBe(0)
    }
  }, 120_000)
})
