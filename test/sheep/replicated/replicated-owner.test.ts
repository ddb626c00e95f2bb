import { describe, expect, it } from 'vitest'
import { StoreError } from '../../../src/errors.ts'
import { dataOid, inodeOid, oidKind } from '../../../src/protocol/oid.ts'
import { ClusterState } from '../../../src/sheep/cluster-state.ts'
import { deferred } from '../../../src/sheep/copies/deferred.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT, OBJECT_BYTES } from '../../../src/sheep/object-format.ts'
import { ReplicatedFamily } from '../../../src/sheep/replicated/replicated-family.ts'
import type { ReplicatedObjects, WriteOptions } from '../../../src/sheep/replicated/replicated-objects.ts'
import type { ReplicatedOwner } from '../../../src/sheep/replicated/replicated-owner.ts'
import { SimClock } from '../../sim/clock.ts'
import { SeededRandom } from '../../sim/random.ts'
import { SimObjects } from './sim-objects.ts'

const VID = 7
const TIB = 2 ** 40
/** A question and its answer take 20 ms at most. */
const ROUND_MS = 20

interface Asked {
  what: keyof ReplicatedObjects
  oid: bigint
  blocks: number
  options: WriteOptions | null
}

/** One family with VDI 7, and what is asked of the copies. */
class Bench {
  readonly clock = new SimClock(new SeededRandom(1))
  readonly objects = new SimObjects(new SeededRandom(2))
  readonly asked: Asked[] = []
  /** What is done, and nobody can say so. */
  isUnsure: (asked: Asked) => boolean = () => false
  /** What the answer to a write waits for. */
  delay: (oid: bigint) => Promise<void> | null = () => null
  readonly family: ReplicatedFamily
  readonly #node = this.clock.node()

  constructor() {
    this.family = new ReplicatedFamily({
      family: VID,
      objects: this.#listening(this.objects.port(1, this.#node)),
      state: new ClusterState(),
      propose: async () => {},
    })
  }

  #listening(port: ReplicatedObjects): ReplicatedObjects {
    const note = (what: keyof ReplicatedObjects, oid = 0n, blocks = 0, options: WriteOptions | null = null) => {
      this.asked.push({ what, oid, blocks, options })
    }
    return {
      write: (oid, contents, options) => {
        const blocks = contents.blocks.reduce((sum, { bytes }) => sum + bytes.length / BLOCK_BYTES, 0)
        note('write', oid, blocks, options)
        const isUnsure = this.isUnsure({ what: 'write', oid, blocks, options })
        return port.write(oid, contents, options).then(async () => {
          await this.delay(oid)
          if (isUnsure) throw new StoreError('Unsure')
        })
      },
      writeNow: () => false,
      readNow: () => false,
      read: (oid, range) => {
        note('read', oid, range.count)
        return port.read(oid, range)
      },
      layoutOf: (oid) => {
        note('layoutOf', oid)
        return port.layoutOf(oid)
      },
      remove: (oid) => {
        note('remove', oid)
        return port.remove(oid)
      },
      flush: () => {
        note('flush')
        return port.flush()
      },
      making: () => () => {},
      confirm: (vid) => {
        note('confirm')
        return port.confirm(vid)
      },
      objectsOf: (vid) => {
        note('objectsOf')
        return port.objectsOf(vid)
      },
    }
  }

  run<T>(work: Promise<T>): Promise<T> {
    return this.clock.run(work)
  }

  async open(sizeBytes = TIB): Promise<ReplicatedOwner> {
    await this.run(this.family.prepare(VID, null))
    this.asked.length = 0
    return this.family.ownerOf(VID, sizeBytes)
  }

  /** The longest chain of objects that inherit from one another. */
  longestChain(): number {
    const bases = new Map([...this.objects.all()].map(({ oid, base }) => [oid, base]))
    const lengthOf = (oid: bigint): number => 1 + (bases.get(oid) ? lengthOf(bases.get(oid)!) : 0)
    return Math.max(...[...bases.keys()].map(lengthOf))
  }
}

const write = (owner: ReplicatedOwner, offset: number, bytes: Buffer): Promise<void> =>
  new Promise((resolve, reject) => owner.write(offset, bytes, false, (error) => (error ? reject(error) : resolve())))

const read = (owner: ReplicatedOwner, offset: number, target: Buffer): Promise<void> =>
  new Promise((resolve, reject) => owner.read(offset, target, (error) => (error ? reject(error) : resolve())))

const discard = (owner: ReplicatedOwner, offset: number, lengthBytes: number): Promise<void> =>
  new Promise((resolve, reject) =>
    owner.discard(offset, lengthBytes, false, (error) => (error ? reject(error) : resolve())),
  )

const block = (value: number) => Buffer.alloc(BLOCK_BYTES, value)

