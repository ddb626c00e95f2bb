import { crc32 } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import {
  BLOCK_BYTES,
  encodeHeader,
  HEADER_OFFSET,
  inheritWord1,
  OBJECT_BYTES,
  objectPath,
  oidWords,
  TABLE_BYTES,
  TABLE_OFFSET,
} from '../../src/sheep/object-format.ts'
import type { Change } from '../../src/sheep/object-store.ts'
import { onFiles } from '../sim/on-files.ts'
import { blocksOf, OBJECT, StoreBench } from './store-bench.ts'

/**
 * What a single node promises about its disk, one test for each promise: what may be lost in a crash, what rot may do,
 * what a failing or a full disk may do, and what a start refuses.
 */

/** Makes superblocks and frames what they were before there were copies: format 2, and frames of format 3. */
async function asFormatBefore(bench: StoreBench): Promise<void> {
  const read = async (path: string, length: number) => {
    const bytes = Buffer.alloc(length)
    await bench.clock.run(
      bench.disk
        .mount()
        .open(path)
        .then((file) => file.read(bytes, 0)),
    )
    return bytes
  }
  const slots = await read('superblock', 8192)
  for (const slot of [slots.subarray(0, 4096), slots.subarray(4096)]) {
    if (slot.readUInt32LE(0) === 0) continue
    slot.writeUInt32LE(2, 4)
    slot.fill(0, 76)
    slot.writeUInt32LE(crc32(slot.subarray(0, 76)), 76)
  }
  await bench.patch('superblock', 0, slots)
  for (const path of ['journal.0', 'journal.1']) {
    const pages = await read(path, bench.disk.sizeOf(path))
    for (let at = 0; at < pages.length; at += BLOCK_BYTES) {
      if (pages.toString('latin1', at, at + 4) !== 'CJrn') continue
      const meta = pages.subarray(at, at + pages.readUInt32LE(at + 52) * BLOCK_BYTES)
      meta.writeUInt32LE(3, 4)
      meta.writeUInt32LE(crc32(meta.subarray(72), crc32(meta.subarray(0, 68))), 68)
    }
    await bench.patch(path, 0, pages)
  }
}

const PATH = objectPath(OBJECT)
const corrupt = { code: 'CorruptBlock' }

describe('the journal after a loss of power', () => {
  it('loses what was not durable as a torn tail, and never what was', async () => {
    let lost = 0
    for (let seed = 1; seed <= 60; seed++) {
      const bench = await StoreBench.open({ seed })
      await bench.create(OBJECT)
      await bench.write(OBJECT, 0, 1, 1)
      const object = await bench.clock.run(bench.store.hold(OBJECT))
      for (const fill of [2, 3, 4]) {
        const change = { kind: 'blocks' as const, object, first: 0, bytes: blocksOf(fill, fill) }
        await bench.commit([change], { durable: false })
      }
      await bench.restart('powerLoss')
      const [first, second] = (await bench.read(OBJECT, 0, 2)).filter((_, at) => at % BLOCK_BYTES === 0)
      expect([1, 2, 3, 4]).toContain(first)
      expect(second).toBe(first) // a transaction is there as a whole or not at all
      if (first !== 4) lost++
    }
    expect(lost).toBeGreaterThan(10)
  })

  it('loses nothing at all when only the process ends', async () => {
    const bench = await StoreBench.open()
    await bench.create(OBJECT)
    const object = await bench.clock.run(bench.store.hold(OBJECT))
    await bench.commit([{ kind: 'blocks', object, first: 3, bytes: blocksOf(7) }], { durable: false })
    await bench.restart('kill')
    expect(await bench.read(OBJECT, 3)).toEqual(blocksOf(7))
    await bench.restart('powerLoss') // what a start has answered reads with is durable
    expect(await bench.read(OBJECT, 3)).toEqual(blocksOf(7))
  })

  it('does not survive in the durability `write` without being read by anybody', async () => {
    for (let seed = 1; seed <= 40; seed++) {
      const bench = await StoreBench.open({ seed, durability: 'write' })
      await bench.create(OBJECT)
      const object = await bench.clock.run(bench.store.hold(OBJECT))
      const writing = bench.submit([{ kind: 'blocks', object, first: 0, bytes: blocksOf(9) }], { durable: false })
      writing.catch(() => {})
      const seen = (await bench.read(OBJECT, 0))[0]
      await bench.restart('powerLoss')
      if (seen === 9) expect(await bench.read(OBJECT, 0)).toEqual(blocksOf(9))
    }
  })
})

