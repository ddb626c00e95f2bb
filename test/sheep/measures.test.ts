import { expect, it } from 'vitest'
import { BLOCK_BYTES, OBJECT_TAIL_BYTES } from '../../src/sheep/object-format.ts'
import { blocksOf, OBJECT, StoreBench } from './store-bench.ts'

const countOf = ({ counts }: { counts: readonly number[] }) => counts.reduce((sum, count) => sum + count, 0)

it('counts frames, bytes, syncs and checkpoints', async () => {
  const bench = await StoreBench.open()
  await bench.create(OBJECT)
  const before = bench.store.measures()
  const { frames, bytes, syncSeconds, activeBytes } = before.journal
  const syncs = countOf(syncSeconds)
  await bench.write(OBJECT, 0, 1, 2, 3) // a page of records, and three of blocks
  const after = bench.store.measures().journal
  expect(after.frames - frames).toBe(1)
  expect(after.bytes - bytes).toBe(4 * BLOCK_BYTES)
  expect(after.activeBytes - activeBytes).toBe(4 * BLOCK_BYTES)
  expect(countOf(after.syncSeconds) - syncs).toBe(1)
  expect(after.syncSeconds.sum).toBeGreaterThan(0)

  const checkpoints = countOf(before.checkpoints.seconds)
  bench.store.startCheckpoint()
  await bench.close()
  const { seconds, bytes: written } = bench.store.measures().checkpoints
  expect(countOf(seconds) - checkpoints).toBe(1)
  expect(written - before.checkpoints.bytes).toBe(3 * BLOCK_BYTES + OBJECT_TAIL_BYTES)
})

it('tells how much waits for a free segment, and that nothing does when there is one', async () => {
  const bench = await StoreBench.open({ segmentBlocks: 8 })
  await bench.create(OBJECT)
  const object = await bench.clock.run(bench.store.hold(OBJECT))
  const writes = Array.from({ length: 12 }, (_, block) =>
    bench.submit([{ kind: 'blocks', object, first: block, bytes: blocksOf(1, 1, 1) }], { durable: false }),
  )
  bench.store.sync(() => {}) // no time passes, so no checkpoint ends
  expect(bench.store.measures().journal.waiting).toBeGreaterThan(1)
  await bench.clock.run(Promise.all(writes))
  expect(bench.store.measures().journal.waiting).toBe(0)
  expect(bench.store.measures().loadedObjects).toBe(1)
})
