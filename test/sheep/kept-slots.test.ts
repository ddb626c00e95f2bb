import { describe, expect, it } from 'vitest'
import type { Disk } from '../../src/runtime/disk.ts'
import { BLOCK_BYTES, objectPath } from '../../src/sheep/object-format.ts'
import { SheepBench } from './sheep-bench.ts'
import { blocksOf, OBJECT, StoreBench } from './store-bench.ts'
import { surplusSlots } from './surplus-slots.ts'

const LARGE = 16
const large = (fill: number) => blocksOf(...new Array<number>(LARGE).fill(fill))

type Options = Parameters<typeof StoreBench.open>[0]

/** An object of one large write, which a checkpoint has seen, on a disk that counts; and the holes that are made from now on. */
async function opened(options: Options = {}) {
  const holes = { count: 0 }
  const wrap = (disk: Disk): Disk => ({
    ...disk,
    punchMany: (ranges) => {
      holes.count += ranges.length
      return disk.punchMany(ranges)
    },
  })
  const bench = new StoreBench({ placedMinBytes: LARGE * BLOCK_BYTES, wrap, ...options })
  bench.disk.capacityBytes = 2 ** 39
  await bench.open()
  await bench.create(OBJECT)
  await overwrite(bench, 1)
  await checkpoint(bench)
  holes.count = 0
  return { bench, holes, usedBytes: bench.disk.usedBytes() }
}

async function overwrite(bench: StoreBench, fill: number, first = 0): Promise<void> {
  await bench.write(OBJECT, first, ...new Array<number>(LARGE).fill(fill))
}

async function checkpoint(bench: StoreBench): Promise<void> {
  const { checkpoints } = await bench.clock.run(bench.store.stats())
  bench.store.startCheckpoint()
  await bench.checkpointed(checkpoints + 1)
}

const passed = (bench: StoreBench, seconds: number) => bench.clock.run(bench.clock.mount().sleep(seconds * 1000))

/** With which number all blocks of a large write are filled; null when they are not. */
async function found(bench: StoreBench, oid = OBJECT): Promise<number | null> {
  const bytes = await bench.read(oid, 0, LARGE)
  return bytes.equals(large(bytes[0]!)) ? bytes[0]! : null
}

/** As many blocks as there are still, but for `left`, are others' from now on. */
function crowd(bench: StoreBench, left: number): void {
  bench.disk.capacityBytes = bench.disk.usedBytes() + left * BLOCK_BYTES
}

const keptBlocks = (bench: StoreBench) => bench.store.measures().keptBytes / BLOCK_BYTES

