import { describe, expect, it } from 'vitest'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import type { Device } from '../../../src/vdi/device.ts'
import { ClusterBench } from './cluster-bench.ts'

const MIB = 1024 * 1024

describe('the room of a store of three nodes', () => {
  it('is the same whichever node is asked: that of all, each byte with its copies', async () => {
    const bench = await ClusterBench.open(1, 3)
    for (const at of [0, 1, 2]) {
      const vid = await bench.run(bench.vdis(at).create(`of ${at}`, 100 * MIB))
      const device = await bench.run(bench.vdis(at).open(vid, { readOnly: false }))
      await bench.run(bench.write(device, 0, Buffer.alloc((at + 1) * BLOCK_BYTES, 1)))
    }
    const sheep = bench.nodes.map(({ running }) => running!.node.sheep)
    const own = await bench.run(Promise.all(sheep.map((one) => one.stats())))
    const spaces = await bench.run(Promise.all(sheep.map((one) => one.space())))
    for (const space of spaces) {
      // Three copies on three nodes: the one with the least room says how much there is.
      expect(space.freeBytes).toBe(Math.min(...own.map(({ freeBytes }) => freeBytes)))
      expect(space.allocatedBytes).toBe(6 * BLOCK_BYTES)
      expect(space.nodes.map(({ address, isAnswering }) => [address, isAnswering])).toEqual(
        bench.nodes.map(({ name }) => [`${name}:7000`, true]),
      )
      expect(space.nodes.map(({ freeBytes }) => freeBytes)).toEqual(own.map(({ freeBytes }) => freeBytes))
    }
    const { totalBytes, freeBytes } = await bench.run(bench.vdis(2).space())
    expect({ totalBytes, freeBytes }).toEqual({
      totalBytes: spaces[0]!.totalBytes,
      freeBytes: spaces[0]!.freeBytes,
    })
  })

  it('counts what is promised with the copies of each VDI, also while those are altered', async () => {
    const bench = await ClusterBench.open(3, 3, { copies: 2 })
    const space = () => bench.run(bench.vdis(1).space())
    const promised = async () => Math.round((await space()).provisionedBytes / MIB)
    await bench.run(bench.vdis(0).create('two', 60 * MIB))
    expect(await promised()).toBe(60)
    await bench.run(bench.vdis(0).create('three', 60 * MIB, 0, { copies: 3, copiesMin: 3 }))
    expect(await promised()).toBe(60 + 90)
    const one = await bench.run(bench.vdis(0).create('one', 60 * MIB, 0, { copies: 1 }))
    expect(await promised()).toBe(60 + 90 + 30)
    expect((await bench.run(bench.vdis(2).listOf('three')))[0]).toMatchObject({ copies: 3, copiesMin: 3 })
    await bench.run(bench.vdis(2).alter(one, { copies: 3 }))
    expect(await promised()).toBe(60 + 90 + 90)
    expect((await space()).sizeFactors.map((factor) => Math.round(factor * 10) / 10)).toEqual([0.5, 1, 1.5])
    await bench.run(bench.vdis(0).remove('three'))
    expect(await promised()).toBe(60 + 90)
  })

  it('says of a node that does not answer what that said last, and nothing of one that is out', async () => {
    const bench = await ClusterBench.open(2, 3)
    const { sheep } = bench.nodes[0]!.running!.node
    await bench.until(() => sheep.state.view.voters.length === 3) // members come to vote one after the other
    const before = await bench.run(sheep.space())
    bench.kill(bench.nodes[2]!)
    const during = await bench.run(sheep.space())
    expect(during.nodes.map(({ isAnswering }) => isAnswering)).toEqual([true, true, false])
    expect(during.nodes[2]!.totalBytes).toBe(before.nodes[2]!.totalBytes)
    await bench.until(() => sheep.state.members.length === 2)
    const after = await bench.run(sheep.space())
    expect(after.nodes.map(({ isAnswering }) => isAnswering)).toEqual([true, true])
    expect(after.totalBytes).toBe(before.totalBytes)
  })

  it('is there again on all disks soon after a discard and a delete, also while others write', async () => {
    const bench = await ClusterBench.open(4, 3, { roomGib: [512, 512, 512], segmentBlocks: 16 * 1024 })
    const open = async (name: string) => {
      const vid = await bench.run(bench.vdis(0).create(name, 100 * MIB))
      return bench.run(bench.vdis(0).open(vid, { readOnly: false }))
    }
    const [gone, other] = [await open('gone'), await open('other')]
    for (let at = 0; at < 16; at++) await bench.run(bench.write(gone, at * MIB, Buffer.alloc(MIB, 1)))
    const used = () => bench.nodes.map(({ disk }) => disk.usedBytes())
    const before = used()
    /** With a write every second, so that no node is ever idle. */
    const isFreed = async (mib: number) => {
      for (let second = 0; second < 5; second++) {
        await bench.run(bench.write(other, 0, Buffer.alloc(BLOCK_BYTES, second)))
        await bench.pass(1000)
      }
      return used().map((bytes, i) => before[i]! - bytes > mib * MIB)
    }
    await bench.run(discard(gone, 0, 9.5 * MIB))
    expect(await isFreed(9)).toEqual([true, true, true])
    await bench.run(gone.close())
    await bench.run(bench.vdis(1).remove('gone'))
    expect(await isFreed(15)).toEqual([true, true, true])
  })
})

function discard(device: Device, offset: number, length: number): Promise<void> {
  return new Promise((resolve, reject) =>
    device.discard(offset, length, (error) => (error ? reject(error) : resolve())),
  )
}
