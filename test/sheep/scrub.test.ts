import { describe, expect, it } from 'vitest'
import { dataOid } from '../../src/protocol/oid.ts'
import { BLOCK_BYTES, OBJECT_BYTES, objectPath } from '../../src/sheep/object-format.ts'
import { answered, SheepBench } from './sheep-bench.ts'

const RATE = 64 * 1024
const INTERVAL_MS = 1_000_000
const blocks = (count: number, fill: number) => Buffer.alloc(count * BLOCK_BYTES, fill)

const scrubbing = { scrubBytesPerSecond: RATE, scrubIntervalMs: INTERVAL_MS }

async function sleep(bench: SheepBench, ms: number): Promise<void> {
  await bench.run(bench.clock.mount().sleep(ms))
}

/** Three VDIs of a family with 40 blocks of data in all. */
async function filled(options = {}): Promise<{ bench: SheepBench; base: number; working: number }> {
  const bench = await SheepBench.open({ ...scrubbing, ...options })
  await bench.run(bench.sheep.scrubber.pause())
  const base = await bench.create('a')
  await bench.write(bench.session(base), 0, blocks(20, 1))
  await bench.write(bench.session(base), 3 * OBJECT_BYTES, blocks(10, 2))
  const working = (await bench.run(bench.sheep.snapshot(base, 'tag'))).vid
  await bench.write(bench.session(working), 0, blocks(10, 3))
  return { bench, base, working }
}

/** Starts anew with a change of the disk in between. */
async function restart(bench: SheepBench, change: () => void = () => {}): Promise<void> {
  await bench.run(bench.sheep.close())
  bench.disk.kill()
  change()
  await bench.open()
}