describe('rot in the journal', () => {
  it('below the mark of what was synced is refused loudly, wherever it is, and nothing is overwritten', async () => {
    for (let page = 0; page < 4; page++) {
      const bench = await StoreBench.open({ seed: page })
      await bench.create(OBJECT) // page 0
      await bench.write(OBJECT, 0, 1, 2) // pages 1 to 3
      await bench.write(OBJECT, 5, 3) // says that the frames before are synced
      bench.disk.kill()
      bench.disk.flipBit('journal.0', page * BLOCK_BYTES + 40)
      const before = await bench.image()
      await expect(bench.open()).rejects.toMatchObject(corrupt)
      bench.disk.kill()
      expect(await bench.image()).toEqual(before)
    }
  })

  it('met by a read is an error, and the rest can be read', async () => {
    const bench = await StoreBench.open()
    await bench.create(OBJECT)
    await bench.write(OBJECT, 0, 1, 2)
    bench.disk.flipBit('journal.0', 2 * BLOCK_BYTES + 99) // the first of the two blocks
    await expect(bench.read(OBJECT, 0)).rejects.toMatchObject(corrupt)
    await expect(bench.read(OBJECT, 0, 2)).rejects.toMatchObject(corrupt)
    expect(await bench.read(OBJECT, 1)).toEqual(blocksOf(2))
    expect(await bench.corruptBlocks()).toBe(2)
    expect(bench.failure).toBeNull()
  })
})

describe('rot in an object file', () => {
  async function settled(): Promise<StoreBench> {
    const bench = await StoreBench.open()
    await bench.create(OBJECT)
    await bench.write(OBJECT, 0, 1, 2, 3)
    await bench.close()
    return bench
  }

  it('in a block is an error for that block, counted, and heals when the block is written', async () => {
    const bench = await settled()
    bench.disk.flipBit(PATH, BLOCK_BYTES + 1234)
    await bench.open()
    await expect(bench.read(OBJECT, 1)).rejects.toMatchObject(corrupt)
    await expect(bench.read(OBJECT, 0, 3)).rejects.toMatchObject(corrupt)
    expect(await bench.corruptBlocks()).toBe(2)
    expect(await bench.read(OBJECT, 0)).toEqual(blocksOf(1))
    expect(await bench.read(OBJECT, 2)).toEqual(blocksOf(3))
    await bench.write(OBJECT, 1, 8)
    await bench.settle()
    expect(await bench.read(OBJECT, 0, 3)).toEqual(blocksOf(1, 8, 3))
  })

  it('in any bit of an entry of the table is an error for that block, whether it holds data or a hole', async () => {
    for (const [block, isHole] of [
      [1, false],
      [100, true],
    ] as const) {
      for (let byte = 0; byte < 8; byte++) {
        const bench = await settled()
        bench.disk.flipBit(PATH, TABLE_OFFSET + block * 8 + byte)
        await bench.open()
        await expect(bench.read(OBJECT, block)).rejects.toMatchObject(corrupt)
        expect(await bench.read(OBJECT, isHole ? 101 : 2)).toEqual(blocksOf(isHole ? 0 : 3))
      }
    }
  })

  it('that zeroes the table is rot, and not an object full of holes', async () => {
    const bench = await settled()
    await bench.patch(PATH, TABLE_OFFSET, Buffer.alloc(TABLE_BYTES))
    await bench.open()
    for (const block of [0, 1, 500, 1023]) await expect(bench.read(OBJECT, block)).rejects.toMatchObject(corrupt)
  })

  it('that brings back an old block, or the block of another place or object, is rot', async () => {
    const other = OBJECT + 1n
    const bench = await StoreBench.open()
    await bench.create(OBJECT, other)
    await bench.write(OBJECT, 0, 1, 1)
    await bench.write(other, 0, 2)
    await bench.write(OBJECT, 0, 3)
    await bench.close()
    await bench.patch(PATH, 0, blocksOf(1))
    await bench.open()
    await expect(bench.read(OBJECT, 0)).rejects.toMatchObject(corrupt)
    expect(await bench.read(OBJECT, 1)).toEqual(blocksOf(1))
    await bench.close()
    await bench.patch(PATH, BLOCK_BYTES, blocksOf(2))
    await bench.open()
    await expect(bench.read(OBJECT, 1)).rejects.toMatchObject(corrupt)
  })

  it('that makes an object inherit from itself is rot, and not a read without end', async () => {
    const bench = await settled()
    const vid = Number(OBJECT >> 32n)
    const entry = Buffer.alloc(8)
    entry.writeUInt32LE(vid, 0)
    entry.writeUInt32LE(inheritWord1(oidWords(OBJECT), 1, vid), 4)
    await bench.patch(PATH, TABLE_OFFSET + 8, entry)
    await bench.open()
    await expect(bench.read(OBJECT, 1)).rejects.toMatchObject(corrupt)
    expect(await bench.read(OBJECT, 0)).toEqual(blocksOf(1))
  })

  it('in the header is an error for the object, counted; other objects are not concerned', async () => {
    for (let byte = 0; byte < 56; byte += 5) {
      const bench = await settled()
      bench.disk.flipBit(PATH, HEADER_OFFSET + byte)
      await bench.open()
      await expect(bench.read(OBJECT, 0)).rejects.toMatchObject(corrupt)
      expect(await bench.corruptBlocks()).toBe(1)
      await bench.create(OBJECT + 1n)
      await bench.write(OBJECT + 1n, 0, 4)
      await bench.settle()
      expect(await bench.read(OBJECT + 1n, 0)).toEqual(blocksOf(4))
    }
  })

  it('that puts a whole object in the place of another, or of another store, is seen', async () => {
    const storeId = Buffer.alloc(16, 0xcc)
    for (const header of [
      { oid: OBJECT + 1n, version: 2 },
      { oid: OBJECT, version: 2, storeId },
    ]) {
      const bench = await settled()
      const own = Buffer.alloc(16)
      await bench.clock.run(
        bench.disk
          .mount()
          .open('superblock')
          .then((file) => file.read(own, 8)),
      )
      await bench.patch(PATH, HEADER_OFFSET, encodeHeader({ storeId: own, ...header }))
      await bench.open()
      await expect(bench.read(OBJECT, 0)).rejects.toThrow(/belongs to another object or store/)
    }
  })

  it('that removes the file is an error, and not an object full of holes', async () => {
    const bench = await settled()
    await bench.open()
    await bench.clock.run(bench.disk.mount().unlink(PATH))
    await expect(bench.read(OBJECT, 0)).rejects.toMatchObject(corrupt)
    expect(bench.failure).toBeNull()
  })
})

