import { describe, expect, it } from 'vitest'
import { BLOCK_BYTES } from '../../src/sheep/object-format.ts'
import { SheepBench } from './sheep-bench.ts'

const SEGMENT_BLOCKS = 320
/** A sixteenth of a segment. */
const MUCH_BLOCKS = 20
const LARGE_BLOCKS = 32

const blocks = (count: number, fill: number) => Buffer.alloc(count * BLOCK_BYTES, fill)

const sleep = (bench: SheepBench, ms: number) => bench.run(bench.clock.mount().sleep(ms))

const checkpoints = async (bench: SheepBench) => (await bench.run(bench.sheep.stats())).checkpoints

/** A sheep with one VDI, and nothing in its journal. */
async function open() {
  const bench = await SheepBench.open({
    segmentBytes: SEGMENT_BLOCKS * BLOCK_BYTES,
    placedMinBytes: LARGE_BLOCKS * BLOCK_BYTES,
  })
  const session = bench.session(await bench.create('a'))
  await bench.write(session, 0, blocks(MUCH_BLOCKS, 1))
  await sleep(bench, 200_000)
  expect(bench.sheep.measures().journal.activeBytes).toBe(0)
  return { bench, session, before: await checkpoints(bench) }
}

describe('an idle store', () => {
  it('has brought much into the object files within seconds, and then does nothing', async () => {
    const { bench, session, before } = await open()
    await bench.write(session, 0, blocks(MUCH_BLOCKS, 2))
    await sleep(bench, 4000)
    expect(await checkpoints(bench)).toBe(before + 1)
    expect(bench.sheep.measures().journal.activeBytes).toBe(0)
    await sleep(bench, 3_600_000)
    expect(await checkpoints(bench)).toBe(before + 1)
    expect(await bench.read(session, 0, MUCH_BLOCKS * BLOCK_BYTES)).toEqual(blocks(MUCH_BLOCKS, 2))
  })

  it('does so with little after a minute, and not before', async () => {
    const { bench, session, before } = await open()
    await bench.write(session, 0, blocks(1, 2))
    await sleep(bench, 50_000)
    expect(await checkpoints(bench)).toBe(before)
    await sleep(bench, 20_000)
    expect(await checkpoints(bench)).toBe(before + 1)
  })

  it('does nothing as long as somebody writes, and nothing for who writes a block every few seconds', async () => {
    const { bench, session, before } = await open()
    for (let i = 0; i < 20; i++) {
      await bench.write(session, 0, blocks(2, i))
      await sleep(bench, 400)
    }
    expect(await checkpoints(bench)).toBe(before)
    await sleep(bench, 10_000)
    expect(await checkpoints(bench)).toBe(before + 1)
    for (let i = 0; i < MUCH_BLOCKS - 1; i++) {
      await bench.write(session, 0, blocks(1, i))
      await sleep(bench, 5000)
    }
    expect(await checkpoints(bench)).toBe(before + 1)
  })

  it('leaves large writes where they are', async () => {
    const { bench, session, before } = await open()
    for (let i = 0; i < 3; i++) await bench.write(session, 0, blocks(LARGE_BLOCKS, i))
    await sleep(bench, 30_000)
    expect(await checkpoints(bench)).toBe(before)
  })
})
