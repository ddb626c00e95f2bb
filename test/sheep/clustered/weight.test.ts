import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { bytesPerVnode, FOUNDER_VNODES, vnodesFor } from '../../../src/sheep/clustered/weight.ts'
import { ClusterBench } from './cluster-bench.ts'

const GIB = 1024 ** 3

describe('the places of a node', () => {
  it('are in proportion to its room', () => {
    const vnodeBytes = bytesPerVnode(1024 * GIB)
    const placesOf = (totalBytes: number) => vnodesFor({ totalBytes, vnodeBytes, vnodes: 0 })
    expect(placesOf(1024 * GIB)).toBe(FOUNDER_VNODES)
    expect(placesOf(3072 * GIB)).toBe(3 * FOUNDER_VNODES)
    expect(placesOf(10 * GIB)).toBe(5)
  })

  it('are 128 where the log does not say what one stands for', () => {
    expect(vnodesFor({ totalBytes: 7 * GIB, vnodeBytes: null, vnodes: 0 })).toBe(128)
  })

  it('stay as they are while the room changes by a tenth, and never are none or too many', () => {
    const rooms = fc.record({
      totalBytes: fc.maxSafeNat(),
      vnodeBytes: fc.integer({ min: 1, max: 2 ** 40 }),
      vnodes: fc.integer({ min: 0, max: 16_384 }),
    })
    fc.assert(
      fc.property(rooms, (room) => {
        const wanted = room.totalBytes / room.vnodeBytes
        const vnodes = vnodesFor(room)
        expect(vnodes).toBeGreaterThanOrEqual(1)
        expect(vnodes).toBeLessThanOrEqual(16_384)
        if (vnodes !== room.vnodes) expect(Math.abs(wanted - room.vnodes)).toBeGreaterThan(0.1 * room.vnodes - 1)
        expect(vnodesFor({ ...room, vnodes })).toBe(vnodes)
      }),
    )
  })
})

describe('nodes of different sizes', () => {
  it('hold in proportion to their room, also when that grows', async () => {
    const bench = await ClusterBench.open(7, 4, { roomGib: [100, 200, 50, 100] })
    const placesOf = () => {
      const { members } = bench.nodes[0]!.running!.node.sheep.state
      return bench.nodes.map(({ name }) => members.find(({ address }) => address === `${name}:7000`)?.vnodes)
    }
    await bench.until(() => placesOf().join() === '512,1024,256,512')
    bench.kill(bench.nodes[2]!)
    bench.nodes[2]!.disk.capacityBytes = 100 * GIB
    await bench.start(bench.nodes[2]!)
    await bench.until(() => placesOf().join() === '512,1024,512,512', 120_000)
  })
})