describe('a disk that fails', () => {
  /** A script of durable writes over several checkpoints; stops at the first error and returns what was acknowledged. */
  async function script(bench: StoreBench): Promise<number> {
    let acknowledged = 0
    try {
      await bench.create(OBJECT)
      for (let fill = 1; fill <= 14; fill++) {
        await bench.commit([
          {
            kind: 'blocks',
            object: await bench.clock.run(bench.store.hold(OBJECT)),
            first: fill % 4,
            bytes: blocksOf(fill, fill),
          },
          { kind: 'entry', index: fill, bytes: Buffer.from(`${fill}`) },
        ])
        acknowledged = fill
      }
      await bench.clock.run(bench.store.close())
    } catch (error) {
      expect(error).toMatchObject({ code: 'DiskFailed' })
    }
    return acknowledged
  }

  /** Everything up to `acknowledged` is there, and nothing is half there. */
  async function check(bench: StoreBench, acknowledged: number): Promise<void> {
    const newest = bench.entries.at(-1)?.index ?? 0
    expect(newest).toBeGreaterThanOrEqual(acknowledged)
    const expected = Array<number>(5).fill(0)
    for (let fill = 1; fill <= newest; fill++) expected[fill % 4] = expected[(fill % 4) + 1] = fill
    if (newest > 0) expect(await bench.read(OBJECT, 0, 5)).toEqual(blocksOf(...expected))
  }

  it('in a sync takes the whole store with it: nothing that waits, and nothing that comes, is acknowledged', async () => {
    const bench = await StoreBench.open()
    await bench.create(OBJECT)
    const object = await bench.clock.run(bench.store.hold(OBJECT))
    bench.disk.failNextSync = true
    const changes = [{ kind: 'blocks' as const, object, first: 0, bytes: blocksOf(1) }]
    const waiting = [1, 2, 3].map(() => bench.submit(changes, { durable: true }))
    for (const outcome of await bench.clock.run(Promise.allSettled(waiting))) {
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'DiskFailed' } })
    }
    expect(bench.failure).toMatchObject({ code: 'DiskFailed' })
    for (const durable of [true, false]) {
      await expect(bench.commit(changes, { durable })).rejects.toMatchObject({ code: 'DiskFailed' })
    }
    await expect(bench.sync()).rejects.toMatchObject({ code: 'DiskFailed' })
    await bench.close()
  })

  it('is not missed when two syncs are under way, and the one that is told of it is heard of last', async () => {
    let syncs = 0
    const bench = await StoreBench.open({
      wrap: onFiles((path, file) => ({
        ...file,
        sync: async () => {
          if (path.startsWith('journal.')) syncs++
          await file.sync().catch(async (error) => {
            for (let i = 0; i < 100; i++) await bench.clock.latency(1)
            throw error
          })
        },
      })),
    })
    await bench.create(OBJECT)
    const object = await bench.clock.run(bench.store.hold(OBJECT))
    syncs = 0
    const changes = [{ kind: 'blocks' as const, object, first: 0, bytes: blocksOf(1) }]
    const first = bench.submit(changes, { durable: true })
    const isUnderWay = async (count: number) => {
      while (syncs < count) {
        bench.clock.step()
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
    await isUnderWay(1)
    const second = bench.submit(changes, { durable: true })
    await isUnderWay(2)
    bench.disk.failNextSync = true
    for (const outcome of await bench.clock.run(Promise.allSettled([first, second]))) {
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'DiskFailed' } })
    }
    await bench.close()
  })

  it('in any one sync loses nothing that was acknowledged, though the page cache looks well after it', async () => {
    let failures = 0
    for (let moment = 0; moment < 64; moment += 2) {
      const bench = new StoreBench({ seed: moment, segmentBlocks: 16 })
      await bench.open()
      const running = script(bench)
      // `running` steps the clock itself: let the sync fail at the first one after this moment.
      let events = 0
      const step = bench.clock.step.bind(bench.clock)
      bench.clock.step = () => {
        if (events++ === moment) bench.disk.failNextSync = true
        return step()
      }
      const acknowledged = await running
      if (bench.failure) failures++
      bench.disk.failNextSync = false
      bench.clock.step = step
      await bench.restart('kill') // reads the page cache, which the disk does not have
      await check(bench, acknowledged)
      const found = bench.entries.at(-1)?.index ?? 0
      await bench.create(OBJECT + 7n)
      await bench.write(OBJECT + 7n, 0, 6, 6)
      await bench.restart('powerLoss')
      await check(bench, found)
      expect(await bench.read(OBJECT + 7n, 0, 2)).toEqual(blocksOf(6, 6))
    }
    expect(failures).toBeGreaterThan(15)
  })

  it('in a sync of the journal does not let a later start change objects by records that only the page cache has', async () => {
    for (let seed = 0; seed < 60; seed++) {
      const bench = await StoreBench.open({ seed })
      await bench.create(OBJECT)
      await bench.write(OBJECT, 0, 1, 1, 1)
      await bench.settle()
      bench.disk.failNextSync = true
      await expect(bench.write(OBJECT, 0, 2, 2, 2)).rejects.toMatchObject({ code: 'DiskFailed' })
      bench.disk.kill()
      await bench.isBusyAfter(bench.start(), 24 + (seed % 15)) // around the moment when it changes the object
      await bench.restart('powerLoss')
      const found = await bench.read(OBJECT, 0, 3)
      expect([1, 2]).toContain(found[0])
      expect(found).toEqual(blocksOf(found[0]!, found[0]!, found[0]!))
    }
  })

  it.each(['superblock', 'log.', 'obj/', 'journal.'])(
    'in the sync of %s, at the end of a checkpoint, loses nothing',
    async (prefix) => {
      let armed = false
      const bench = await StoreBench.open({
        wrap: onFiles((path, file) => ({
          ...file,
          sync: () => {
            if (armed && path.startsWith(prefix)) {
              bench.disk.failNextSync = true
              armed = false
            }
            return file.sync()
          },
        })),
      })
      await bench.create(OBJECT)
      await bench.write(OBJECT, 0, 1, 2, 3)
      await bench.commit([{ kind: 'entry', index: 1, bytes: Buffer.from('one') }])
      const object = await bench.clock.run(bench.store.hold(OBJECT))
      await bench.commit([{ kind: 'blocks', object, first: 0, bytes: blocksOf(4) }], { durable: false })
      armed = true
      await bench.close()
      expect(bench.failure).toMatchObject({ code: 'DiskFailed' })
      expect(armed).toBe(false)
      await bench.open()
      const found = await bench.read(OBJECT, 0, 3)
      await bench.write(OBJECT, 5, 9)
      await bench.restart('powerLoss')
      expect(found).toEqual(blocksOf(4, 2, 3))
      expect(await bench.read(OBJECT, 0, 6)).toEqual(blocksOf(4, 2, 3, 0, 0, 9))
      expect(bench.entries).toHaveLength(1)
    },
  )

  it('in a write of the journal is the same', async () => {
    let broken = false
    const wrap = onFiles((path, file) => ({
      ...file,
      writeNow: (sources, position) => {
        if (broken && path.startsWith('journal')) throw Object.assign(new Error('EIO: write'), { code: 'EIO' })
        file.writeNow(sources, position)
      },
    }))
    const bench = await StoreBench.open({ wrap })
    await bench.create(OBJECT)
    broken = true
    await expect(bench.write(OBJECT, 0, 1)).rejects.toMatchObject({ code: 'DiskFailed' })
    broken = false
    await expect(bench.write(OBJECT, 0, 1)).rejects.toMatchObject({ code: 'DiskFailed' })
  })
})

