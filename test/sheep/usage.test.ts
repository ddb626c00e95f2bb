import { describe, expect, it } from 'vitest'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../src/sheep/object-format.ts'
import { VdiOwner } from '../../src/sheep/owner.ts'
import { answered, SheepBench, VDI_BYTES } from './sheep-bench.ts'
import { StoreBench } from './store-bench.ts'

const blocks = (count: number, fill: number) => Buffer.alloc(count * BLOCK_BYTES, fill)

/** Blocks that a VDI sees, and those that it sees alone. */
async function used(bench: SheepBench, vid: number) {
  const usage = (await bench.run(bench.sheep.usage())).get(vid)!
  expect(usage.isExact).toBe(true)
  expect(usage.sharedBytes).toBe(usage.allocatedBytes - usage.uniqueBytes)
  return { allocated: usage.allocatedBytes / BLOCK_BYTES, unique: usage.uniqueBytes / BLOCK_BYTES }
}

describe('what a VDI takes', () => {
  it('is counted by the block: writes, overwrites, zeroes, unaligned edges, whole objects', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('a')
    const session = bench.session(vid)
    const expectBlocks = async (count: number) => {
      expect(await used(bench, vid)).toEqual({ allocated: count, unique: count })
      expect(bench.sheep.allocatedBytes).toBe(count * BLOCK_BYTES)
    }
    await expectBlocks(0)
    await bench.write(session, OBJECT_BYTES - 2 * BLOCK_BYTES, blocks(5, 1))
    await expectBlocks(5)
    await bench.write(session, OBJECT_BYTES - 2 * BLOCK_BYTES, blocks(5, 2))
    await expectBlocks(5)
    await bench.write(session, 10, Buffer.alloc(BLOCK_BYTES, 3))
    await expectBlocks(7)
    await bench.discard(session, 10, 100)
    await expectBlocks(7)
    await bench.discard(session, 4 * OBJECT_BYTES + 10, 100) // a hole stays one
    await bench.discard(session, 100, 2 * BLOCK_BYTES) // what covers a block only in part leaves it, the rest goes
    await expectBlocks(6)
    await bench.discard(session, OBJECT_BYTES, OBJECT_BYTES)
    await expectBlocks(3)
    await bench.restart()
    await expectBlocks(3)
    expect((await bench.audit()).problems).toEqual([])
  })

  it('shares with snapshots and clones what neither has overwritten', async () => {
    const bench = await SheepBench.open()
    const base = await bench.create('a')
    await bench.write(bench.session(base), 0, blocks(8, 1))
    const working = (await bench.run(bench.sheep.snapshot(base, 'tag'))).vid
    expect(await used(bench, base)).toEqual({ allocated: 8, unique: 0 })
    expect(await used(bench, working)).toEqual({ allocated: 8, unique: 0 })
    await bench.write(bench.session(working), 0, blocks(3, 2))
    expect(await used(bench, base)).toEqual({ allocated: 8, unique: 3 })
    expect(await used(bench, working)).toEqual({ allocated: 8, unique: 3 })

    const clone = (await bench.run(bench.sheep.createVdi('b', VDI_BYTES, base))).vid
    expect(await used(bench, base)).toEqual({ allocated: 8, unique: 0 })
    await bench.write(bench.session(clone), 2 * BLOCK_BYTES, blocks(4, 3))
    // Block 2 is the only one that both have overwritten: numbers do not tell, the blocks do.
    expect(await used(bench, base)).toEqual({ allocated: 8, unique: 1 })
    await bench.discard(bench.session(clone), 0, OBJECT_BYTES)
    expect(await used(bench, clone)).toEqual({ allocated: 0, unique: 0 })
    expect(await used(bench, base)).toEqual({ allocated: 8, unique: 3 })

    await bench.run(bench.sheep.sessions.closeAll())
    await bench.run(bench.sheep.deleteVdi(base))
    await bench.run(bench.sheep.reclaimed())
    expect(await used(bench, working)).toEqual({ allocated: 8, unique: 8 })
    expect(bench.sheep.allocatedBytes).toBe(8 * BLOCK_BYTES)
  })

  it('is after a rollback what the snapshot takes', async () => {
    const bench = await SheepBench.open()
    const base = await bench.create('a')
    await bench.write(bench.session(base), 0, blocks(8, 1))
    const dropped = (await bench.run(bench.sheep.snapshot(base, 'tag'))).vid
    await bench.write(bench.session(dropped), 0, blocks(20, 2))
    await bench.run(bench.sheep.sessions.closeAll())
    const working = (await bench.run(bench.sheep.rollbackVdi(dropped, base))).vid
    await bench.run(bench.sheep.reclaimed())
    expect(await used(bench, working)).toEqual({ allocated: 8, unique: 0 })
    expect(bench.sheep.allocatedBytes).toBe(8 * BLOCK_BYTES)
    await bench.restart()
    expect(await used(bench, working)).toEqual({ allocated: 8, unique: 0 })
    expect((await bench.audit()).problems).toEqual([])
  })

  it('is known of clones of a snapshot that is gone, down to the blocks that one of them sees alone', async () => {
    const bench = await SheepBench.open()
    const base = await bench.create('a')
    await bench.write(bench.session(base), 0, blocks(8, 1))
    const working = (await bench.run(bench.sheep.snapshot(base, 'tag'))).vid
    const clone = (await bench.run(bench.sheep.createVdi('b', VDI_BYTES, base))).vid
    await bench.run(bench.sheep.sessions.closeAll())
    await bench.run(bench.sheep.deleteVdi(base))
    await bench.write(bench.session(working), 0, blocks(3, 2))
    await bench.write(bench.session(clone), 2 * BLOCK_BYTES, blocks(4, 3))
    await bench.run(bench.sheep.reclaimed())
    expect(bench.sheep.allocatedBytes).toBe((8 - 1 + 3 + 4) * BLOCK_BYTES)
    expect(await used(bench, working)).toEqual({ allocated: 8, unique: 3 + 3 })
    expect(await used(bench, clone)).toEqual({ allocated: 8, unique: 4 + 2 })
  })

  it('follows a steady overwrite without a byte in the journal', async () => {
    const bench = await StoreBench.open()
    const owner = new VdiOwner(bench.store, 5, VDI_BYTES)
    const write = (bytes: Buffer) => bench.clock.run(answered((done) => owner.write(0, bytes, true, done)))
    await write(blocks(2, 1))
    let changes = 0
    bench.store.accountListeners.add(() => changes++)
    for (let i = 0; i < 50; i++) await write(blocks(2, i))
    expect(changes).toBe(0)
    await write(blocks(3, 1))
    expect(changes).toBe(1)
  })

  it('is answered at once for ten thousand VDIs, many of one family', async () => {
    const bench = await SheepBench.open({ segmentBytes: 3000 * BLOCK_BYTES })
    const base = await bench.create('base')
    await bench.write(bench.session(base), 0, blocks(4, 1))
    await bench.run(bench.sheep.snapshot(base, 'tag'))
    for (let i = 0; i < 5000; i++) {
      await bench.run(
        Promise.all([bench.sheep.createVdi(`c${i}`, VDI_BYTES, base), bench.sheep.createVdi(`v${i}`, VDI_BYTES, 0)]),
      )
    }
    const startedMs = performance.now()
    const usage = await bench.run(bench.sheep.usage())
    const tookMs = performance.now() - startedMs
    expect(usage.size).toBe(10_002)
    expect(usage.get(base)).toMatchObject({ allocatedBytes: 4 * BLOCK_BYTES, uniqueBytes: 0 })
    expect(tookMs).toBeLessThan(1000)
    console.info({ vdis: usage.size, tookMs })
  }, 120_000)

  it('of a deep chain of snapshots costs memory and journal for what is shared, and is right', async () => {
    const bench = await SheepBench.open({ segmentBytes: 3000 * BLOCK_BYTES })
    let vid = await bench.create('a')
    const vids: number[] = []
    for (let i = 0; i < 100; i++) {
      await bench.write(bench.session(vid), i * BLOCK_BYTES, blocks(2, 1)) // overwrites one of the last snapshot's
      await bench.run(bench.sheep.sessions.closeAll())
      vids.push(vid)
      vid = (await bench.run(bench.sheep.snapshot(vid, `s${i}`))).vid
    }
    expect(await used(bench, vid)).toEqual({ allocated: 101, unique: 0 })
    expect(await used(bench, vids[50]!)).toEqual({ allocated: 52, unique: 1 })
    expect(bench.sheep.allocatedBytes).toBe(200 * BLOCK_BYTES)
  }, 60_000)
})

describe('accounts that are lost', () => {
  it('are counted again by the start, and last', async () => {
    const bench = await SheepBench.open()
    const base = await bench.create('a')
    await bench.write(bench.session(base), 0, blocks(8, 1))
    const working = (await bench.run(bench.sheep.snapshot(base, 'tag'))).vid
    await bench.write(bench.session(working), 0, blocks(3, 2))
    await bench.run(bench.sheep.close())
    const paths = bench.disk.paths().filter((path) => path.startsWith('accounts'))
    expect(paths).toEqual(['accounts'])
    bench.disk.flipBit('accounts', 50)
    for (let start = 0; start < 3; start++) {
      await bench.restart(start === 1 ? 'kill' : 'powerLoss')
      expect(await used(bench, base)).toEqual({ allocated: 8, unique: 3 })
      expect(await used(bench, working)).toEqual({ allocated: 8, unique: 3 })
      expect(bench.sheep.allocatedBytes).toBe(11 * BLOCK_BYTES)
    }
  })
})
