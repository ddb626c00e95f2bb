import { describe, expect, it } from 'vitest'
import { BLOCK_BYTES, objectPath } from '../../src/sheep/object-format.ts'
import { SimDisk } from '../sim/disk.ts'
import { blocksOf, OBJECT, StoreBench } from './store-bench.ts'

const A = '/disk/a'
const B = '/disk/b'
const OIDS = Array.from({ length: 12 }, (_, i) => OBJECT + BigInt(i))
const INODE = (1n << 63n) | OBJECT

const open = (options: { seed?: number; configured?: string[]; reserveBytes?: number } = {}) =>
  StoreBench.open({ dataDisks: [A, B], ...options })

/** Two blocks for each object, in two transactions. */
async function fill(bench: StoreBench, oids: readonly bigint[] = OIDS): Promise<void> {
  for (const half of [oids.slice(0, oids.length / 2), oids.slice(oids.length / 2)]) {
    await bench.commit(
      half.flatMap((oid) => [
        { kind: 'create' as const, oid, runs: [] },
        { kind: 'blocks' as const, object: oid, first: 0, bytes: blocksOf(1 + Number(oid & 0xffn), 7) },
      ]),
    )
  }
}

async function check(bench: StoreBench, oids: readonly bigint[] = OIDS): Promise<void> {
  for (const oid of oids) expect(await bench.read(oid, 0, 2)).toEqual(blocksOf(1 + Number(oid & 0xffn), 7))
}

const disksOf = (bench: StoreBench) => bench.clock.run(bench.store.disks.list())
const stateOf = async (bench: StoreBench, path: string) => (await disksOf(bench)).find((disk) => disk.path === path)
const objectsOn = (bench: StoreBench, path: string) =>
  OIDS.filter((oid) => bench.dataDisks.get(path)!.paths().includes(objectPath(oid)))

describe('objects on several disks', () => {
  it('are placed by room, on new disks too, and found again; maps stay on the first disk', async () => {
    const bench = await open({ configured: [A] })
    await fill(bench)
    await bench.create(INODE)
    await bench.settle()
    expect(objectsOn(bench, A).length).toBeGreaterThan(0)
    expect(bench.disk.paths()).toContain(objectPath(INODE))
    expect((await disksOf(bench)).map(({ path, state }) => [path, state])).toEqual([
      ['/first', 'ok'],
      [A, 'ok'],
    ])
    await bench.clock.run(bench.store.disks.plug(B))
    const later = OIDS.map((oid) => oid + 100n)
    await fill(bench, later)
    await bench.restart('powerLoss')
    expect((await stateOf(bench, B))?.objects).toBeGreaterThan(0)
    await check(bench)
    await check(bench, later)
  })

  it('go where there is room when one of the disks is full, and what grows on that one is refused', async () => {
    const bench = await open({ configured: [A] })
    await fill(bench)
    await bench.settle()
    const full = bench.dataDisks.get(A)!
    full.capacityBytes = 1
    full.capacityBytes = full.usedBytes()
    await bench.settle()
    const [onA] = objectsOn(bench, A)
    const onFirst = OIDS.find((oid) => !objectsOn(bench, A).includes(oid))!
    const object = await bench.clock.run(bench.store.hold(onA!))
    const other = await bench.clock.run(bench.store.hold(onFirst))
    expect(bench.store.hasRoom(object, BLOCK_BYTES)).toBe(false)
    expect(bench.store.hasRoom(other, BLOCK_BYTES)).toBe(true)
    expect(bench.store.hasRoomForNew(BLOCK_BYTES, BLOCK_BYTES)).toBe(true)
    const before = objectsOn(bench, A).length
    await fill(
      bench,
      OIDS.map((oid) => oid + 100n),
    )
    await bench.settle()
    expect((await stateOf(bench, A))?.objects).toBe(before)
    expect(bench.failure).toBeNull()
  })
})

