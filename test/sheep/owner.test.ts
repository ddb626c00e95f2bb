import { describe, expect, it } from 'vitest'
import { dataOid } from '../../src/protocol/oid.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../src/sheep/object-format.ts'
import { SeededRandom } from '../sim/random.ts'
import { runSeeds } from '../sim/seeds.ts'
import { answered, SheepBench, VDI_BYTES } from './sheep-bench.ts'

const blocks = (count: number, fill: number) => Buffer.alloc(count * BLOCK_BYTES, fill)

describe('the owner of a VDI', () => {
  it('loses no byte of small writes that meet in the same blocks while everything has to be loaded', async () => {
    await runSeeds('test/sheep/owner.test.ts', 40, async (seed) => {
      const bench = await SheepBench.open({ seed, loadedObjectsMax: 1 })
      const random = new SeededRandom(seed)
      const vid = await bench.create('a')
      const start = OBJECT_BYTES - 2 * BLOCK_BYTES
      const base = Buffer.from(Array.from({ length: 4 * BLOCK_BYTES }, (_, i) => i % 251))
      await bench.write(bench.session(vid), start, base)
      // A snapshot and a restart: what is written lies in objects that inherit, and none is loaded.
      await bench.run(bench.sheep.snapshot(vid, 'tag'))
      await bench.restart()
      bench.disk.faults.wouldBlock = 0.9
      const session = bench.session(bench.sheep.state.find('a').vid)
      const expected = Buffer.from(base)
      const under: Promise<void>[] = []
      for (let at = 0; at < expected.length; ) {
        const length = Math.min(1 + random.below(900), expected.length - at)
        if (random.chance(0.8)) {
          const bytes = random.bytes(length)
          bytes.copy(expected, at)
          under.push(answered((done) => session.write(start + at, bytes, false, done)))
        } else {
          expected.fill(0, at, at + length)
          under.push(answered((done) => session.discard(start + at, length, false, done)))
        }
        at += length
        if (random.chance(0.3)) await bench.step(random.below(10))
      }
      await bench.run(Promise.all(under))
      expect((await bench.read(session, start, expected.length)).equals(expected)).toBe(true)
      expect((await bench.read(bench.session(vid), start, base.length)).equals(base)).toBe(true)
    })
  })

  it('does nothing for a request of no length, anywhere up to the end', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('a')
    const session = bench.session(vid)
    for (const offset of [0, 100, OBJECT_BYTES, VDI_BYTES]) {
      await bench.write(session, offset, Buffer.alloc(0))
      await bench.discard(session, offset, 0)
      await bench.read(session, offset, 0)
    }
    const beyond = bench.write(session, VDI_BYTES + 1, Buffer.alloc(0))
    await expect(beyond).rejects.toMatchObject({ code: 'InvalidParameters' })
    expect((await bench.audit()).objects).toBe(0)
  })

  it('refuses what reaches beyond the end, and does none of it', async () => {
    const bench = await SheepBench.open()
    const session = bench.session(await bench.create('a', OBJECT_BYTES + 1000))
    const last = OBJECT_BYTES + 999
    for (const [offset, length] of [
      [last, 2],
      [VDI_BYTES, 1],
      [-1, 1],
      [2 ** 60, 4096],
      [0, OBJECT_BYTES + 1001],
    ] as const) {
      const refused = { code: 'InvalidParameters' }
      await expect(bench.read(session, offset, length)).rejects.toMatchObject(refused)
      await expect(bench.write(session, offset, Buffer.alloc(length, 1))).rejects.toMatchObject(refused)
      await expect(bench.discard(session, offset, length)).rejects.toMatchObject(refused)
      await expect(session.extents(offset, length)).rejects.toMatchObject(refused)
    }
    await bench.write(session, last, Buffer.of(7))
    expect(await bench.read(session, last, 1)).toEqual(Buffer.of(7))
    expect((await bench.audit()).objects).toBe(2)
  })

  it('tells data from holes, to the block', async () => {
    const bench = await SheepBench.open()
    const session = bench.session(await bench.create('a', 3 * OBJECT_BYTES))
    await bench.write(session, BLOCK_BYTES + 10, Buffer.alloc(10, 1))
    await bench.write(session, OBJECT_BYTES - BLOCK_BYTES, blocks(3, 2))
    await bench.discard(session, OBJECT_BYTES + BLOCK_BYTES - 100, BLOCK_BYTES + 100)
    const extents = await bench.run(session.extents(0, 3 * OBJECT_BYTES))
    expect(extents).toEqual([
      { kind: 'hole', lengthBytes: BLOCK_BYTES },
      { kind: 'data', lengthBytes: BLOCK_BYTES },
      { kind: 'hole', lengthBytes: OBJECT_BYTES - 3 * BLOCK_BYTES },
      { kind: 'data', lengthBytes: 2 * BLOCK_BYTES },
      { kind: 'hole', lengthBytes: 2 * OBJECT_BYTES - BLOCK_BYTES },
    ])
    expect(await bench.run(session.extents(BLOCK_BYTES + 100, 200))).toEqual([{ kind: 'data', lengthBytes: 200 }])
    expect(await bench.run(session.extents(BLOCK_BYTES - 50, 100))).toEqual([
      { kind: 'hole', lengthBytes: 50 },
      { kind: 'data', lengthBytes: 50 },
    ])
    expect(await bench.run(session.extents(3 * OBJECT_BYTES, 0))).toEqual([])
  })

  it('waits for nothing at the first write after a snapshot, though the object before it has to be loaded', async () => {
    const bench = await SheepBench.open({ loadedObjectsMax: 1 })
    const vid = await bench.create('a')
    const session = bench.session(vid)
    for (const index of [0, 1, 2]) await bench.write(session, index * OBJECT_BYTES, blocks(3, index + 1))
    await bench.run(bench.sheep.snapshot(vid, 'tag'))
    await bench.restart()
    bench.disk.faults.wouldBlock = 0
    const current = bench.sheep.state.find('a').vid
    const again = bench.session(current)
    await bench.read(again, 3 * OBJECT_BYTES, 1) // the page of the map
    for (const index of [0, 1, 2]) {
      const opened = bench.disk.opens
      const written = bench.write(again, index * OBJECT_BYTES + BLOCK_BYTES, blocks(1, 9))
      expect(bench.sheep.objects.exists(dataOid(current, index))).toBe(true)
      expect(bench.disk.opens - opened).toBeLessThanOrEqual(2) // of the map and of the object
      await written
    }
    for (const index of [0, 1, 2]) {
      const expected = Buffer.concat([blocks(1, index + 1), blocks(1, 9), blocks(1, index + 1), blocks(1, 0)])
      expect((await bench.read(again, index * OBJECT_BYTES, 4 * BLOCK_BYTES)).equals(expected)).toBe(true)
    }
  })

  it('copies nothing for the first write after a snapshot', async () => {
    const bench = await SheepBench.open({ segmentBytes: 3000 * BLOCK_BYTES })
    bench.disk.capacityBytes = 2 ** 39 // a disk of any other size than the default counts what is used
    const vid = await bench.create('a')
    const session = bench.session(vid)
    await bench.write(session, 0, blocks(1024, 1))
    await bench.run(bench.sheep.close())
    await bench.restart()
    const again = bench.session(vid)
    const before = bench.disk.usedBytes()
    await bench.run(bench.sheep.snapshot(vid, 'tag'))
    await bench.write(again, 5 * BLOCK_BYTES, blocks(1, 2))
    await bench.run(bench.sheep.close())
    expect(bench.disk.usedBytes() - before).toBeLessThan(20 * BLOCK_BYTES)
    await bench.restart()
    const expected = blocks(1024, 1).fill(2, 5 * BLOCK_BYTES, 6 * BLOCK_BYTES)
    const found = await bench.read(bench.session(bench.sheep.state.find('a').vid), 0, OBJECT_BYTES)
    expect(found.equals(expected)).toBe(true)
  })

  it('keeps what a snapshot holds while the VDI it was taken of drops it, and what it was made from is reclaimed', async () => {
    for (let moment = 0; moment < 25; moment++) {
      const bench = await SheepBench.open({ seed: moment, loadedObjectsMax: 1 })
      const vid = await bench.create('a')
      const session = bench.session(vid)
      const all = [0, 1, 2, 3].map((index) => index * OBJECT_BYTES)
      for (const offset of all) await bench.write(session, offset, blocks(1, 10))
      await bench.run(bench.sheep.snapshot(vid, 'first'))
      for (const offset of all) await bench.write(session, offset + BLOCK_BYTES, blocks(1, 20))
      await bench.run(bench.sheep.close())
      await bench.restart()
      const again = bench.session(bench.sheep.state.find('a').vid)
      // The first snapshot goes. Its objects are wanted as long as objects inherit from them.
      await bench.run(bench.sheep.deleteVdi(vid))
      await bench.step(moment)
      const second = again.vid
      await bench.run(bench.sheep.snapshot(second, 'second'))
      const drops = all.map((offset) => answered((done) => again.discard(offset, OBJECT_BYTES, false, done)))
      await bench.run(Promise.all(drops))
      await bench.run(bench.sheep.reclaimed())
      const frozen = bench.session(second)
      for (const offset of all) {
        expect(await bench.read(frozen, offset, 2 * BLOCK_BYTES)).toEqual(Buffer.concat([blocks(1, 10), blocks(1, 20)]))
      }
      expect((await bench.audit()).problems).toEqual([])
    }
  })

  it('answers a read that meets the drop of its object, and the reclaim of what that inherited, without an error', async () => {
    for (let moment = 0; moment < 40; moment++) {
      const bench = await SheepBench.open({ seed: moment, loadedObjectsMax: 1 })
      const vid = await bench.create('a')
      const session = bench.session(vid)
      await bench.write(session, 0, blocks(8, 1))
      await bench.run(bench.sheep.snapshot(vid, 'tag'))
      for (const block of [1, 3, 5]) await bench.write(session, block * BLOCK_BYTES, blocks(1, 2))
      await bench.run(bench.sheep.close())
      await bench.restart()
      bench.disk.faults.wouldBlock = 0.9
      const again = bench.session(bench.sheep.state.find('a').vid)
      const target = blocks(8, 0xee)
      const reading = answered((done) => again.read(0, target, done))
      await bench.step(moment % 20)
      const dropping = answered((done) => again.discard(0, OBJECT_BYTES, false, done))
      await bench.step(moment % 7)
      const deleting = bench.sheep.deleteVdi(vid)
      await bench.run(Promise.all([reading, dropping, deleting]))
      for (let block = 0; block < 8; block++) {
        const was = [1, 3, 5].includes(block) ? 2 : 1
        const found = target[block * BLOCK_BYTES]!
        expect([was, 0]).toContain(found)
        expect(target.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)).toEqual(blocks(1, found))
      }
    }
  })
})