describe('a crash at any moment', () => {
  it('of a checkpoint leaves each block as some transaction left it, though none was durable before', async () => {
    for (let moment = 0; moment < 60; moment++) {
      const bench = await StoreBench.open({ seed: moment })
      await bench.create(OBJECT)
      await bench.write(OBJECT, 0, 1, 1, 1)
      await bench.settle()
      const object = await bench.clock.run(bench.store.hold(OBJECT))
      await bench.commit([{ kind: 'blocks', object, first: 0, bytes: blocksOf(2, 2, 2) }], { durable: false })
      await bench.isBusyAfter(bench.store.close(), moment)
      await bench.restart('powerLoss')
      const found = await bench.read(OBJECT, 0, 3)
      expect([1, 2]).toContain(found[0])
      expect(found).toEqual(blocksOf(found[0]!, found[0]!, found[0]!))
    }
  })

  it('of a checkpoint, followed by another one at once, loses nothing that was durable', async () => {
    for (const how of ['kill', 'powerLoss'] as const) {
      for (let moment = 0; moment < 90; moment += 3) {
        const bench = await StoreBench.open({ seed: moment })
        await bench.create(OBJECT)
        await bench.write(OBJECT, 0, 1, 2, 3)
        await bench.commit([{ kind: 'entry', index: 1, bytes: Buffer.from('one') }])
        await bench.isBusyAfter(bench.store.close(), moment)
        await bench.restart(how)
        await bench.restart('powerLoss') // right after a start that found the page cache of the one before
        expect(await bench.read(OBJECT, 0, 3)).toEqual(blocksOf(1, 2, 3))
        expect(bench.entries.map(({ index, bytes }) => `${index}${bytes}`)).toEqual(['1one'])
      }
    }
  })

  it('of the first start leaves a directory in which the next start works', async () => {
    for (const how of ['kill', 'powerLoss'] as const) {
      for (let moment = 0; ; moment++) {
        const bench = new StoreBench({ seed: moment })
        const isBusy = await bench.isBusyAfter(bench.start(), moment)
        await bench.restart(how)
        await bench.create(OBJECT)
        await bench.write(OBJECT, 0, 1)
        await bench.restart('powerLoss')
        expect(await bench.read(OBJECT, 0)).toEqual(blocksOf(1))
        if (!isBusy) break
        expect(moment).toBeLessThan(2000)
      }
    }
  })
})