describe('unplugging', () => {
  it('of two disks at once loses nothing that one is bringing to the other', async () => {
    for (let moment = 0; moment < 60; moment += 3) {
      const bench = await open({ seed: moment, configured: [A] })
      await fill(bench)
      await bench.settle()
      await bench.clock.run(bench.store.disks.plug(B))
      const first = bench.store.disks.unplug(A)
      await bench.isBusyAfter(new Promise(() => {}), moment)
      await bench.clock.run(Promise.all([first, bench.store.disks.unplug(B)]))
      for (const path of [A, B]) {
        expect(await stateOf(bench, path)).toBeUndefined()
        expect(
          bench.dataDisks
            .get(path)!
            .paths()
            .filter((name) => name.startsWith('obj/')),
        ).toEqual([])
      }
      bench.configure({ configured: [] })
      await bench.restart('powerLoss')
      await check(bench)
    }
  })

  it('moves everything away while it is written, and leaves a directory that may be plugged in again', async () => {
    const bench = await open({ configured: [A] })
    await fill(bench)
    await bench.settle()
    expect(objectsOn(bench, A).length).toBeGreaterThan(0)
    const unplugging = bench.store.disks.unplug(A)
    for (const oid of OIDS) await bench.write(oid, 2, 9)
    await bench.clock.run(unplugging)
    expect(objectsOn(bench, A)).toEqual([])
    expect(await stateOf(bench, A)).toBeUndefined()
    bench.configure({ configured: [] })
    await bench.restart('powerLoss')
    await check(bench)
    for (const oid of OIDS) expect(await bench.read(oid, 2)).toEqual(blocksOf(9))
    await bench.clock.run(bench.store.disks.plug(A))
  })

  it('that a crash cuts short at any moment goes on with the next start, and loses nothing', async () => {
    for (const how of ['kill', 'powerLoss'] as const) {
      let cut = 0
      for (let moment = 0; moment < 240; moment += 48) {
        const bench = await open({ configured: [A], seed: moment })
        await fill(bench)
        await bench.settle()
        bench.configure({ configured: [] })
        if (await bench.isBusyAfter(bench.store.disks.unplug(A), moment)) cut++
        await bench.restart(how)
        await check(bench)
        await bench.isBusyAfter(new Promise(() => {}), 1200)
        expect(await stateOf(bench, A)).toSatisfy((disk) => disk === undefined || disk.state === 'ok')
        await check(bench)
        const names = [bench.disk, bench.dataDisks.get(A)!].flatMap((disk) => disk.paths())
        expect(names.filter((name) => name.startsWith('obj/')).length).toBe(OIDS.length)
      }
      expect(cut).toBeGreaterThan(1)
    }
  })

  it('is refused when the others have no room, and for the first disk; the disk then stays in use', async () => {
    const bench = await open({ configured: [A] })
    await fill(bench)
    await bench.settle()
    bench.disk.capacityBytes = 1
    bench.disk.capacityBytes = bench.disk.usedBytes() + 2 * BLOCK_BYTES
    await bench.settle()
    await expect(bench.clock.run(bench.store.disks.unplug(A))).rejects.toMatchObject({ code: 'NoSpace' })
    expect((await stateOf(bench, A))?.state).toBe('ok')
    await expect(bench.clock.run(bench.store.disks.unplug('/first'))).rejects.toThrow(/cannot be unplugged/)
    await expect(bench.clock.run(bench.store.disks.unplug(B))).rejects.toThrow(/no disk of this store/)
    await check(bench)
  })
})

describe('a disk that fails', () => {
  it('at any operation costs its own objects alone, and no write to them is acknowledged after', async () => {
    for (const how of ['broken', 'gone'] as const) {
      for (let operations = 0; operations < 28; operations += 9) {
        const bench = await open({ configured: [A], seed: operations })
        await fill(bench)
        await bench.settle()
        const disk = bench.dataDisks.get(A)!
        const onA = objectsOn(bench, A)
        const others = OIDS.filter((oid) => !onA.includes(oid))
        if (how === 'gone') disk.isGone = true
        else disk.operationsLeft = operations
        for (let i = 0; i < 12; i++) await bench.write(others[i % others.length]!, 3, i)
        for (const oid of onA) await bench.write(oid, 3, 5).catch((error) => expect(error.code).toBe('DiskFailed'))
        await bench.clock.run(bench.store.stats())
        bench.store.startCheckpoint()
        await bench.isBusyAfter(new Promise(() => {}), 200)
        expect(bench.failure).toBeNull()
        expect((await stateOf(bench, A))?.state).toBe('failed')
        for (const oid of onA) {
          await expect(bench.write(oid, 0, 5)).rejects.toMatchObject({ code: 'DiskFailed' })
          await expect(bench.read(oid, 0)).rejects.toMatchObject({ code: 'DiskFailed' })
        }
        await check(bench, others)
        await fill(
          bench,
          OIDS.map((oid) => oid + 100n),
        )
        // It is out for good once a checkpoint has gone on without it, whatever it says later.
        const { checkpoints } = await bench.clock.run(bench.store.stats())
        bench.store.startCheckpoint()
        await bench.checkpointed(checkpoints + 1)
        disk.operationsLeft = null
        disk.isGone = false
        await bench.restart('powerLoss')
        await check(bench, others)
        await check(
          bench,
          OIDS.map((oid) => oid + 100n),
        )
        for (const oid of onA) expect(bench.store.disks.lossOf(oid)).toMatchObject({ code: 'DiskFailed' })
        bench.configure({ configured: [] })
        await bench.clock.run(bench.store.disks.unplug(A))
        expect(await stateOf(bench, A)).toBeUndefined()
        await bench.restart('kill')
      }
    }
  })

  it('can be taken out: no file on it stays open once it is unplugged', async () => {
    const bench = await open({ configured: [A] })
    await fill(bench)
    await bench.settle()
    await check(bench)
    const disk = bench.dataDisks.get(A)!
    expect(disk.openFiles).toBeGreaterThan(1)
    disk.operationsLeft = 0
    for (const oid of objectsOn(bench, A)) {
      await bench.write(oid, 3, 5).catch((error) => expect(error.code).toBe('DiskFailed'))
    }
    bench.store.startCheckpoint()
    await bench.isBusyAfter(new Promise(() => {}), 200)
    expect((await stateOf(bench, A))?.state).toBe('failed')
    await bench.clock.run(bench.store.disks.unplug(A))
    expect(disk.openFiles).toBe(0)
  })

  it('before the objects that are new on it have a file costs nothing: the journal has all of them', async () => {
    const bench = await open({ configured: [A, B] })
    await fill(bench)
    expect((await stateOf(bench, A))?.objects).toBeGreaterThan(0)
    bench.dataDisks.get(A)!.operationsLeft = 0
    await bench.close()
    bench.configure({ configured: [B], without: [A] })
    await bench.open()
    expect((await stateOf(bench, A))?.state).toBe('failed')
    await check(bench)
  })
})