describe('a slot that overwriting has freed', () => {
  it('takes the next large write, without a hole in between', async () => {
    const { bench, holes, usedBytes } = await opened()
    for (let fill = 2; fill < 8; fill++) {
      await overwrite(bench, fill)
      await checkpoint(bench)
      expect(await found(bench)).toBe(fill)
      expect(bench.disk.usedBytes() - usedBytes).toBe(LARGE * BLOCK_BYTES)
      expect(keptBlocks(bench)).toBe(LARGE)
    }
    expect(holes.count).toBe(0)
  })

  it('counts as free', async () => {
    const { bench } = await opened()
    const { freeBytes } = bench.store.room
    await overwrite(bench, 2)
    await checkpoint(bench)
    expect(bench.store.room.freeBytes).toBe(freeBytes)
    await passed(bench, 20)
    expect(bench.store.room.freeBytes).toBe(freeBytes)
  })

  it('is given back within 15 seconds of the last overwrite, and not while there are more', async () => {
    const { bench, usedBytes } = await opened()
    for (let fill = 2; fill < 12; fill++) {
      await overwrite(bench, fill)
      await checkpoint(bench)
      await passed(bench, 4)
      expect(keptBlocks(bench)).toBe(LARGE)
    }
    await passed(bench, 11)
    expect(bench.disk.usedBytes()).toBe(usedBytes)
    expect(keptBlocks(bench)).toBe(0)
    expect(await found(bench)).toBe(11)
  })

  it('is given back although a small write that no checkpoint has seen was in the way', async () => {
    const { bench, usedBytes } = await opened()
    await overwrite(bench, 2)
    await checkpoint(bench)
    await bench.write(OBJECT, 3, 9)
    await passed(bench, 15)
    expect(keptBlocks(bench)).toBe(1)
    await checkpoint(bench)
    await passed(bench, 15)
    expect(bench.disk.usedBytes()).toBe(usedBytes)
    expect(await bench.read(OBJECT, 2, 3)).toEqual(blocksOf(2, 9, 2))
  })

  it('is not kept beyond the bound, nor of a first write', async () => {
    const { bench, holes, usedBytes } = await opened({ keptBytesMax: (LARGE + 3) * BLOCK_BYTES })
    await overwrite(bench, 1, LARGE)
    await checkpoint(bench)
    expect([keptBlocks(bench), holes.count]).toEqual([0, 0])
    for (const first of [0, LARGE]) {
      await overwrite(bench, 2, first)
      await checkpoint(bench)
    }
    expect([keptBlocks(bench), holes.count]).toEqual([LARGE, 1])
    expect(bench.disk.usedBytes() - usedBytes).toBe(2 * LARGE * BLOCK_BYTES)
    await overwrite(bench, 3, 0)
    await checkpoint(bench)
    expect([keptBlocks(bench), holes.count]).toEqual([LARGE, 1])
  })

  it('is not kept where it would be more than a quarter of the room that there is', async () => {
    const { bench, usedBytes } = await opened()
    crowd(bench, 5 * LARGE - 1)
    await overwrite(bench, 2) // its checkpoint learns how much room there is
    await checkpoint(bench)
    await overwrite(bench, 3)
    await checkpoint(bench)
    expect(keptBlocks(bench)).toBe(0)
    expect(bench.disk.usedBytes()).toBe(usedBytes)
  })

  it('is given back at once when its blocks are discarded, and with its object', async () => {
    const { bench, usedBytes } = await opened()
    await overwrite(bench, 2)
    await checkpoint(bench)
    await bench.clock.run(
      bench.store.using(OBJECT, (object) =>
        bench.submit([{ kind: 'zero', object, first: 0, count: 4 }], { durable: true }),
      ),
    )
    await checkpoint(bench)
    expect(keptBlocks(bench)).toBe(LARGE - 4)
    expect(bench.disk.usedBytes() - usedBytes).toBe((LARGE - 8) * BLOCK_BYTES)
    await bench.commit([{ kind: 'remove', oid: OBJECT }])
    await checkpoint(bench)
    expect(keptBlocks(bench)).toBe(0)
    expect(bench.store.room.freeBytes).toBe(bench.disk.capacityBytes - bench.disk.usedBytes())
  })

  it('is given back at the end, also what waited for a checkpoint', async () => {
    const { bench } = await opened()
    await overwrite(bench, 2)
    await checkpoint(bench)
    await overwrite(bench, 3)
    await bench.close()
    expect(surplusSlots(bench.disk)).toEqual([])
  })

  it.each(['kill', 'powerLoss'] as const)('is found by the scrub after a %s', async (how) => {
    const { bench, usedBytes } = await opened()
    await overwrite(bench, 2)
    await checkpoint(bench)
    await bench.restart(how)
    expect(keptBlocks(bench)).toBe(0)
    expect(await bench.clock.run(bench.store.punchStraySlots(OBJECT))).toBe(LARGE)
    expect(bench.disk.usedBytes()).toBe(usedBytes)
    expect(await found(bench)).toBe(2)
  })

  it.each([1, 2, 3, 4, 5, 6])(
    'holds what was durable, or all of what came after it, when power is lost (seed %i)',
    async (seed) => {
      const { bench } = await opened({ seed })
      await overwrite(bench, 2)
      await checkpoint(bench)
      const object = await bench.clock.run(bench.store.hold(OBJECT))
      // Over the slots of the first write, which say the same: its bytes must not be taken for those of this one.
      await bench.clock.run(bench.submit([{ kind: 'blocks', object, first: 0, bytes: large(3) }], { durable: false }))
      await bench.restart('powerLoss')
      expect([2, 3]).toContain(await found(bench))
    },
  )
})

describe('on a disk that fills up', () => {
  it('nobody is told so before what is kept is given back', async () => {
    const { bench, usedBytes } = await opened()
    await overwrite(bench, 2)
    await checkpoint(bench)
    const object = await bench.clock.run(bench.store.hold(OBJECT))
    crowd(bench, 4)
    await bench.clock.run(bench.store.disks.list()) // asks the disk
    expect(bench.store.hasRoom(object, (LARGE + 4) * BLOCK_BYTES)).toBe(true)
    expect(bench.store.hasRoomForNew(LARGE * BLOCK_BYTES, 4 * BLOCK_BYTES)).toBe(true)
    expect(bench.store.hasRoom(object, (LARGE + 5) * BLOCK_BYTES)).toBe(false)
    await passed(bench, 1)
    expect(keptBlocks(bench)).toBe(0)
    expect(bench.disk.usedBytes()).toBe(usedBytes)
    expect(bench.store.hasRoom(object, (LARGE + 4) * BLOCK_BYTES)).toBe(true)
    bench.store.release(object)
  })

  it('a checkpoint that finds no room goes on when that is given back', async () => {
    const { bench } = await opened()
    await overwrite(bench, 2)
    await checkpoint(bench)
    await bench.commit([{ kind: 'create', oid: OBJECT + 1n, runs: [] }])
    crowd(bench, 1)
    await checkpoint(bench)
    expect(keptBlocks(bench)).toBe(0)
    expect(bench.failure).toBeNull()
    expect(await found(bench)).toBe(2)
  })
})

