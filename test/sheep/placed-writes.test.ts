import { describe, expect, it } from 'vitest'
import type { Disk, DiskFile } from '../../src/runtime/disk.ts'
import { BLOCK_BYTES, blockPosition, objectPath } from '../../src/sheep/object-format.ts'
import { onFiles } from '../sim/on-files.ts'
import { SheepBench } from './sheep-bench.ts'
import { blocksOf, OBJECT, StoreBench } from './store-bench.ts'

const LARGE = 4
const options = { placedMinBytes: LARGE * BLOCK_BYTES }
const PATH = objectPath(OBJECT)

/** What the store writes at once to object files, as [position, blocks]; each may be cut short by `limit`. */
function watch(disk: Disk, writes: [number, number][], limit: (length: number) => number): Disk {
  const wrap = (path: string, file: DiskFile): DiskFile => {
    if (!path.startsWith('obj/')) return file
    return {
      ...file,
      writeNow: (sources, position) => {
        const bytes = Buffer.concat(sources)
        writes.push([position, bytes.length / BLOCK_BYTES])
        file.writeNow([bytes.subarray(0, limit(bytes.length))], position)
      },
    }
  }
  return onFiles(wrap)(disk)
}

async function openWatched(seed = 1) {
  const writes: [number, number][] = []
  const control = { limit: (length: number) => length }
  let held: Promise<void> | null = null
  const wrap = (disk: Disk): Disk => ({
    ...watch(disk, writes, (length) => control.limit(length)),
    punchMany: async (ranges) => {
      await held
      return disk.punchMany(ranges)
    },
  })
  /** From now on no hole is made until what this returns is called. */
  const heldPunches = () => {
    let goOn: () => void = () => {}
    held = new Promise((resolve) => {
      goOn = resolve
    })
    return goOn
  }
  const bench = await StoreBench.open({ ...options, seed, wrap })
  return { bench, writes, control, heldPunches }
}

/** Blocks of a large write, each filled with its number. */
const large = (fill: number) => blocksOf(...new Array<number>(LARGE).fill(fill))

async function overwrite(bench: StoreBench, fill: number, durable: boolean, first = 0): Promise<void> {
  await bench.clock.run(
    bench.store.using(OBJECT, (object) =>
      bench.submit([{ kind: 'blocks', object, first, bytes: large(fill) }], { durable }),
    ),
  )
}

/** One block, the first. */
async function writeSmall(bench: StoreBench, fill: number, durable: boolean): Promise<void> {
  await bench.clock.run(
    bench.store.using(OBJECT, (object) =>
      bench.submit([{ kind: 'blocks', object, first: 0, bytes: blocksOf(fill) }], { durable }),
    ),
  )
}

async function createLarge(bench: StoreBench, fill: number, durable: boolean): Promise<void> {
  await bench.commit(
    [
      { kind: 'create', oid: OBJECT, runs: [] },
      { kind: 'blocks', object: OBJECT, first: 0, bytes: large(fill) },
    ],
    { durable },
  )
}

/** The kernel has written a file by itself. */
async function writeBack(bench: StoreBench, path: string): Promise<void> {
  await bench.clock.run(
    bench.disk
      .mount()
      .open(path)
      .then((file) => file.sync()),
  )
}