describe('a disk that is found to be gone while a checkpoint makes and writes files on it', () => {
  /** Has new objects on two disks, and loses one of them after so many steps of their checkpoint. */
  async function lose(steps: number): Promise<StoreBench> {
    const bench = await open({ configured: [A, B], seed: steps })
    await fill(bench)
    bench.store.startCheckpoint()
    await bench.isBusyAfter(new Promise(() => {}), steps)
    bench.dataDisks.get(A)!.isGone = true
    await bench.clock.run(bench.store.stats())
    return bench
  }

  it('costs nothing that the journal has, and not the node', async () => {
    for (let steps = 12; steps < 32; steps++) {
      const bench = await lose(steps)
      await bench.isBusyAfter(new Promise(() => {}), 400)
      expect(bench.failure).toBeNull()
      const [{ checkpoints }, state] = [await bench.clock.run(bench.store.stats()), await stateOf(bench, A)]
      expect([checkpoints, state?.state]).toEqual([1, 'failed'])
      await check(bench)
    }
  })

  it('keeps its files open until the copying thread is done with them', async () => {
    for (let steps = 0; steps < 120; steps++) {
      const bench = await lose(steps)
      await bench.isBusyAfter(new Promise(() => {}), 200)
      expect(bench.dataDisks.get(A)!.closedInUse).toBe(0)
    }
  })
})

describe('a start', () => {
  it('without one of the disks is refused and says so, unless it is told that the disk is lost', async () => {
    const bench = await open({ configured: [A] })
    await fill(bench)
    await bench.close()
    const lost = objectsOn(bench, A)
    bench.dataDisks.get(A)!.isGone = true
    await expect(bench.open()).rejects.toThrow(/has objects on \/disk\/a: .*--without-disks=\/disk\/a/)
    bench.configure({ without: [A] })
    await bench.open()
    for (const oid of lost) expect(bench.store.exists(oid)).toBe(false)
    await check(
      bench,
      OIDS.filter((oid) => !lost.includes(oid)),
    )
    // Back again, it is as it was before things went on without it: too late.
    bench.dataDisks.get(A)!.isGone = false
    await bench.restart('powerLoss')
    expect((await stateOf(bench, A))?.state).toBe('failed')
  })

  it('finds a disk that is mounted elsewhere, by what it says of itself', async () => {
    const bench = await open({ configured: [A] })
    await fill(bench)
    await bench.close()
    const moved = bench.dataDisks.get(A)!
    bench.dataDisks.set('/elsewhere', moved)
    bench.dataDisks.delete(A)
    bench.configure({ configured: ['/elsewhere'] })
    await bench.open()
    await check(bench)
    expect((await stateOf(bench, '/elsewhere'))?.objects).toBeGreaterThan(0)
  })

  it('refuses a list of disks that is damaged', async () => {
    const bench = await open({ configured: [A] })
    await bench.close()
    await bench.patch('disks', 12, Buffer.from('x'))
    await expect(bench.open()).rejects.toMatchObject({ code: 'CorruptBlock' })
  })
})

describe('a directory', () => {
  it('becomes a disk only when it is empty, nobody uses it, and it is no part of another disk', async () => {
    const bench = await open({ configured: [A] })
    const plug = (path: string) => bench.clock.run(bench.store.disks.plug(path))
    await expect(plug('/nowhere')).rejects.toThrow(/no such directory/)
    await expect(plug(A)).rejects.toThrow(/is a disk of this store already/)
    bench.dataDisks.set(`${A}/inner`, bench.dataDisks.get(B)!)
    await expect(plug(`${A}/inner`)).rejects.toThrow(/it lies in \/disk\/a/)
    bench.dataDisks.set('/disk', bench.dataDisks.get(B)!)
    await expect(plug('/disk')).rejects.toThrow(/\/disk\/a, a disk of this store, lies in it/)
    const other = new StoreBench({ seed: 2, configured: [A] })
    const disk = new SimDisk(bench.random, bench.clock)
    other.dataDisks.set(A, new SimDisk(bench.random, bench.clock))
    await Object.assign(other, { clock: bench.clock, disk }).open()
    bench.dataDisks.set('/foreign', other.dataDisks.get(A)!)
    await expect(plug('/foreign')).rejects.toThrow(/a disk of another store/)
    bench.dataDisks.set('/full', other.disk)
    await expect(plug('/full')).rejects.toThrow(/not empty/)
    expect((await disksOf(bench)).length).toBe(2)
    await plug(B)
  })
})
