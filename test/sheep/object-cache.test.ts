import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { ObjectCache } from '../../src/sheep/object-cache.ts'
import {
  BLOCK_BYTES,
  encodeHeader,
  HEADER_OFFSET,
  newTable,
  OBJECT_FILE_BYTES,
  objectPath,
  TABLE_OFFSET,
} from '../../src/sheep/object-format.ts'
import { StoredObject } from '../../src/sheep/stored-object.ts'
import { SimClock } from '../sim/clock.ts'
import { SimDisk } from '../sim/disk.ts'
import { SeededRandom } from '../sim/random.ts'
import { bytesInUse } from '../tools/heap.ts'

/** Objects that no checkpoint has seen yet, which thus must stay loaded, and many more than there is room for. */
function cacheOfFresh(count: number, loadedMax = 16): { cache: ObjectCache; objects: StoredObject[] } {
  const random = new SeededRandom(1)
  const cache = new ObjectCache({
    disk: new SimDisk(random, new SimClock(random)).mount(),
    log: pino({ level: 'silent' }),
    storeId: Buffer.alloc(16),
    objects: new Map(),
    loadedMax,
  })
  const objects = Array.from({ length: count }, (_, i) => new StoredObject(BigInt(i)))
  for (const object of objects) {
    object.fresh = true
    object.table = new Uint32Array(0)
    cache.add(object)
  }
  return { cache, objects }
}

/** Adds objects and removes them, a few at a time; what became of each can be asked for. */
function addAndRemove(cache: ObjectCache, count: number): WeakRef<StoredObject>[] {
  const refs: WeakRef<StoredObject>[] = []
  while (refs.length < count) {
    const objects = Array.from({ length: 50 }, (_, i) => new StoredObject(BigInt(1000 + refs.length + i)))
    for (const object of objects) cache.add(object)
    for (const object of objects) cache.remove(object)
    refs.push(...objects.map((object) => new WeakRef(object)))
  }
  return refs
}

/** Microseconds of the processor for each release, the best of some tries. */
function releaseCost({ cache, objects }: { cache: ObjectCache; objects: StoredObject[] }): number {
  const tries = Array.from({ length: 5 }, () => {
    const before = process.cpuUsage()
    for (let i = 0; i < 400; i++) {
      cache.holdLoaded(objects[i % objects.length]!)
      cache.release(objects[i % objects.length]!)
    }
    const { user, system } = process.cpuUsage(before)
    return (user + system) / 400
  })
  return Math.min(...tries)
}

/** Objects of whom each has a file, and none is loaded; room for a few. */
async function cacheOfFiles(count: number, loadedMax: number) {
  const random = new SeededRandom(1)
  const clock = new SimClock(random)
  const disk = new SimDisk(random, clock, { wouldBlock: 0 })
  const storeId = Buffer.alloc(16, 3)
  const objects = Array.from({ length: count }, (_, i) => new StoredObject(BigInt(i)))
  for (const { oid, words } of objects) {
    const table = Buffer.from(newTable(words, 1, []).buffer)
    const pages = [table.subarray(0, 4096), table.subarray(4096), encodeHeader({ storeId, oid, version: 1 })]
    const at = TABLE_OFFSET / BLOCK_BYTES
    disk.placeSparse(objectPath(oid), new Map(pages.map((page, i) => [at + i, page])), OBJECT_FILE_BYTES)
  }
  const log = pino({ level: 'silent' })
  const byOid = new Map(objects.map((object) => [object.oid, object]))
  const cache = new ObjectCache({ disk: disk.mount(), log, storeId, objects: byOid, loadedMax })
  return { cache, disk, clock, objects }
}