describe('a large write', () => {
  it('is written once: to the object file, and not to the journal', async () => {
    const { bench, writes } = await openWatched()
    await createLarge(bench, 1, true)
    await bench.settle()
    await overwrite(bench, 2, true)
    expect(writes).toEqual([
      [blockPosition(0, 0), LARGE],
      [blockPosition(0, 1), LARGE],
    ])
    await bench.settle()
    expect(writes).toHaveLength(2) // the checkpoint copied nothing
    expect(await bench.read(OBJECT, 0, LARGE)).toEqual(large(2))
  })

  it('is written once also where it makes a new object, and the map that names that', async () => {
    const bench = await SheepBench.open({ placedMinBytes: LARGE * BLOCK_BYTES })
    const session = bench.session(await bench.create('disk'))
    for (const offset of [0, LARGE * BLOCK_BYTES]) await bench.write(session, offset, large(1))
    expect(bench.sheep.measures().placedBytes).toBe(2 * LARGE * BLOCK_BYTES)
    await bench.restart('powerLoss')
    const found = await bench.read(bench.session(session.vid), 0, 2 * LARGE * BLOCK_BYTES)
    expect(found.equals(Buffer.concat([large(1), large(1)]))).toBe(true)
    expect((await bench.audit()).problems).toEqual([])
  })

  it('goes to the slot that nothing durable is in, and gives the other one back', async () => {
    const { bench, writes } = await openWatched()
    await createLarge(bench, 1, true)
    for (let fill = 2; fill < 8; fill++) await overwrite(bench, fill, true)
    expect(writes.map(([position]) => position)).toEqual(
      Array.from({ length: 7 }, (_, i) => blockPosition(0, i % 2 === 0 ? 0 : 1)),
    )
    await bench.settle()
    expect(await bench.read(OBJECT, 0, LARGE)).toEqual(large(7))
    expect(bench.disk.hasPage(PATH, blockPosition(0, 0) / BLOCK_BYTES)).toBe(true)
    expect(bench.disk.hasPage(PATH, blockPosition(0, 1) / BLOCK_BYTES)).toBe(false)
  })

  it('replaces one that nobody has synced in place, and what was synced before it survives loss of power', async () => {
    for (let seed = 1; seed <= 40; seed++) {
      const { bench, writes } = await openWatched(seed)
      await createLarge(bench, 1, true)
      await overwrite(bench, 2, false)
      await overwrite(bench, 3, false)
      expect(writes.slice(1).map(([position]) => position)).toEqual([blockPosition(0, 1), blockPosition(0, 1)])
      await bench.restart('powerLoss')
      const found = await bench.read(OBJECT, 0, LARGE)
      expect([large(1), large(3)].some((allowed) => allowed.equals(found))).toBe(true)
    }
  })

  it('over a small one that the journal has is written once as well, and each is there after loss of power or it is not', async () => {
    for (let seed = 1; seed <= 16; seed++) {
      const isDurable = seed % 2 === 0
      const { bench, writes } = await openWatched(seed)
      await createLarge(bench, 1, true)
      await bench.settle()
      await writeSmall(bench, 2, isDurable)
      await overwrite(bench, 3, false)
      expect(writes.slice(1)).toEqual([[blockPosition(0, 1), LARGE]])
      expect(await bench.read(OBJECT, 0, LARGE)).toEqual(large(3))
      await bench.restart('powerLoss')
      const allowed = [large(3), blocksOf(2, 1, 1, 1), ...(isDurable ? [] : [large(1)])]
      const found = await bench.read(OBJECT, 0, LARGE)
      expect(allowed.some((bytes) => bytes.equals(found))).toBe(true)
    }
  })

  it('stays one run however many small ones come between: these keep to its slot, also when it was not checkpointed', async () => {
    for (let seed = 1; seed <= 16; seed++) {
      const { bench, writes } = await openWatched(seed)
      await createLarge(bench, 1, true)
      await bench.settle()
      await overwrite(bench, 2, true)
      await writeSmall(bench, 3, true)
      if (seed % 2 === 0) await bench.settle() // its bytes are written over the large one's
      await overwrite(bench, 4, false)
      expect(writes.slice(1)).toEqual([
        [blockPosition(0, 1), LARGE],
        [blockPosition(0, 0), LARGE],
      ])
      await bench.restart('powerLoss')
      const found = await bench.read(OBJECT, 0, LARGE)
      expect([blocksOf(3, 2, 2, 2), large(4)].some((allowed) => allowed.equals(found))).toBe(true)
    }
  })

  it('goes through the journal over a small one that is not durable, if a large one was placed before that', async () => {
    for (let seed = 1; seed <= 16; seed++) {
      const { bench, writes } = await openWatched(seed)
      await createLarge(bench, 1, true)
      await bench.settle()
      await overwrite(bench, 2, true)
      await writeSmall(bench, 3, false)
      await overwrite(bench, 4, false)
      expect(writes).toHaveLength(2)
      await bench.restart('powerLoss')
      const found = await bench.read(OBJECT, 0, LARGE)
      expect([large(2), blocksOf(3, 2, 2, 2), large(4)].some((allowed) => allowed.equals(found))).toBe(true)
    }
  })

  it('is never in a slot that a checkpoint is giving back', async () => {
    let givenBack = 0
    for (let events = 0; events < 40; events++) {
      const wrap = (disk: Disk): Disk => ({
        ...disk,
        punchMany: (ranges) => {
          givenBack += ranges.length
          return disk.punchMany(ranges)
        },
      })
      const bench = await StoreBench.open({ ...options, seed: events, wrap })
      await createLarge(bench, 1, true)
      await bench.settle()
      await overwrite(bench, 2, true)
      bench.store.startCheckpoint()
      await bench.isBusyAfter(new Promise(() => {}), events)
      await overwrite(bench, 3, false)
      await bench.checkpointed(1)
      expect(await bench.read(OBJECT, 0, LARGE)).toEqual(large(3))
      await bench.sync()
      await bench.restart('powerLoss')
      expect(await bench.read(OBJECT, 0, LARGE)).toEqual(large(3))
    }
    expect(givenBack).toBeGreaterThan(20)
  })

  it('has its old slot given back when the segment of the journal is free already, so that writes do not wait for that', async () => {
    let held: Promise<void> | null = null
    let punched = 0
    const wrap = (disk: Disk): Disk => ({
      ...disk,
      punchMany: async (ranges) => {
        await held
        punched += ranges.length
        return disk.punchMany(ranges)
      },
    })
    const bench = await StoreBench.open({ ...options, keptBytesMax: 0, wrap })
    await createLarge(bench, 1, true)
    await bench.settle()
    await overwrite(bench, 2, true)
    let goOn: () => void = () => {}
    held = new Promise<void>((resolve) => {
      goOn = resolve
    })
    punched = 0
    bench.store.startCheckpoint()
    // Of 40 pages each: more than one segment has room for, if the checkpoint keeps the other.
    for (let fill = 3; fill < 33; fill++) await writeSmall(bench, fill, false)
    expect(punched).toBe(0)
    goOn()
    await bench.checkpointed(1)
    expect(punched).toBe(1)
    await bench.restart('powerLoss')
    expect(await bench.read(OBJECT, 1, LARGE - 1)).toEqual(blocksOf(2, 2, 2))
  })

  it('is placed also while a checkpoint is at work on what was before it, small or large', async () => {
    const never = new Promise(() => {})
    let placedMeanwhile = 0
    for (let events = 0; events < 40; events++) {
      for (const isSmall of [false, true]) {
        const { bench, writes } = await openWatched(events + 1)
        await createLarge(bench, 1, true)
        await bench.settle()
        await overwrite(bench, 2, true)
        if (isSmall) await writeSmall(bench, 3, true)
        const before = isSmall ? blocksOf(3, 2, 2, 2) : large(2)
        const { checkpoints } = await bench.clock.run(bench.store.stats())
        bench.store.startCheckpoint()
        await bench.isBusyAfter(never, events)
        const written = writes.length
        await overwrite(bench, 4, events % 2 === 0)
        const { checkpoints: done } = await bench.clock.run(bench.store.stats())
        if (writes.length > written && done === checkpoints) placedMeanwhile++
        await bench.isBusyAfter(never, events % 7)
        await bench.restart(events % 3 === 0 ? 'kill' : 'powerLoss')
        const found = await bench.read(OBJECT, 0, LARGE)
        const allowed = events % 2 === 0 || events % 3 === 0 ? [large(4)] : [large(4), before]
        expect(allowed.some((bytes) => bytes.equals(found))).toBe(true)
        expect(await bench.corruptBlocks()).toBe(0)
      }
    }
    expect(placedMeanwhile).toBeGreaterThan(0)
  })

  it('that is durable is not given back by the checkpoint of what was before, though a small one has replaced it', async () => {
    const never = new Promise(() => {})
    for (let seed = 0; seed < 96; seed++) {
      const { bench } = await openWatched(seed)
      await createLarge(bench, 1, true)
      await bench.settle()
      await overwrite(bench, 2, true)
      bench.store.startCheckpoint()
      await bench.isBusyAfter(never, seed % 8)
      const change = (bytes: Buffer, durable: boolean) =>
        bench.store.using(OBJECT, (object) => bench.submit([{ kind: 'blocks', object, first: 0, bytes }], { durable }))
      const durable = change(large(3), true)
      await bench.isBusyAfter(never, 1 + (seed % 3))
      const other = change(blocksOf(4), false)
      await bench.clock.run(Promise.all([durable, other]))
      await bench.isBusyAfter(never, 40)
      await bench.restart('powerLoss')
      const found = await bench.read(OBJECT, 0, LARGE)
      expect([large(3), blocksOf(4, 3, 3, 3)].some((allowed) => allowed.equals(found))).toBe(true)
    }
  })

  it('whose frame is cut after loss of power leaves the accounts known, also to the start after the next one', async () => {
    for (let seed = 1; seed <= 40; seed++) {
      const { bench } = await openWatched(seed)
      await createLarge(bench, 1, true)
      await bench.settle()
      await overwrite(bench, 2, false)
      for (const how of ['powerLoss', 'kill'] as const) {
        await bench.restart(how)
        expect(bench.store.accountsKnown).toBe(true)
      }
    }
  })

  it('to a block that a checkpoint is about to name leaves alone what was synced in between', async () => {
    const others = Array.from({ length: 20 }, (_, i) => OBJECT + BigInt(1 + i))
    for (let seed = 1; seed <= 20; seed++) {
      const { bench } = await openWatched(seed)
      await createLarge(bench, 1, true)
      await bench.create(...others)
      await bench.settle()
      await overwrite(bench, 2, true)
      await bench.commit(others.map((oid) => ({ kind: 'remove' as const, oid }))) // they keep the checkpoint busy first
      bench.store.startCheckpoint()
      await overwrite(bench, 3, true)
      await overwrite(bench, 4, false)
      expect((await bench.clock.run(bench.store.stats())).checkpoints).toBe(0)
      await bench.checkpointed(1)
      await bench.restart('powerLoss')
      const found = await bench.read(OBJECT, 0, LARGE)
      expect([large(3), large(4)].some((allowed) => allowed.equals(found))).toBe(true)
    }
  })

  it('of an object that was removed afterwards costs nothing of what followed when its bytes are lost', async () => {
    for (let seed = 1; seed <= 20; seed++) {
      const { bench } = await openWatched(seed)
      await createLarge(bench, 1, true)
      await bench.create(OBJECT + 1n)
      await bench.settle()
      await overwrite(bench, 2, false)
      await bench.commit([{ kind: 'remove', oid: OBJECT }], { durable: false })
      await bench.commit([{ kind: 'create', oid: OBJECT + 2n, runs: [] }], { durable: false })
      for (const path of ['journal.0', 'journal.1']) await writeBack(bench, path)
      await bench.restart('powerLoss')
      expect([OBJECT, OBJECT + 1n, OBJECT + 2n].map((oid) => bench.store.exists(oid))).toEqual([false, true, true])
    }
  })

  it('cut off in the middle of replacing another leaves a mix of the two, and nothing after it is lost', async () => {
    for (const cutAt of [0, 100, BLOCK_BYTES, 2.5 * BLOCK_BYTES]) {
      const { bench, control } = await openWatched()
      await createLarge(bench, 1, true)
      await overwrite(bench, 2, false)
      control.limit = () => cutAt
      await overwrite(bench, 3, false)
      control.limit = (length) => length
      await overwrite(bench, 4, false, LARGE)
      await bench.restart('kill')
      const mixed = Buffer.concat([large(3).subarray(0, cutAt), large(2).subarray(cutAt)])
      for (const how of ['kill', 'powerLoss'] as const) {
        expect((await bench.read(OBJECT, 0, LARGE)).equals(mixed)).toBe(true)
        expect(await bench.read(OBJECT, LARGE, LARGE)).toEqual(large(4))
        await bench.restart(how) // what the first start has accepted lasts
      }
      expect(await bench.corruptBlocks()).toBe(0)
    }
  })

  it('that finds no room in the object file goes through the journal', async () => {
    const { bench, control } = await openWatched()
    await createLarge(bench, 1, true)
    control.limit = () => {
      throw Object.assign(new Error('no space'), { code: 'ENOSPC' })
    }
    await overwrite(bench, 2, true)
    expect(await bench.read(OBJECT, 0, LARGE)).toEqual(large(2))
    control.limit = (length) => length
    await bench.restart('powerLoss')
    expect(await bench.read(OBJECT, 0, LARGE)).toEqual(large(2))
  })

  it('that the disk refuses takes the whole store with it', async () => {
    const { bench, control } = await openWatched()
    await createLarge(bench, 1, true)
    control.limit = () => {
      throw Object.assign(new Error('broken'), { code: 'EIO' })
    }
    await expect(overwrite(bench, 2, true)).rejects.toMatchObject({ code: 'DiskFailed' })
    expect(bench.failure).toMatchObject({ code: 'DiskFailed' })
  })

  it('that finds no room for a new object gives back what it has taken, and leaves no file open', async () => {
    const { bench, control } = await openWatched()
    control.limit = () => {
      throw Object.assign(new Error('no space'), { code: 'ENOSPC' })
    }
    await createLarge(bench, 1, true)
    await bench.close()
    expect(bench.disk.paths().filter((path) => path.startsWith('obj/'))).toEqual([PATH])
    expect(bench.disk.openFiles).toBe(0)
    await bench.open()
    expect(await bench.read(OBJECT, 0, LARGE)).toEqual(large(1))
  })

  it('that finds room for a part only gives that part back', async () => {
    const { bench, control } = await openWatched()
    await createLarge(bench, 1, true)
    await bench.settle()
    let room = 1
    control.limit = (length) => {
      if (room-- > 0) return length
      throw Object.assign(new Error('no space'), { code: 'ENOSPC' })
    }
    // Its first two blocks go to the other slot of what there is, and the rest to where there was nothing.
    await overwrite(bench, 3, true, LARGE - 2)
    await bench.settle()
    expect(await bench.read(OBJECT, 0, 2 * LARGE - 2)).toEqual(
      Buffer.concat([large(1).subarray(0, 2 * BLOCK_BYTES), large(3)]),
    )
    for (let block = 0; block < 2 * LARGE - 2; block++) {
      const pages = ([0, 1] as const).filter((slot) =>
        bench.disk.hasPage(PATH, blockPosition(block, slot) / BLOCK_BYTES),
      )
      expect(pages).toHaveLength(1)
    }
  })

  it('is answered before a full disk has that part back, which no checkpoint overtakes and nothing is placed beside', async () => {
    const { bench, writes, control, heldPunches } = await openWatched()
    await createLarge(bench, 1, true)
    await bench.settle()
    const goOn = heldPunches()
    let room = 1
    control.limit = (length) => {
      if (room-- > 0) return length
      throw Object.assign(new Error('no space'), { code: 'ENOSPC' })
    }
    await overwrite(bench, 2, true, LARGE - 2)
    control.limit = (length) => length
    writes.length = 0
    await overwrite(bench, 3, true, LARGE - 2)
    await overwrite(bench, 4, true, 2 * LARGE)
    expect(writes).toEqual([])
    bench.store.startCheckpoint()
    await expect(bench.checkpointed(1)).rejects.toThrow('nothing is left to happen')
    goOn()
    await bench.checkpointed(1)
    await bench.restart('powerLoss')
    expect(await bench.read(OBJECT, LARGE - 2, LARGE)).toEqual(large(3))
    expect(await bench.read(OBJECT, 2 * LARGE, LARGE)).toEqual(large(4))
    expect(await bench.corruptBlocks()).toBe(0)
  })

  it('whose file of a new object the journal never heard of leaves none behind', async () => {
    const { bench, control } = await openWatched()
    control.limit = () => {
      bench.disk.kill() // in the middle of it
      return 0
    }
    createLarge(bench, 1, true).catch(() => {})
    expect(bench.disk.paths().filter((path) => path.startsWith('obj/'))).toHaveLength(1) // under a name with a tag
    control.limit = (length) => length
    await bench.open()
    expect(bench.disk.paths().filter((path) => path.startsWith('obj/'))).toEqual([])
    expect(bench.store.exists(OBJECT)).toBe(false)
  })

  it('that rot has reached is refused, and not taken for a torn tail, once it is known to be durable', async () => {
    const { bench } = await openWatched()
    await createLarge(bench, 1, true)
    await overwrite(bench, 2, true, LARGE) // its frame proves that the first one was synced
    bench.disk.kill()
    const tagged = bench.disk.paths().find((path) => path.startsWith('obj/'))!
    bench.disk.flipBit(tagged, blockPosition(1, 0) + 17)
    await bench.open()
    await expect(bench.read(OBJECT, 1)).rejects.toMatchObject({ code: 'CorruptBlock' })
    expect(await bench.read(OBJECT, LARGE, LARGE)).toEqual(large(2))
  })

  it('goes through the journal when too many files would be open for it, until a checkpoint has closed some', async () => {
    const bench = await StoreBench.open({ ...options, openFilesMax: 40, segmentBlocks: 800 })
    const filesOfStore = bench.disk.openFiles
    const oids = Array.from({ length: 60 }, (_, i) => OBJECT + BigInt(i))
    let open = 0
    for (const oid of oids) {
      await bench.commit(
        [
          { kind: 'create', oid, runs: [] },
          { kind: 'blocks', object: oid, first: 0, bytes: large(1) },
        ],
        { durable: false },
      )
      open = Math.max(open, bench.disk.openFiles - filesOfStore)
    }
    expect(open).toBeLessThanOrEqual(40)
    for (const oid of oids) {
      await bench.clock.run(
        bench.store.using(oid, (object) =>
          bench.submit([{ kind: 'blocks', object, first: 0, bytes: large(2) }], { durable: false }),
        ),
      )
      open = Math.max(open, bench.disk.openFiles - filesOfStore)
    }
    expect(open).toBeLessThanOrEqual(40)
    const inOneGeneration = 0.2 * 40
    expect(bench.store.measures().placedBytes).toBeGreaterThan(inOneGeneration * LARGE * BLOCK_BYTES)
    await bench.restart('kill')
    for (const oid of oids) expect((await bench.read(oid, 0, LARGE)).equals(large(2))).toBe(true)
    expect(bench.disk.openFiles - filesOfStore).toBeLessThanOrEqual(40)
  })
})