describe('the scrub', () => {
  it('gives back what a crash has left of large writes that it cut off, and nothing that is wanted', async () => {
    let given = 0
    for (let seed = 1; seed <= 6; seed++) {
      const bench = await SheepBench.open({ ...scrubbing, seed, placedMinBytes: 4 * BLOCK_BYTES })
      await bench.run(bench.sheep.scrubber.pause())
      const vid = await bench.create('a')
      const session = bench.session(vid)
      await bench.write(session, 0, blocks(12, 1))
      await restart(bench)
      // The process ends in the middle of a large write that no frame says anything of yet, or loses what is not synced.
      const again = bench.session(vid)
      await bench.write(again, 0, blocks(4, 2))
      const cut = answered((done) => again.write(4 * BLOCK_BYTES, blocks(8, 3), false, done))
      cut.catch(() => {})
      await bench.step(seed % 3)
      await bench.restart('powerLoss')

      const path = objectPath(dataOid(vid, 0))
      const taken = () => [...bench.disk.pagesOf(path).keys()].length
      const [before, content] = [taken(), await bench.read(bench.session(vid), 0, 12 * BLOCK_BYTES)]
      await bench.run(bench.sheep.scrubber.start())
      // Written to while the scrub is at it.
      await bench.write(bench.session(vid), 12 * BLOCK_BYTES, blocks(4, 4))
      await sleep(bench, 2000)
      expect(bench.sheep.scrubber.status.state).toBe('waiting')
      given += before - taken() + 4
      for (const how of ['kill', 'powerLoss'] as const) {
        expect(await bench.read(bench.session(vid), 0, 12 * BLOCK_BYTES)).toEqual(content)
        expect(await bench.read(bench.session(vid), 12 * BLOCK_BYTES, 4 * BLOCK_BYTES)).toEqual(blocks(4, 4))
        await bench.restart(how)
      }
      await bench.run(bench.sheep.close())
      expect(taken()).toBe(16 + 3) // each block once, table and header
    }
    expect(given).toBeGreaterThan(4)
  })

  it('finds rot in a block within a round, and says whose it is', async () => {
    const { bench, base, working } = await filled()
    await restart(bench, () => {
      bench.disk.flipBit(objectPath(dataOid(base, 3)), 4 * BLOCK_BYTES + 5)
      bench.disk.flipBit(objectPath(dataOid(base, 0)), 3 * BLOCK_BYTES + 5)
    })
    await bench.run(bench.sheep.scrubber.start())
    // 40 blocks, and two pages of maps, take less than three seconds at this rate.
    await sleep(bench, 4000)
    const { status } = bench.sheep.scrubber
    expect(status).toMatchObject({ state: 'waiting', findings: 2, lastRoundFindings: 2 })
    expect(status.objectsDone).toBe(status.objectsTotal)
    const at = (snapshot: string, offsetBytes: number) => ({
      vdi: 'a',
      snapshot,
      offsetBytes,
      lengthBytes: BLOCK_BYTES,
    })
    expect(status.damage).toHaveLength(3)
    expect(status.damage).toEqual(
      expect.arrayContaining([
        at('tag', 3 * BLOCK_BYTES), // the working VDI has overwritten that
        at('tag', 3 * OBJECT_BYTES + 4 * BLOCK_BYTES),
        at('', 3 * OBJECT_BYTES + 4 * BLOCK_BYTES),
      ]),
    )
    // Written again by both, it is gone from the next round.
    await bench.write(bench.session(working), 3 * OBJECT_BYTES, blocks(10, 2))
    await bench.run(bench.sheep.sessions.closeAll())
    await bench.run(bench.sheep.deleteVdi(base))
    await bench.run(bench.sheep.reclaimed())
    await bench.run(bench.sheep.scrubber.start())
    await sleep(bench, 4000)
    expect(bench.sheep.scrubber.status).toMatchObject({
      state: 'waiting',
      findings: 0,
      damage: [],
      lastRoundFindings: 0,
    })
  })

  it('reads no faster than it may, at any moment', async () => {
    const { bench } = await filled()
    await restart(bench)
    const startMs = bench.clock.mount().monotonicMs()
    const before = bench.sheep.scrubber.status.bytesRead
    await bench.run(bench.sheep.scrubber.start())
    let readings = 0
    for (; bench.sheep.scrubber.status.state !== 'waiting'; readings++) {
      await sleep(bench, 7)
      const { bytesRead } = bench.sheep.scrubber.status
      const elapsedMs = bench.clock.mount().monotonicMs() - startMs
      // One read, of 64 blocks at most, may be under way before it is paid for.
      expect(bytesRead - before).toBeLessThanOrEqual((elapsedMs * RATE) / 1000 + 64 * BLOCK_BYTES)
    }
    expect(bench.sheep.scrubber.status.bytesRead - before).toBeGreaterThanOrEqual(40 * BLOCK_BYTES)
    expect(readings).toBeGreaterThan(10)
  })

  it('goes round after round, and rests in between', async () => {
    const { bench } = await filled()
    await bench.run(bench.sheep.scrubber.start())
    await sleep(bench, 10_000)
    const { round } = bench.sheep.scrubber.status
    expect(bench.sheep.scrubber.status.state).toBe('waiting')
    await sleep(bench, INTERVAL_MS / 2)
    expect(bench.sheep.scrubber.status.round).toBe(round)
    await restart(bench) // a start is no reason for another round
    await sleep(bench, 1000)
    expect(bench.sheep.scrubber.status).toMatchObject({ state: 'waiting', round })
    await sleep(bench, INTERVAL_MS / 2 + 10_000)
    expect(bench.sheep.scrubber.status).toMatchObject({ state: 'waiting', round: round + 1 })
  })

  it('goes on where it was after a restart, pauses over one, and starts again when its record is damaged', async () => {
    const { bench } = await filled()
    await bench.run(bench.sheep.scrubber.start())
    await sleep(bench, 600)
    const { objectsDone, round } = bench.sheep.scrubber.status
    expect(objectsDone).toBeGreaterThan(0)
    expect(objectsDone).toBeLessThan(bench.sheep.scrubber.status.objectsTotal)
    await restart(bench)
    await sleep(bench, 10_000)
    expect(bench.sheep.scrubber.status).toMatchObject({ state: 'waiting', round })
    // Nothing was read twice: 40 blocks of data, and a page of either map.
    expect(bench.sheep.scrubber.status.bytesRead).toBe(42 * BLOCK_BYTES)

    await bench.run(bench.sheep.scrubber.pause())
    await bench.restart()
    await sleep(bench, 2 * INTERVAL_MS)
    expect(bench.sheep.scrubber.status).toMatchObject({ state: 'paused', round })

    await restart(bench, () => bench.disk.flipBit('scrub', 20))
    await sleep(bench, 10_000)
    expect(bench.sheep.scrubber.status).toMatchObject({ state: 'waiting', round: 1 })
  })

  it('goes on when its record cannot be written, and says so to who asked for something', async () => {
    const { bench } = await filled()
    const { round } = bench.sheep.scrubber.status
    bench.disk.failNextSync = true
    await expect(bench.run(bench.sheep.scrubber.start())).rejects.toThrow('EIO')
    await sleep(bench, 10_000)
    expect(bench.sheep.scrubber.status).toMatchObject({ state: 'waiting', round: round + 1 })
    bench.disk.failNextSync = true
    await sleep(bench, INTERVAL_MS + 10_000)
    expect(bench.disk.failNextSync).toBe(false)
    expect(bench.sheep.scrubber.status).toMatchObject({ state: 'waiting', round: round + 2 })
    await bench.run(bench.sheep.scrubber.pause())
    await bench.restart()
    expect(bench.sheep.scrubber.status).toMatchObject({ state: 'paused', round: round + 2 })
  })

  it('writes to the disk once a minute, however long it takes', async () => {
    const { bench } = await filled({ scrubBytesPerSecond: 512 })
    await bench.run(bench.sheep.scrubber.start())
    let saves = 0
    let last = ''
    for (let s = 0; s < 300; s++) {
      await sleep(bench, 1000)
      const bytes = Buffer.alloc(bench.disk.sizeOf('scrub'))
      await bench.run(
        bench.disk
          .mount()
          .open('scrub')
          .then((file) => file.read(bytes, 0)),
      )
      if (bytes.toString() !== last) saves++
      last = bytes.toString()
    }
    expect(saves).toBeGreaterThan(1)
    expect(saves).toBeLessThan(8)
  })

  it('is off without a rate, and says so', async () => {
    const bench = await SheepBench.open()
    expect(bench.sheep.scrubber.status.state).toBe('off')
    await expect(bench.sheep.scrubber.start()).rejects.toMatchObject({ code: 'InvalidParameters' })
  })
})