describe('a full disk', () => {
  /**
   * One checkpoint of all these transactions, which meets a full disk when it has made or removed files, and is repeated when
   * there is room. Then the power is lost.
   */
  async function repeatCheckpoint(bench: StoreBench, ...transactions: Change[][]): Promise<void> {
    for (const changes of transactions) await bench.commit(changes)
    bench.disk.capacityBytes = 1
    bench.disk.capacityBytes = bench.disk.usedBytes() + BLOCK_BYTES
    bench.store.startCheckpoint()
    await bench.isBusyAfter(new Promise(() => {}), 400)
    expect((await bench.clock.run(bench.store.stats())).checkpoints).toBe(0)
    bench.disk.capacityBytes = 2 ** 40
    await bench.checkpointed(1)
    expect(bench.failure).toBeNull()
    await bench.restart('powerLoss')
  }

  const creation = (...fills: number[]): Change[] => [
    { kind: 'create', oid: OBJECT, runs: [] },
    { kind: 'blocks', object: OBJECT, first: 0, bytes: blocksOf(...fills) },
  ]

  it('met in the middle of a checkpoint costs no file that it has made before', async () => {
    for (let seed = 1; seed <= 10; seed++) {
      const bench = await StoreBench.open({ seed })
      await repeatCheckpoint(bench, creation(2, 3, 4))
      expect(await bench.read(OBJECT, 0, 3)).toEqual(blocksOf(2, 3, 4))
    }
  })

  it('met after a checkpoint has removed an object leaves the new one of its name alone', async () => {
    for (let seed = 1; seed <= 10; seed++) {
      const bench = await StoreBench.open({ seed })
      await bench.commit(creation(1))
      await bench.settle()
      const bytes = [2, 3, 4, 5, 6, 7]
      await repeatCheckpoint(bench, [{ kind: 'remove', oid: OBJECT }], creation(...bytes))
      expect(await bench.read(OBJECT, 0, 6)).toEqual(blocksOf(...bytes))
    }
  })

  it('met after a checkpoint has removed an object does not bring it back', async () => {
    for (let seed = 1; seed <= 10; seed++) {
      const bench = await StoreBench.open({ seed })
      await bench.commit(creation(1))
      await bench.settle()
      const others = Array.from(
        { length: 6 },
        (_, i): Change => ({ kind: 'create', oid: OBJECT + 1n + BigInt(i), runs: [] }),
      )
      await repeatCheckpoint(bench, [{ kind: 'remove', oid: OBJECT }], others)
      expect(bench.store.exists(OBJECT)).toBe(false)
    }
  })

  it('met by a checkpoint keeps the journal, stops writes, and loses nothing, whatever comes then', async () => {
    for (const then of ['room', 'close', 'kill', 'powerLoss'] as const) {
      const bench = await StoreBench.open({ segmentBlocks: 16 })
      await bench.create(OBJECT)
      await bench.write(OBJECT, 0, 1, 1)
      bench.disk.capacityBytes = 1
      bench.disk.capacityBytes = bench.disk.usedBytes()
      const object = await bench.clock.run(bench.store.hold(OBJECT))
      const writes = Array.from({ length: 12 }, (_, i) =>
        bench.submit([{ kind: 'blocks', object, first: 4 * i, bytes: blocksOf(9, 9, 9, 9) }], { durable: true }),
      )
      const acknowledged = new Set<number>()
      for (const [i, write] of writes.entries()) {
        write.then(
          () => acknowledged.add(i),
          () => {},
        )
      }
      expect(await bench.isBusyAfter(Promise.all(writes), 400)).toBe(true)
      expect(bench.failure).toBeNull()
      if (then === 'close') {
        await bench.close() // an end in order does not wait for room either
        expect((await Promise.allSettled(writes)).map(({ status }) => status)).toContain('rejected')
        await expect(bench.open()).rejects.toMatchObject({ code: 'NoSpace' })
      }
      bench.disk.capacityBytes = 2 ** 40
      if (then === 'room') await bench.clock.run(Promise.all(writes))
      else if (then === 'close') await bench.open()
      else await bench.restart(then)
      for (const i of acknowledged) expect(await bench.read(OBJECT, 4 * i, 4)).toEqual(blocksOf(9, 9, 9, 9))
      expect(acknowledged.size).toBeGreaterThan(0)
    }
  })
})

