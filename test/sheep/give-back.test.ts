import { describe, expect, it } from 'vitest'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../src/sheep/object-format.ts'
import { answered, SheepBench } from './sheep-bench.ts'

const blocks = (count: number, fill: number) => Buffer.alloc(count * BLOCK_BYTES, fill)

/** A VDI of some full objects, all of it in object files, on a journal that is far from full. */
async function filled(objects: number): Promise<{ bench: SheepBench; vid: number }> {
  const bench = await SheepBench.open({ segmentBytes: 3000 * BLOCK_BYTES })
  bench.disk.capacityBytes = 2 ** 39 // a disk of any other size than the default counts what is used
  const vid = await bench.create('a')
  const session = bench.session(vid)
  for (let index = 0; index < objects; index++) await bench.write(session, index * OBJECT_BYTES, blocks(1024, 1))
  await bench.run(bench.sheep.close())
  await bench.restart()
  return { bench, vid }
}

const sleep = (bench: SheepBench, ms: number) => bench.run(bench.clock.mount().sleep(ms))

const checkpoints = async (bench: SheepBench) => (await bench.run(bench.sheep.stats())).checkpoints

describe('freed space', () => {
  it('is free within a second of a large discard, of whole objects or of blocks', async () => {
    const { bench, vid } = await filled(3)
    const session = bench.session(vid)
    const before = bench.disk.usedBytes()
    await bench.discard(session, 0, OBJECT_BYTES)
    await sleep(bench, 1000)
    expect(before - bench.disk.usedBytes()).toBeGreaterThanOrEqual(OBJECT_BYTES)
    await sleep(bench, 2000)
    await bench.discard(session, OBJECT_BYTES + BLOCK_BYTES, 2 * OBJECT_BYTES - 2 * BLOCK_BYTES)
    await sleep(bench, 1000)
    expect(before - bench.disk.usedBytes()).toBeGreaterThanOrEqual(3 * OBJECT_BYTES - 4 * BLOCK_BYTES)
  })

  it('is free within a minute of a small one', async () => {
    const { bench, vid } = await filled(1)
    const before = bench.disk.usedBytes()
    await bench.discard(bench.session(vid), 5 * BLOCK_BYTES, 3 * BLOCK_BYTES)
    await sleep(bench, 60_000)
    expect(before - bench.disk.usedBytes()).toBeGreaterThanOrEqual(3 * BLOCK_BYTES)
  })

  it('costs a checkpoint every other second at most, however much is discarded', async () => {
    const { bench, vid } = await filled(1)
    const session = bench.session(vid)
    const first = await checkpoints(bench)
    const startMs = bench.clock.mount().monotonicMs()
    for (let i = 0; i < 60; i++) {
      await bench.run(answered((done) => session.write(0, blocks(32, 1), false, done)))
      await bench.discard(session, 0, OBJECT_BYTES)
      await sleep(bench, 100)
    }
    const seconds = (bench.clock.mount().monotonicMs() - startMs) / 1000
    const taken = (await checkpoints(bench)) - first
    expect(taken).toBeGreaterThan(0)
    expect(taken).toBeLessThanOrEqual(seconds / 2 + 2)
  })

  it('is free soon after a delete, and after the last heir of a deleted snapshot has overwritten its blocks', async () => {
    const { bench, vid } = await filled(2)
    const working = (await bench.run(bench.sheep.snapshot(vid, 'tag'))).vid
    const clone = (await bench.run(bench.sheep.createVdi('clone', 0, vid))).vid
    await bench.run(bench.sheep.deleteVdi(vid))
    await bench.run(bench.sheep.reclaimed())
    const before = bench.disk.usedBytes()
    expect(bench.sheep.allocatedBytes).toBe(2 * OBJECT_BYTES)
    // Both let go of half of the first object; all of its blocks but those are still wanted.
    await bench.discard(bench.session(working), 0, OBJECT_BYTES / 2)
    await bench.discard(bench.session(clone), 0, OBJECT_BYTES / 2)
    await sleep(bench, 40_000)
    expect(bench.sheep.allocatedBytes).toBe(1.5 * OBJECT_BYTES)
    expect(before - bench.disk.usedBytes()).toBeGreaterThan(OBJECT_BYTES / 2 - 40 * BLOCK_BYTES)
    await bench.run(bench.sheep.sessions.closeAll())
    for (const gone of [working, clone]) await bench.run(bench.sheep.deleteVdi(gone))
    await sleep(bench, 10_000)
    expect(bench.sheep.allocatedBytes).toBe(0)
    expect(before - bench.disk.usedBytes()).toBeGreaterThanOrEqual(2 * OBJECT_BYTES)
  })
})
