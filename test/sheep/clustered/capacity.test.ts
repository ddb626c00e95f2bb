import { describe, expect, it } from 'vitest'
import { encodeNodeAddress } from '../../../src/protocol/structs.ts'
import { type NodeRoom, sizeFactors, usableBytes } from '../../../src/sheep/clustered/capacity.ts'
import { createRing } from '../../../src/sheep/ring.ts'

const GIB = 1024 ** 3
const node = (zone: number, gib: number, vnodes = 128): NodeRoom => ({ zone, vnodes, bytes: gib * GIB })

describe('what VDIs may hold', () => {
  it.each([
    ['one node', [node(1, 10)], 3, 10],
    ['as many copies as nodes', [node(1, 10), node(2, 20), node(3, 30)], 3, 10],
    ['more nodes than copies', [node(1, 10), node(2, 10), node(3, 10), node(4, 10)], 2, 20],
    ['one node with less room, which is full first', [node(1, 5), node(2, 10), node(3, 10), node(4, 10)], 2, 10],
    ['places by room', [node(1, 10, 64), node(2, 20, 128), node(3, 10, 64), node(4, 20, 128)], 2, 30],
    ['a zone that would have more than one copy of some', [node(1, 30, 512), node(2, 10, 64), node(3, 10, 64)], 2, 20],
    ['two nodes in a zone', [node(1, 10), node(1, 10), node(2, 20)], 2, 20],
    ['gateways', [node(1, 10), node(2, 10), node(3, 0, 0)], 2, 10],
    ['nobody', [], 3, 0],
    ['only gateways', [node(1, 10, 0)], 1, 0],
  ])('with %s', (_what, nodes, copies, gib) => {
    expect(usableBytes(nodes, copies) / GIB).toBeCloseTo(gib, 6)
  })

  it('is taken in proportion to copies where all zones are alike, and never more of than there are zones', () => {
    const alike = [node(1, 10), node(2, 10), node(3, 10), node(4, 10)]
    const rounded = (factors: number[]) => factors.map((factor) => Math.round(factor * 1000) / 1000)
    expect(rounded(sizeFactors(alike, 2, 4))).toEqual([0.5, 1, 1.5, 2])
    expect(rounded(sizeFactors(alike.slice(0, 3), 3, 4))).toEqual([0.333, 0.667, 1, 1])
    // Two copies of everything are in the large zone and one of the others; three are everywhere.
    expect(rounded(sizeFactors([node(1, 30, 512), node(2, 10, 64), node(3, 10, 64)], 2, 3))).toEqual([0.533, 1, 2])
    expect(sizeFactors([node(1, 10), node(2, 0)], 1, 2)).toEqual([1, 2]) // one of which nothing is known
    expect(sizeFactors([node(1, 10)], 1, 1)).toEqual([1])
  })

  it('agrees with where the ring puts copies', () => {
    const rooms = [node(1, 10), node(2, 12), node(2, 14), node(3, 9, 64), node(4, 40, 200)]
    const ring = createRing(
      rooms.map((room, at) => ({
        ...room,
        at,
        vnodeCount: room.vnodes * 16,
        nid: { addr: encodeNodeAddress(`10.0.0.${at + 1}`), port: 7000 },
      })),
    )
    const objects = 20_000
    const counts = rooms.map(() => 0)
    for (let oid = 0n; oid < objects; oid++) for (const { at } of ring.locate(oid << 8n, 2)) counts[at]!++
    const first = Math.min(...rooms.map(({ bytes }, at) => (bytes * objects) / counts[at]!))
    expect(usableBytes(rooms, 2) / first).toBeGreaterThan(0.85)
    expect(usableBytes(rooms, 2) / first).toBeLessThan(1.15)
  })
})