describe('after a crash on a full disk', () => {
  it.each(['kill', 'powerLoss'] as const)(
    'what a start has to write finds the room that was kept (%s)',
    async (how) => {
      const { bench } = await opened()
      await overwrite(bench, 2)
      await checkpoint(bench)
      await bench.commit([
        { kind: 'create', oid: OBJECT + 1n, runs: [] },
        { kind: 'blocks', object: OBJECT + 1n, first: 0, bytes: blocksOf(5, 6, 7) },
      ])
      crowd(bench, 1)
      await bench.restart(how)
      expect(await found(bench)).toBe(2)
      expect(await bench.read(OBJECT + 1n, 0, 3)).toEqual(blocksOf(5, 6, 7))
    },
  )

  it('and the end of a process that finds none gives it back, too', async () => {
    const { bench } = await opened()
    await overwrite(bench, 2)
    await checkpoint(bench)
    await bench.commit([{ kind: 'create', oid: OBJECT + 1n, runs: [] }])
    crowd(bench, 1)
    await bench.close()
    expect(surplusSlots(bench.disk)).toEqual([])
    expect(bench.disk.paths()).toContain(objectPath(OBJECT + 1n))
  })
})

describe('what is kept', () => {
  it('does not follow an object to another disk', async () => {
    const [a, b] = ['/disk/a', '/disk/b']
    const { bench } = await opened({ dataDisks: [a, b], configured: [a], segmentBlocks: 400 })
    const oids = Array.from({ length: 8 }, (_, i) => OBJECT + 1n + BigInt(i))
    for (const fill of [1, 2]) {
      for (const oid of oids) {
        if (fill === 1) await bench.create(oid)
        await bench.write(oid, 0, ...new Array<number>(LARGE).fill(fill))
      }
      await checkpoint(bench)
    }
    expect(keptBlocks(bench)).toBe(oids.length * LARGE)
    const onA = bench.dataDisks
      .get(a)!
      .paths()
      .filter((path) => path.startsWith('obj/'))
    expect(onA.length).toBeGreaterThan(0)
    await bench.clock.run(bench.store.disks.unplug(a))
    expect(keptBlocks(bench)).toBe(0)
    expect(surplusSlots(bench.disk)).toEqual([])
    for (const oid of oids) expect(await found(bench, oid)).toBe(2)
  })

  it('leaves a volume that is rarely written its size, within 80 seconds of a write, and is in no account', async () => {
    const bench = await SheepBench.open({ placedMinBytes: LARGE * BLOCK_BYTES, segmentBytes: 300 * BLOCK_BYTES })
    bench.disk.capacityBytes = 2 ** 39
    const passing = (seconds: number) => bench.run(bench.clock.mount().sleep(seconds * 1000))
    const vid = await bench.create('a')
    const session = bench.session(vid)
    await bench.write(session, 0, large(1))
    await passing(80)
    const usedBytes = bench.disk.usedBytes()
    await bench.write(session, 0, large(2))
    await passing(65) // the checkpoint of so little comes after a minute
    expect(bench.sheep.measures().keptBytes).toBe(LARGE * BLOCK_BYTES)
    expect(bench.sheep.allocatedBytes).toBe(LARGE * BLOCK_BYTES)
    const working = (await bench.run(bench.sheep.snapshot(vid, 'tag'))).vid
    expect((await bench.read(bench.session(working), 0, LARGE * BLOCK_BYTES)).equals(large(2))).toBe(true)
    await bench.run(bench.sheep.deleteVdi(vid))
    await passing(15)
    expect(bench.sheep.measures().keptBytes).toBe(0)
    expect(bench.sheep.allocatedBytes).toBe(LARGE * BLOCK_BYTES)
    expect(await bench.audit()).toMatchObject({ problems: [] })
    expect(surplusSlots(bench.disk)).toEqual([])
    await passing(80)
    expect(bench.disk.usedBytes() - usedBytes).toBeLessThan(LARGE * BLOCK_BYTES) // the maps
  })
})