describe('a checkpoint that waits for room', () => {
  it('opens no file again and again without closing it', async () => {
    for (const refused of ['accounts.new', 'log.1']) {
      let tries = 0
      let isFull = false
      const wrap = onFiles((path, file) => ({
        ...file,
        write: async (source, position) => {
          if (path !== refused || !isFull) return file.write(source, position)
          tries++
          throw Object.assign(new Error('no space'), { code: 'ENOSPC' })
        },
      }))
      const bench = await StoreBench.open({ wrap })
      await bench.create(OBJECT)
      for (let from = 1; from < 1200; from += 100) {
        const entries = Array.from({ length: 100 }, (_, i) => ({ index: from + i, bytes: Buffer.from('entry') }))
        await bench.commit(entries.map((entry) => ({ kind: 'entry', ...entry })))
      }
      bench.store.logSnapshot = () => ({ index: 1200, liveEntries: 1, entries: () => [Buffer.from('state')] })
      isFull = true
      bench.store.startCheckpoint()
      await bench.clock.run(bench.clock.mount().sleep(20_000))
      expect(tries).toBeGreaterThan(10)
      expect(bench.disk.openFiles).toBeLessThan(10)
      isFull = false
      await bench.clock.run(bench.clock.mount().sleep(2000))
      await bench.close()
      expect(bench.failure).toBeNull()
      expect(bench.disk.openFiles).toBe(0)
      await bench.open()
      expect(bench.entries.map(({ bytes }) => bytes.toString())).toEqual(['state'])
    }
  })
})

