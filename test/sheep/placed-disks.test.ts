import { describe, expect, it, vi } from 'vitest'
import { BLOCK_BYTES, objectPath } from '../../src/sheep/object-format.ts'
import type { Change } from '../../src/sheep/object-store.ts'
import { blocksOf, OBJECT, StoreBench } from './store-bench.ts'

vi.setConfig({ testTimeout: 300_000 })

const LARGE = 4
const A = '/disk/a'
const B = '/disk/b'
const OIDS = Array.from({ length: 8 }, (_, i) => OBJECT + BigInt(i))
const INODE = (1n << 63n) | OBJECT

const open = (options: { seed?: number; configured?: string[] } = {}) =>
  StoreBench.open({ dataDisks: [A, B], configured: [A], placedMinBytes: LARGE * BLOCK_BYTES, ...options })

const large = (fill: number) => blocksOf(...new Array<number>(LARGE).fill(fill))

const creating = (oid: bigint, fill: number): Change[] => [
  { kind: 'create', oid, runs: [] },
  { kind: 'blocks', object: oid, first: 0, bytes: large(fill) },
]

async function overwrite(bench: StoreBench, oid: bigint, fill: number, durable: boolean): Promise<void> {
  await bench.clock.run(
    bench.store.using(oid, (object) =>
      bench.submit([{ kind: 'blocks', object, first: 0, bytes: large(fill) }], { durable }),
    ),
  )
}

/** A large write to each object, each of them new; half of the objects are on the second disk. */
async function createAll(
  bench: StoreBench,
  fill: number,
  durable: boolean,
): Promise<{ onA: bigint[]; onHome: bigint[] }> {
  for (const oid of OIDS) await bench.commit(creating(oid, fill), { durable })
  const isOn = (path: string, oid: bigint) =>
    bench.dataDisks
      .get(path)!
      .paths()
      .some((name) => name.startsWith(objectPath(oid)))
  return { onA: OIDS.filter((oid) => isOn(A, oid)), onHome: OIDS.filter((oid) => !isOn(A, oid) && !isOn(B, oid)) }
}

const found = (bench: StoreBench, oid: bigint) => bench.read(oid, 0, LARGE)

async function isLost(bench: StoreBench, oid: bigint): Promise<boolean> {
  if (!bench.store.exists(oid)) return bench.store.disks.lossOf(oid) !== null
  const error = await found(bench, oid).catch((reason) => reason)
  expect(error).toMatchObject({ code: 'DiskFailed' })
  return true
}

const stateOf = async (bench: StoreBench, path: string) =>
  (await bench.clock.run(bench.store.disks.list())).find((disk) => disk.path === path)?.state

