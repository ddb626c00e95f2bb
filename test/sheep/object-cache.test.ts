import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { ObjectCache } from '../../src/sheep/object-cache.ts'
import { StoredObject } from '../../src/sheep/stored-object.ts'
import { SimClock } from '../sim/clock.ts'
import { SimDisk } from '../sim/disk.ts'
import { SeededRandom } from '../sim/random.ts'

/** Objects that no checkpoint has seen yet, which thus must stay loaded, and many more than there is room for. */
function cacheOfFresh(count: number): { cache: ObjectCache; objects: StoredObject[] } {
  const random = new SeededRandom(1)
  const cache = new ObjectCache({
    disk: new SimDisk(random, new SimClock(random)).mount(),
    log: pino({ level: 'silent' }),
    storeId: Buffer.alloc(16),
    objects: new Map(),
    loadedMax: 16,
  })
  const objects = Array.from({ length: count }, (_, i) => new StoredObject(BigInt(i)))
  for (const object of objects) {
    object.fresh = true
    object.table = new Uint32Array(0)
    cache.add(object)
  }
  return { cache, objects }
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