describe('objects whose tables are in memory', () => {
  it('are loaded without waiting, stay so until the caller waits, and give way then', async () => {
    const { cache, disk, objects } = await cacheOfFiles(200, 16)
    const loaded = objects.map(({ oid }) => cache.loadedNow(oid))
    expect(loaded).toEqual(objects)
    expect(loaded.every((object) => object?.loaded)).toBe(true)
    expect(disk.openFiles).toBe(200)
    for (let round = 0; round < 2; round++) {
      for (const object of objects) {
        await cache.hold(object.oid)
        cache.release(object)
      }
    }
    expect(cache.loaded).toBe(16)
    for (const { oid } of objects) {
      cache.loadedNow(oid)
      await null
    }
    expect(cache.loaded).toBeLessThanOrEqual(16 + 2)
    expect(disk.openFiles).toBe(cache.loaded)
  })

  it('are left to `hold` when the device would have to be asked, or is damaged', async () => {
    const { cache, disk, clock, objects } = await cacheOfFiles(3, 16)
    disk.faults.wouldBlock = 1
    expect(cache.loadedNow(0n)).toBeNull()
    const held = clock.run(cache.hold(0n))
    expect(cache.loadedNow(0n)).toBeNull() // it is on its way
    await held
    expect(cache.loadedNow(0n)).toBe(objects[0])
    disk.faults.wouldBlock = 0
    disk.flipBit(objectPath(1n), HEADER_OFFSET)
    expect(cache.loadedNow(1n)).toBeNull()
    disk.remove(objectPath(2n))
    expect(cache.loadedNow(2n)).toBeNull()
    for (const oid of [1n, 2n]) await expect(clock.run(cache.hold(oid))).rejects.toMatchObject({ code: 'CorruptBlock' })
    await null // a file that was opened in vain is closed
    expect(disk.openFiles).toBe(1)
    expect(cache.loadedNow(7n)).toBeUndefined()
  })
})

describe('objects that must stay loaded', () => {
  it('are passed by at the same cost, however many they are', () => {
    const few = releaseCost(cacheOfFresh(100))
    const many = releaseCost(cacheOfFresh(20_000))
    // A look that starts at the front each time passes thousands of places of those that were there before: 100 times as much.
    expect(many).toBeLessThan(10 * few + 20)
  })

  it('do not keep others from being evicted once they need not', () => {
    const { cache, objects } = cacheOfFresh(100)
    for (const object of objects.slice(0, 90)) object.fresh = false
    for (let i = 0; i < 4; i++) {
      cache.holdLoaded(objects[95]!)
      cache.release(objects[95]!)
    }
    expect(cache.loaded).toBe(16)
    expect(objects.filter(({ loaded }) => loaded)).toEqual(expect.arrayContaining(objects.slice(90)))
  })
})

describe('objects that are removed', () => {
  it.each([0, 100])('are forgotten, beside %d that stay and without need of an eviction', async (staying) => {
    const { cache } = cacheOfFresh(staying, 4096)
    const refs = addAndRemove(cache, 1000)
    await new Promise(setImmediate) // a WeakRef that was made in this turn counts as a use
    bytesInUse()
    expect(refs.filter((ref) => ref.deref() !== undefined)).toEqual([])
    expect(cache.loaded).toBe(staying)
  })
})

describe('the objects of a VDI', () => {
  it('are those that were there when they were first asked for, and those that came since, without those that went', () => {
    const { cache } = cacheOfFresh(0)
    const [one, two, other] = [5n, 6n].flatMap((vid) => [
      new StoredObject(vid << 32n),
      new StoredObject((vid << 32n) | 1n),
    ])
    const all = () => [5, 6, 7].map((vid) => [...cache.oidsOf(vid)])
    cache.add(one!)
    cache.add(other!)
    expect(all()).toEqual([[one!.oid], [other!.oid], []])
    cache.add(two!)
    cache.remove(other!)
    expect(all()).toEqual([[one!.oid, two!.oid], [], []])
    cache.remove(one!)
    cache.add(other!)
    expect(all()).toEqual([[two!.oid], [other!.oid], []])
  })
})