describe('a large write on another disk than the first', () => {
  it('is written once, to its object file, and survives loss of power when it is acknowledged as durable', async () => {
    for (let seed = 1; seed <= 3; seed++) {
      const bench = await open({ seed })
      const { onA } = await createAll(bench, 1, true)
      for (const oid of OIDS) await overwrite(bench, oid, 2, true)
      const { placedBytes, journal } = bench.store.measures()
      expect(placedBytes).toBe(2 * OIDS.length * LARGE * BLOCK_BYTES)
      expect(journal.bytes).toBe(2 * OIDS.length * BLOCK_BYTES) // a page of records for each
      expect(onA.length).toBeGreaterThan(0)
      for (const how of ['powerLoss', 'kill'] as const) {
        await bench.restart(how)
        for (const oid of OIDS) expect(await found(bench, oid)).toEqual(large(2))
      }
    }
  })

  it('that nobody has synced is there as a whole after loss of power, or what was before it is', async () => {
    for (let seed = 1; seed <= 30; seed++) {
      const bench = await open({ seed })
      const { onA } = await createAll(bench, 1, true)
      await bench.settle()
      for (const fill of [2, 3]) for (const oid of OIDS) await overwrite(bench, oid, fill, false)
      await bench.restart('powerLoss')
      for (const oid of onA) {
        const bytes = await found(bench, oid)
        expect([1, 2, 3].some((fill) => large(fill).equals(bytes))).toBe(true)
      }
      expect(await bench.corruptBlocks()).toBe(0)
    }
  })

  it('is proved anew when its disk alone has lost its page cache, and what was synced is there', async () => {
    let lost = 0
    for (let seed = 1; seed <= 30; seed++) {
      const bench = await open({ seed })
      const { onA } = await createAll(bench, 1, true)
      for (const oid of OIDS) await overwrite(bench, oid, 2, false)
      bench.disk.kill()
      bench.dataDisks.get(A)!.powerLoss()
      await bench.open()
      for (const how of ['kill', 'powerLoss'] as const) {
        for (const oid of onA) {
          const bytes = await found(bench, oid)
          expect([1, 2].some((fill) => large(fill).equals(bytes))).toBe(true)
          if (bytes.equals(large(1))) lost++
        }
        expect(await bench.corruptBlocks()).toBe(0)
        await bench.restart(how) // what the first start has found lasts
      }
    }
    expect(lost).toBeGreaterThan(0)
  })

  it('whose name did not survive loss of power is not taken for lost with a disk that failed before', async () => {
    let missing = 0
    for (let seed = 1; seed <= 12; seed++) {
      const bench = await open({ seed, configured: [A, B] })
      bench.dataDisks.get(A)!.operationsLeft = 0
      expect(await stateOf(bench, A)).toBe('failed')
      await createAll(bench, 1, true) // the list says so from here on
      const late = OIDS.map((oid) => oid + 100n)
      for (const oid of late) {
        await bench.commit([...creating(oid, 2), { kind: 'create', oid: INODE + oid, runs: [] }], { durable: false })
      }
      await bench.restart('powerLoss')
      for (const oid of OIDS) expect(await found(bench, oid)).toEqual(large(1))
      for (const oid of late) {
        expect(bench.store.exists(oid)).toBe(bench.store.exists(INODE + oid))
        if (!bench.store.exists(oid)) missing++
        else expect(await found(bench, oid)).toEqual(large(2))
      }
    }
    expect(missing).toBeGreaterThan(0)
  })
})

describe('a disk with large writes that nobody has synced', () => {
  it('that fails takes them with it: they answer DiskFailed, also when it works again after the next start', async () => {
    let failed = 0
    for (let operations = 0; operations < 6; operations++) {
      for (const isSettled of [false, true]) {
        const bench = await open({ seed: 1 + operations })
        const { onA, onHome } = await createAll(bench, 1, false)
        if (isSettled) {
          await bench.settle()
          for (const oid of OIDS) await overwrite(bench, oid, 2, false)
        }
        const disk = bench.dataDisks.get(A)!
        disk.operationsLeft = operations
        await bench.sync()
        if (bench.store.disks.lossOf(onA[0]!) === null) continue // all of it is durable
        failed++
        for (const oid of onHome) expect(await found(bench, oid)).toEqual(large(isSettled ? 2 : 1))
        for (const oid of onA) expect(await isLost(bench, oid)).toBe(true)
        expect(bench.failure).toBeNull()
        // What was acknowledged must not be there as it was before, whatever the disk says now.
        disk.operationsLeft = null
        await bench.restart(operations % 2 === 0 ? 'kill' : 'powerLoss')
        expect(await stateOf(bench, A)).toBe('failed')
        for (const oid of onA) expect(await isLost(bench, oid)).toBe(true)
        for (const oid of onHome) expect(await found(bench, oid)).toEqual(large(isSettled ? 2 : 1))
      }
    }
    expect(failed).toBeGreaterThan(4)
  })

  it('that is missing at the next start costs nothing that was durable elsewhere in the same frames', async () => {
    for (const how of ['kill', 'powerLoss'] as const) {
      const bench = await open()
      await bench.clock.run(Promise.all(OIDS.map((oid) => bench.submit(creating(oid, 1), { durable: true }))))
      const onA = OIDS.filter((oid) => bench.dataDisks.get(A)!.hasEverHad(objectPath(oid)))
      expect(onA.length).toBeGreaterThan(0)
      bench.disk[how]()
      bench.dataDisks.get(A)!.isGone = true
      bench.configure({ configured: [], without: [A] })
      await bench.open()
      for (const oid of OIDS) {
        if (onA.includes(oid)) expect(await isLost(bench, oid)).toBe(true)
        else expect(await found(bench, oid)).toEqual(large(1))
      }
    }
  })

  it('that fails in the middle of such a write refuses it, and what is new goes elsewhere through the journal', async () => {
    for (let operations = 0; operations < 3; operations++) {
      const bench = await open()
      const { onA, onHome } = await createAll(bench, 1, true)
      await bench.settle()
      for (const oid of onA) await found(bench, oid) // loaded
      const disk = bench.dataDisks.get(A)!
      disk.operationsLeft = operations
      const outcomes: unknown[] = []
      for (const oid of [...onA, ...onA]) await overwrite(bench, oid, 2, false).catch((error) => outcomes.push(error))
      expect(outcomes.length).toBeGreaterThan(0)
      for (const error of outcomes) expect(error).toMatchObject({ code: 'DiskFailed' })
      for (const oid of onA) expect(await isLost(bench, oid)).toBe(true)
      const fresh = await open({ seed: 2 })
      fresh.dataDisks.get(A)!.operationsLeft = operations
      for (const oid of OIDS) {
        await fresh.commit(creating(oid, 3), { durable: false })
      }
      expect(fresh.failure).toBeNull()
      for (const oid of onHome) expect(await found(bench, oid)).toEqual(large(1))
    }
  })

  it('that fails and is forgotten at once leaves a journal that the next start can replay', async () => {
    const bench = await open()
    const { onA, onHome } = await createAll(bench, 1, true)
    await bench.settle()
    for (const oid of OIDS) await overwrite(bench, oid, 2, true)
    bench.dataDisks.get(A)!.operationsLeft = 0
    expect(await stateOf(bench, A)).toBe('failed')
    await bench.clock.run(bench.store.disks.unplug(A))
    expect(await stateOf(bench, A)).toBeUndefined()
    bench.configure({ configured: [] })
    for (const how of ['kill', 'powerLoss'] as const) {
      await bench.restart(how)
      for (const oid of onHome) expect(await found(bench, oid)).toEqual(large(2))
      for (const oid of onA) expect(bench.store.exists(oid)).toBe(false)
    }
  })
})

