import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { sdHash, sdHashNext, sdHashOid } from '../../src/protocol/hash.ts'
import { dataOid } from '../../src/protocol/oid.ts'
import { encodeNodeAddress } from '../../src/protocol/structs.ts'
import { FOUNDER_VNODES } from '../../src/sheep/clustered/weight.ts'
import { autoVnodeCounts, createRing, type RingNode, zoneOfAddress } from '../../src/sheep/ring.ts'

const node = (port: number, zone: number, vnodeCount = 128) => ({
  nid: { addr: encodeNodeAddress('127.0.0.1'), port },
  vnodeCount,
  zone,
})

const ports = (nodes: readonly RingNode[]) => nodes.map(({ nid }) => nid.port)

const nodeLists = fc
  .uniqueArray(
    fc.record({ port: fc.integer({ min: 1, max: 65535 }), zone: fc.nat(5), vnodeCount: fc.constantFrom(0, 1, 3, 20) }),
    { selector: ({ port }) => port, maxLength: 8 },
  )
  .map((list) => list.map(({ port, zone, vnodeCount }) => node(port, zone, vnodeCount)))
const oids = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })

/** The definition without a search: all points, those at or after the hash first, each kind in order. */
function locateSlowly<N extends RingNode>(nodes: readonly N[], oid: bigint, copies: number): N[] {
  const points: { hash: bigint; node: N }[] = []
  for (const each of nodes) {
    let hash = sdHash(Buffer.concat([each.nid.addr, Buffer.from([each.nid.port & 0xff, each.nid.port >> 8])]))
    for (let vnode = 0; vnode < each.vnodeCount; vnode++) {
      hash = sdHashNext(hash)
      points.push({ hash, node: each })
    }
  }
  points.sort((a, b) => (a.hash < b.hash ? -1 : 1))
  const start = sdHashOid(oid)
  const clockwise = [...points.filter(({ hash }) => hash >= start), ...points.filter(({ hash }) => hash < start)]
  const chosen: N[] = []
  for (const point of clockwise) {
    if (chosen.length < copies && chosen.every(({ zone }) => zone !== point.node.zone)) chosen.push(point.node)
  }
  return chosen
}

describe('ring', () => {
  it('agrees with the definition', () => {
    fc.assert(
      fc.property(nodeLists, oids, fc.integer({ min: 1, max: 6 }), (nodes, oid, copies) => {
        expect(createRing(nodes).locate(oid, copies)).toEqual(locateSlowly(nodes, oid, copies))
      }),
    )
  })

  it('does not depend on the order of the nodes', () => {
    fc.assert(
      fc.property(nodeLists, oids, (nodes, oid) => {
        expect(ports(createRing(nodes.toReversed()).locate(oid, 3))).toEqual(ports(createRing(nodes).locate(oid, 3)))
      }),
    )
  })

  it('puts copies into as many zones as there are, and never two into one', () => {
    fc.assert(
      fc.property(nodeLists, oids, fc.integer({ min: 1, max: 6 }), (nodes, oid, copies) => {
        const ring = createRing(nodes)
        const holders = ring.locate(oid, copies)
        const dataZones = new Set(nodes.filter(({ vnodeCount }) => vnodeCount > 0).map(({ zone }) => zone))
        expect(ring.zoneCount).toBe(dataZones.size)
        expect(holders).toHaveLength(Math.min(copies, dataZones.size))
        expect(new Set(holders.map(({ zone }) => zone)).size).toBe(holders.length)
        expect(holders.every(({ vnodeCount }) => vnodeCount > 0)).toBe(true)
      }),
    )
  })

  it('has no place on a ring without data nodes', () => {
    expect(createRing([]).locate(1n, 3)).toEqual([])
    expect(createRing([node(7000, 1, 0)]).locate(1n, 3)).toEqual([])
  })

  it('shares objects out by the number of points', () => {
    const ring = createRing([node(7000, 1, 128), node(7001, 2, 128), node(7002, 3, 256)])
    const counts = new Map<number, number>()
    for (let index = 0; index < 4000; index++) {
      const [port] = ports(ring.locate(dataOid(0x7c2b25, index), 1))
      counts.set(port!, (counts.get(port!) ?? 0) + 1)
    }
    for (const [port, share] of [
      [7000, 1 / 4],
      [7001, 1 / 4],
      [7002, 1 / 2],
    ] as const) {
      expect(counts.get(port)! / 4000).toBeGreaterThan(share * 0.75)
      expect(counts.get(port)! / 4000).toBeLessThan(share * 1.25)
    }
  })

  it('moves only what the lost node held', () => {
    const nodes = [node(7000, 1), node(7001, 2), node(7002, 3), node(7003, 4)]
    const before = createRing(nodes)
    const after = createRing(nodes.slice(0, 3))
    for (let index = 0; index < 500; index++) {
      const oid = dataOid(1, index)
      const kept = ports(before.locate(oid, 2)).filter((port) => port !== 7003)
      expect(ports(after.locate(oid, 2))).toEqual(expect.arrayContaining(kept))
    }
  })
})