describe('a start', () => {
  it('is refused while another process has the directory', async () => {
    const bench = await StoreBench.open()
    await expect(bench.clock.run(bench.start())).rejects.toThrow(/another process has this store open/)
    await bench.create(OBJECT) // and the first one goes on
  })

  it('that failed does not keep the directory locked', async () => {
    const bench = await StoreBench.open()
    await bench.close()
    const spare = Buffer.alloc(8192)
    await bench.clock.run(
      bench.disk
        .mount()
        .open('superblock')
        .then((file) => file.read(spare, 0)),
    )
    await bench.patch('superblock', 0, Buffer.alloc(8192))
    await expect(bench.open()).rejects.toThrow(/both superblocks are damaged/)
    await bench.patch('superblock', 0, spare)
    await bench.open()
  })

  it('is refused, with nothing overwritten, when the store has another format', async () => {
    const bench = await StoreBench.open()
    await bench.create(OBJECT)
    await bench.close()
    for (const slot of [0, 4096]) {
      const bytes = Buffer.alloc(80)
      bytes.writeUInt32LE(0x62755343, 0)
      bytes.writeUInt32LE(4, 4)
      bytes.writeUInt32LE(crc32(bytes.subarray(0, 76)), 76)
      await bench.patch('superblock', slot, bytes)
    }
    const before = await bench.image()
    const larger = new StoreBench({ segmentBlocks: 80 })
    await expect(bench.open()).rejects.toThrow(/format 4; this version reads up to format 3/)
    bench.disk.kill()
    expect(await bench.image()).toEqual(before)
    await larger.open() // a larger journal is what the same start would have made on an empty directory
  })

  it('goes on with what the version wrote that knew nothing of copies, and writes its own format from then on', async () => {
    const bench = await StoreBench.open()
    await bench.create(OBJECT)
    await bench.write(OBJECT, 0, 1, 2)
    bench.disk.kill()
    await asFormatBefore(bench)
    await bench.open()
    expect(await bench.read(OBJECT, 0, 2)).toEqual(blocksOf(1, 2))
    await bench.write(OBJECT, 1, 3)
    await bench.restart('kill')
    expect(await bench.read(OBJECT, 0, 2)).toEqual(blocksOf(1, 3))
  })

  it('is refused when there is a store without its superblock, or without a segment of its journal', async () => {
    for (const missing of ['superblock', 'journal.0', 'journal.1']) {
      const bench = await StoreBench.open()
      await bench.create(OBJECT)
      await bench.close()
      await bench.clock.run(bench.disk.mount().unlink(missing))
      const before = await bench.image()
      await expect(bench.open()).rejects.toThrow(missing === 'superblock' ? /no superblock/ : /is missing/)
      expect(await bench.image()).toEqual(before)
    }
  })

  it('takes a journal that has grown', async () => {
    const bench = await StoreBench.open({ segmentBlocks: 40 })
    await bench.create(OBJECT)
    await bench.write(OBJECT, 0, 5)
    bench.disk.kill()
    const grown = Object.assign(new StoreBench({ segmentBlocks: 60 }), { clock: bench.clock, disk: bench.disk })
    await grown.open()
    expect(await grown.read(OBJECT, 0)).toEqual(blocksOf(5))
    for (let fill = 0; fill < 30; fill++) await grown.write(OBJECT, 0, fill, fill, fill)
    await grown.restart('powerLoss')
    expect(await grown.read(OBJECT, 0, 3)).toEqual(blocksOf(29, 29, 29))
  })
})

describe('the ordered log', () => {
  const entry = (index: number) => ({ kind: 'entry' as const, index, bytes: Buffer.from(`entry ${index}`) })

  it('that has grown long is replaced by the state it stands for, and no crash on the way loses any of it', async () => {
    for (let moment = 0; moment < 60; moment += 2) {
      const bench = await StoreBench.open({ seed: moment })
      const state = { index: 0, liveEntries: 1, entries: () => [Buffer.from(`state ${state.index}`)] }
      const write = async (from: number, to: number) => {
        const changes = Array.from({ length: to - from + 1 }, (_, i) => entry(from + i))
        state.index = to
        await bench.commit(changes)
      }
      for (let at = 0; at < 1200; at += 100) await write(at + 1, at + 100)
      bench.store.logSnapshot = () => state
      await bench.isBusyAfter(bench.store.close(), moment)
      await bench.restart('powerLoss')
      const [first] = bench.entries
      const texts = bench.entries.map(({ bytes }) => bytes.toString())
      if (texts[0] === 'state 1200') expect(texts).toEqual(['state 1200'])
      else expect(texts).toEqual(Array.from({ length: 1200 }, (_, i) => `entry ${i + 1}`))
      expect(first).toBeDefined()
      await bench.commit([entry(1201)])
      await bench.restart('powerLoss')
      expect(bench.entries.at(-1)).toMatchObject({ index: 1201, bytes: Buffer.from('entry 1201') })
    }
  })

  it('never holds an entry whose changes of objects were not durable with it', async () => {
    let compacted = 0
    for (let moment = 0; moment < 220; moment += 5) {
      const bench = await StoreBench.open({ seed: moment, segmentBlocks: 24 })
      for (let at = 0; at < 1200; at += 100) {
        await bench.commit(Array.from({ length: 100 }, (_, i) => entry(at + i + 1)))
      }
      const state = { index: 1200, liveEntries: 1, entries: () => [Buffer.from(`state ${state.index}`)] }
      bench.store.logSnapshot = () => state
      await bench.create(OBJECT)
      const object = await bench.clock.run(bench.store.hold(OBJECT))
      // The journal fills up while its other segment is being checkpointed: the last transactions wait.
      const writes: Promise<void>[] = []
      for (let i = 1; i <= 12; i++) {
        state.index = 1200 + i
        writes.push(
          bench.submit(
            [
              entry(state.index),
              { kind: 'create', oid: OBJECT + BigInt(i), runs: [] },
              { kind: 'blocks', object, first: 0, bytes: blocksOf(i, i, i, i) },
            ],
            { durable: true },
          ),
        )
      }
      for (const write of writes) write.catch(() => {})
      await bench.isBusyAfter(
        Promise.all(writes).then(() => bench.store.close()),
        moment,
      )
      await bench.restart('powerLoss')
      const last = bench.entries.at(-1)!.index
      if (bench.entries[0]!.bytes.toString().startsWith('state')) compacted++
      for (let i = 1; i <= 12; i++) expect(bench.store.exists(OBJECT + BigInt(i))).toBe(1200 + i <= last)
    }
    expect(compacted).toBeGreaterThan(1)
  })
})