describe('unplugging a disk under large writes', () => {
  it('makes what was not synced durable in both files of an object before there are two', async () => {
    let moved = 0
    for (let moment = 0; moment < 24; moment++) {
      const bench = await open({ seed: 1 + moment, configured: [A, B] })
      const { onA } = await createAll(bench, 1, true)
      await bench.settle()
      const oid = onA[0]
      if (oid === undefined) continue
      await overwrite(bench, oid, 2, false)
      bench.configure({ configured: [] })
      const unplugging = bench.store.disks.unplug(A)
      const disks = [bench.disk, ...bench.dataDisks.values()]
      const names = () => disks.filter((disk) => disk.paths().includes(objectPath(oid)))
      while (names().length < 2) expect(await bench.isBusyAfter(unplugging, 1)).toBe(true)
      await bench.isBusyAfter(unplugging, moment % 12)
      await bench.sync()
      if (names().length === 2) moved++
      await bench.restart('powerLoss')
      expect(await found(bench, oid)).toEqual(large(2))
    }
    expect(moved).toBeGreaterThan(3)
  })

  it('cut off by loss of power at any moment loses none that was acknowledged as durable', async () => {
    let cut = 0
    for (let moment = 0; moment < 200; moment += 14) {
      const bench = await open({ seed: moment })
      await createAll(bench, 1, true)
      await bench.settle()
      for (const oid of OIDS) await overwrite(bench, oid, 2, false)
      bench.configure({ configured: [] })
      const busy = bench.isBusyAfter(bench.store.disks.unplug(A), moment)
      if (await busy) cut++
      await bench.sync()
      const expected = new Map(OIDS.map((oid) => [oid, 2]))
      for (const oid of OIDS.slice(0, 3)) {
        await overwrite(bench, oid, 3, true)
        expected.set(oid, 3)
      }
      await bench.restart('powerLoss')
      for (const [oid, fill] of expected) expect(await found(bench, oid)).toEqual(large(fill))
    }
    expect(cut).toBeGreaterThan(5)
  })
})