describe('a hundred nodes', () => {
  const COPIES = 3
  const OBJECTS = 100_000
  const vnodesOf = (weight: number) => weight * FOUNDER_VNODES
  const hundred = (zoneOf: (index: number) => number, weightOf: (index: number) => number = () => 1) =>
    Array.from({ length: 100 }, (_, i) => ({
      nid: { addr: encodeNodeAddress(`10.77.${i >> 5}.${(i & 31) + 1}`), port: 7000 },
      zone: zoneOf(i),
      vnodeCount: vnodesOf(weightOf(i)),
    }))
  const oids = Array.from({ length: OBJECTS }, (_, k) => dataOid(1 + (k % 50) * 7919, Math.floor(k / 50)))

  function heldBy(nodes: readonly RingNode[]): Map<RingNode, number> {
    const ring = createRing(nodes)
    const held = new Map<RingNode, number>(nodes.map((each) => [each, 0]))
    for (const oid of oids) {
      for (const holder of ring.locate(oid, COPIES)) held.set(holder, held.get(holder)! + 1)
    }
    return held
  }

  function worst(held: ReadonlyMap<RingNode, number>): number {
    const points = [...held.keys()].reduce((sum, { vnodeCount }) => sum + vnodeCount, 0)
    const excess = [...held].map(([{ vnodeCount }, count]) => count / ((COPIES * OBJECTS * vnodeCount) / points))
    return Math.max(...excess)
  }

  it('have at most 15 % more than their weight', () => {
    expect(worst(heldBy(hundred((i) => i)))).toBeLessThan(1.15)
    // Of two sizes, in 20 zones of the same weight each.
    const uneven = hundred(
      (i) => i % 20,
      (i) => (i < 40 ? 2 : 1),
    )
    expect(worst(heldBy(uneven))).toBeLessThan(1.15)
  })

  it.each([
    { name: 'a zone each', zoneOf: (i: number) => i },
    { name: '20 zones', zoneOf: (i: number) => i % 20 },
  ])('move what one of them held, and nothing else, when it goes or comes: $name', ({ zoneOf }) => {
    const nodes = hundred(zoneOf)
    const lost = nodes[42]!
    const before = createRing(nodes)
    const after = createRing(nodes.filter((each) => each !== lost))
    let held = 0
    let moved = 0
    for (const oid of oids.slice(0, 5000)) {
      const [old, now] = [before.locate(oid, COPIES), after.locate(oid, COPIES)]
      if (old.includes(lost)) held++
      moved += now.filter((each) => !old.includes(each)).length
    }
    expect(held).toBeGreaterThan(0)
    expect(moved).toBe(held)
  })
})

describe('automatic points', () => {
  it('gives 128 to a node of average space, and none to a gateway', () => {
    expect(autoVnodeCounts([100, 100])).toEqual([128, 128])
    expect(autoVnodeCounts([1000, 3000, 0])).toEqual([64, 192, 0])
    expect(autoVnodeCounts([0, 0])).toEqual([0, 0])
    expect(autoVnodeCounts([])).toEqual([])
  })

  it('rounds half to even, as rintf does', () => {
    expect(autoVnodeCounts([500, 2500, 381_000])).toEqual([0, 2, 381]) // mean 128000: one point per 1000
    expect(autoVnodeCounts([1500, 3500, 379_000])).toEqual([2, 4, 379])
  })
})

it('takes the IPv4 address for the zone of a node that names none', () => {
  expect(zoneOfAddress(encodeNodeAddress('127.0.0.1'))).toBe(0x0100007f)
})