describe('the owner of a VDI whose objects are elsewhere', () => {
  it('asks once for a steady overwrite', async () => {
    const bench = new Bench()
    const owner = await bench.open()
    await bench.run(write(owner, 0, block(1)))
    bench.asked.length = 0
    await bench.run(write(owner, 0, block(2)))
    expect(bench.asked).toEqual([
      { what: 'write', oid: dataOid(VID, 0), blocks: 1, options: { exists: true, durable: false } },
    ])
  })

  it('makes many objects at once with few writes of the map, none of which waits long', async () => {
    const bench = new Bench()
    const owner = await bench.open()
    const before = bench.clock.nowMs
    const indexes = Array.from({ length: 200 }, (_, i) => i * 100)
    await bench.run(Promise.all(indexes.map((index) => write(owner, index * OBJECT_BYTES, block(1)))))
    // The page, the object, a write of the map that had begun, and the one that has the entry.
    expect(bench.clock.nowMs - before).toBeLessThanOrEqual(4 * ROUND_MS)
    const ofMap = bench.asked.filter(({ what, oid }) => what === 'write' && oid === inodeOid(VID))
    expect(ofMap.length).toBeLessThanOrEqual(4)
    const made = bench.asked.filter(({ options }) => options?.exists === false)
    expect(made.length).toBe(200)
    expect(made.every(({ options }) => options?.durable)).toBe(true)
  })

  it('makes a VDI of one of 1 TiB that is full with the same requests as of an empty one', async () => {
    const bench = new Bench()
    await bench.open()
    await bench.run(bench.family.prepare(VID + 1, VID))
    const forEmpty = bench.asked.map(({ what }) => what)
    const pages = Array.from({ length: TIB / OBJECT_BYTES / 1024 }, (_, page) => ({ first: page, bytes: block(1) }))
    const port = bench.objects.port(1, bench.clock.node())
    await bench.run(port.write(inodeOid(VID), { blocks: pages, zeros: [] }, { exists: true, durable: true }))
    bench.asked.length = 0
    await bench.run(bench.family.prepare(VID + 2, VID))
    expect(bench.asked.map(({ what }) => what)).toEqual(forEmpty)
    expect(bench.asked.find(({ what }) => what === 'write')).toMatchObject({ oid: inodeOid(VID + 2), blocks: 256 })
  })

  it('reads what many snapshots share over few objects, and keeps each of them', async () => {
    const bench = new Bench()
    const owner = await bench.open(OBJECT_BYTES)
    const snapshots = 30
    for (let i = 0; i < snapshots; i++) {
      await bench.run(write(owner, i * BLOCK_BYTES, block(i + 1)))
      await bench.run(owner.freeze())
      await bench.run(bench.family.prepare(VID + 1 + i, owner.vid))
      owner.moveTo(VID + 1 + i)
      owner.thaw()
    }
    expect(bench.longestChain()).toBeGreaterThan(4)
    expect(bench.longestChain()).toBeLessThanOrEqual(8)
    for (const vid of [VID, VID + 10, VID + snapshots - 1]) {
      const seen = bench.family.ownerOf(vid, OBJECT_BYTES)
      const target = Buffer.alloc(snapshots * BLOCK_BYTES)
      await bench.run(read(seen, 0, target))
      const values = Array.from({ length: snapshots }, (_, i) => target[i * BLOCK_BYTES])
      expect(values).toEqual(Array.from({ length: snapshots }, (_, i) => (i <= vid - VID ? i + 1 : 0)))
    }
  })

  it('freezes when what came before is answered, and holds what comes later', async () => {
    const bench = new Bench()
    const owner = await bench.open()
    for (const index of [0, 1]) await bench.run(write(owner, index * OBJECT_BYTES, block(1)))
    const arrived = deferred()
    bench.delay = (oid) => (oid === dataOid(VID, 0) ? arrived.promise : null)
    const order: string[] = []
    const before = write(owner, 0, block(2)).then(() => order.push('before'))
    const frozen = owner.freeze().then(() => order.push('frozen'))
    const after = write(owner, OBJECT_BYTES, block(2)).then(() => order.push('after'))
    await bench.run(bench.clock.node().mount().sleep(1000))
    expect(order).toEqual([])
    arrived.resolve()
    await bench.run(Promise.all([before, frozen]))
    expect(order).toEqual(['before', 'frozen'])
    await bench.run(bench.family.prepare(VID + 1, VID))
    owner.moveTo(VID + 1)
    owner.thaw()
    await bench.run(after)
    const target = Buffer.alloc(2 * BLOCK_BYTES)
    const then = bench.family.ownerOf(VID, TIB)
    await bench.run(read(then, 0, target.subarray(0, BLOCK_BYTES)))
    await bench.run(read(then, OBJECT_BYTES, target.subarray(BLOCK_BYTES)))
    expect(target).toEqual(Buffer.concat([block(2), block(1)]))
  })

  it('removes what it has dropped before it makes it again, though nobody could say that the map knew', async () => {
    const bench = new Bench()
    const owner = await bench.open()
    await bench.run(write(owner, 0, block(1)))
    bench.isUnsure = ({ what, oid }) => what === 'write' && oid === inodeOid(VID)
    await expect(bench.run(discard(owner, 0, OBJECT_BYTES))).rejects.toMatchObject({ code: 'Unsure' })
    bench.isUnsure = () => false
    bench.asked.length = 0
    await bench.run(write(owner, BLOCK_BYTES, block(2)))
    const ofObject = bench.asked.filter(({ oid }) => oid === dataOid(VID, 0)).map(({ what }) => what)
    expect(ofObject).toEqual(['remove', 'write'])
  })

  it('says holes where copies have zeros, and asks for no bytes to know it', async () => {
    const bench = new Bench()
    const owner = await bench.open(3 * OBJECT_BYTES)
    await bench.run(write(owner, OBJECT_BYTES + 3 * BLOCK_BYTES, block(1)))
    bench.asked.length = 0
    expect(await bench.run(owner.extents(0, 3 * OBJECT_BYTES))).toEqual([
      { kind: 'hole', lengthBytes: OBJECT_BYTES + 3 * BLOCK_BYTES },
      { kind: 'data', lengthBytes: BLOCK_BYTES },
      { kind: 'hole', lengthBytes: (2 * BLOCKS_PER_OBJECT - 4) * BLOCK_BYTES },
    ])
    expect(bench.asked.filter(({ what, oid }) => what === 'read' && oidKind(oid) === 'data')).toEqual([])
  })
})