describe('many objects', () => {
  it('are never open all at once, whether they are written, read or only made', async () => {
    let open = 0
    let most = 0
    const wrap = onFiles((path, file) => {
      if (!path.startsWith('obj/')) return file
      most = Math.max(most, ++open)
      return {
        ...file,
        close: async () => {
          open--
          await file.close()
        },
      }
    })
    const bench = await StoreBench.open({ wrap, loadedObjectsMax: 8 })
    const oids = Array.from({ length: 150 }, (_, i) => OBJECT + BigInt(i))
    for (const oid of oids)
      await bench.commit([
        { kind: 'create', oid, runs: [] },
        { kind: 'blocks', object: oid, first: 0, bytes: blocksOf(Number(oid & 0xffn)) },
      ])
    const afterWriting = most
    for (const oid of oids) expect(await bench.read(oid, 0)).toEqual(blocksOf(Number(oid & 0xffn)))
    // Those that a checkpoint has in hand come on top: as many as one filling of the journal makes.
    expect(afterWriting).toBeLessThan(8 + 2 * 20)
    expect(most).toBeLessThan(8 + 2 * 20)
    await bench.close()
    expect(open).toBe(0)
  })

  it('read while they are written, checkpointed and evicted, are never taken for rotten', async () => {
    for (let seed = 1; seed <= 6; seed++) {
      const bench = await StoreBench.open({ seed, loadedObjectsMax: 2, segmentBlocks: 16 })
      bench.disk.faults.wouldBlock = 0.8
      const oids = [0n, 1n, 2n, 3n].map((i) => OBJECT + i)
      await bench.create(...oids)
      const pending: Promise<void>[] = []
      for (let round = 1; round <= 60; round++) {
        const oid = bench.random.pick(oids)
        const written = bench.store.using(oid, (object) =>
          bench.submit([{ kind: 'blocks', object, first: 0, bytes: blocksOf(round, round, round) }], {
            durable: false,
          }),
        )
        const target = blocksOf(0xee, 0xee, 0xee)
        const read = bench.store.using(bench.random.pick(oids), (object) => bench.store.readBlocks(object, 0, target))
        pending.push(
          written,
          read.then(() => {
            for (let at = 0; at < 3; at++) {
              const block = target.subarray(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES)
              expect(block.every((byte) => byte === block[0] && byte !== 0xee)).toBe(true)
            }
          }),
        )
        await bench.isBusyAfter(Promise.all(pending), bench.random.below(12))
      }
      await bench.clock.run(Promise.all(pending))
      expect(await bench.corruptBlocks()).toBe(0)
    }
  })
})

describe('the pages of the journal', () => {
  it('are not written again before a superblock says that the object files have what they hold', async () => {
    const written: [Set<number>, Set<number>] = [new Set(), new Set()]
    let active = -1
    let superblocks = 0
    let switches = 0
    let superblocksAtSwitch = 0
    const wrap = onFiles((path, file) => {
      const segment = path === 'journal.0' ? 0 : path === 'journal.1' ? 1 : null
      if (path.startsWith('superblock')) {
        return {
          ...file,
          sync: async () => {
            await file.sync()
            superblocks++
          },
        }
      }
      if (segment === null) return file
      return {
        ...file,
        writeNow: (sources, position) => {
          if (segment !== active) {
            // This segment was filled before the other one: that filling must be checkpointed by now.
            if (switches > 1) expect(superblocks).toBeGreaterThan(superblocksAtSwitch)
            superblocksAtSwitch = superblocks
            written[segment].clear()
            active = segment
            switches++
          }
          const length = sources.reduce((sum, source) => sum + source.length, 0)
          expect([position % BLOCK_BYTES, length % BLOCK_BYTES]).toEqual([0, 0])
          for (let page = position / BLOCK_BYTES; page < (position + length) / BLOCK_BYTES; page++) {
            expect(written[segment].has(page)).toBe(false)
            written[segment].add(page)
          }
          file.writeNow(sources, position)
        },
      }
    })
    const bench = await StoreBench.open({ wrap })
    await bench.create(OBJECT)
    for (let fill = 0; fill < 60; fill++) await bench.write(OBJECT, fill % 7, fill, fill)
    expect(switches).toBeGreaterThan(4)
  })
})

it('keeps an object in one file of fixed size', async () => {
  const bench = await StoreBench.open()
  await bench.create(OBJECT)
  await bench.close()
  expect(bench.disk.sizeOf(PATH)).toBe(OBJECT_BYTES + TABLE_BYTES + BLOCK_BYTES)
})