describe('a full disk', () => {
  /** Fills the disk by writing to new objects until one write gets NoSpace; returns how many succeeded. */
  async function fill(bench: SheepBench, session: ReturnType<SheepBench['session']>): Promise<number> {
    for (let written = 0; ; written++) {
      try {
        await bench.write(session, written * 16 * BLOCK_BYTES, blocks(16, 1))
      } catch (error) {
        expect(error).toMatchObject({ code: 'NoSpace' })
        return written
      }
    }
  }

  it('refuses writes that allocate, lets overwrites and deletes go on, and goes on itself once there is room', async () => {
    const bench = await SheepBench.open({ reserveBytes: 80 * BLOCK_BYTES })
    bench.disk.capacityBytes = 1
    bench.disk.capacityBytes = bench.disk.usedBytes() + 400 * BLOCK_BYTES
    await bench.restart('kill')
    const other = await bench.create('other')
    await bench.write(bench.session(other), 0, blocks(40, 3))
    const vid = await bench.create('a')
    const session = bench.session(vid)
    const written = await fill(bench, session)
    expect(written).toBeGreaterThan(2)
    for (let i = 0; i < 30; i++) await bench.write(session, 0, blocks(16, i)) // more than the journal holds
    await expect(bench.write(session, written * 16 * BLOCK_BYTES, blocks(16, 1))).rejects.toMatchObject({
      code: 'NoSpace',
    })
    expect(await bench.read(session, 0, 16 * BLOCK_BYTES)).toEqual(blocks(16, 29))

    await bench.run(bench.sheep.sessions.closeAll())
    await bench.run(bench.sheep.deleteVdi(other))
    await bench.run(bench.sheep.reclaimed())
    const again = bench.session(vid)
    let refusals = 0
    for (; refusals < 20; refusals++) {
      try {
        await bench.write(again, written * 16 * BLOCK_BYTES, blocks(16, 9))
        break
      } catch (error) {
        expect(error).toMatchObject({ code: 'NoSpace' })
        await bench.run(bench.clock.mount().sleep(500))
      }
    }
    expect(refusals).toBeLessThan(20)
    expect(bench.failure).toBeNull()
    expect((await bench.audit()).problems).toEqual([])
  })

  it('that is filled by others stops writes without an end, and lets them go on when those have left', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('a')
    const session = bench.session(vid)
    await bench.write(session, 0, blocks(4, 1))
    bench.disk.capacityBytes = 1
    bench.disk.capacityBytes = bench.disk.usedBytes()
    // The node has not looked since there was room: the checkpoint finds out, and the journal fills up behind it.
    const writes = Array.from({ length: 20 }, (_, i) =>
      answered((done) => session.write((i + 1) * 16 * BLOCK_BYTES, blocks(16, 5), true, done)),
    )
    await bench.step(1500)
    expect(bench.failure).toBeNull()
    bench.disk.capacityBytes = 2 ** 40
    const outcomes = await bench.run(Promise.allSettled(writes))
    expect(outcomes.filter(({ status }) => status === 'fulfilled').length).toBeGreaterThan(2)
    for (const [i, { status }] of outcomes.entries()) {
      const found = await bench.read(session, (i + 1) * 16 * BLOCK_BYTES, 16 * BLOCK_BYTES)
      expect(found).toEqual(blocks(16, status === 'fulfilled' ? 5 : 0))
    }
    expect(bench.failure).toBeNull()
  })
})
