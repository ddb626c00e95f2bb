import { describe, expect, it } from 'vitest'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../../src/sheep/object-format.ts'
import type { Device } from '../../../src/vdi/device.ts'
import { runSeeds } from '../../sim/seeds.ts'
import { benchWithOwner, ClusterBench } from './cluster-bench.ts'
import { ClusterModel, WHOLE_SEED } from './cluster-model.ts'

const block = (fill: number) => Buffer.alloc(BLOCK_BYTES, fill)
const MIB = 1024 * 1024
const HASH = 'ab'.repeat(32)

const settled = (start: (done: (error: Error | null) => void) => void) =>
  new Promise<void>((resolve, reject) => start((error) => (error ? reject(error) : resolve())))

describe('a store of three nodes', () => {
  it('keeps what was written on all of them, whichever was asked', async () => {
    const bench = await ClusterBench.open(1, 3)
    const vid = await bench.run(bench.vdis(0).create('a', 100 * MIB))
    const device = await bench.run(bench.vdis(0).open(vid, { readOnly: false }))
    await bench.run(bench.write(device, 0, block(1)))
    expect(await bench.run(bench.read(device, 0, BLOCK_BYTES))).toEqual(block(1))
    const other = await bench.run(bench.vdis(1).open(vid, { readOnly: true }))
    expect(await bench.run(bench.read(other, 0, BLOCK_BYTES))).toEqual(block(1))
  })

  it('goes on when the owner of a VDI ends, for those who have it open at another gateway', async () => {
    const bench = await ClusterBench.open(2, 3)
    await bench.until(() => bench.nodes[1]!.running!.node.sheep.state.view.voters.length === 3)
    const vid = await bench.run(bench.vdis(0).create('a', 100 * MIB))
    await bench.run(bench.vdis(0).putExport({ attachmentId: 'one', nameHash: HASH, vid, readOnly: false }))
    const first = await bench.run(bench.vdis(0).openExport(HASH, false))
    await bench.run(bench.write(first, 0, block(1)))
    const device = await bench.run(bench.vdis(1).openExport(HASH, false))
    await bench.run(bench.write(device, BLOCK_BYTES, block(2)))
    await expect(bench.run(bench.write(first, 0, block(9)))).rejects.toMatchObject({ code: 'Fenced' })
    const startMs = bench.clock.nowMs
    bench.kill(bench.nodes[0]!)
    await bench.run(bench.write(device, 2 * BLOCK_BYTES, block(3)))
    const tookMs = bench.clock.nowMs - startMs
    expect(tookMs).toBeLessThan(8000)
    const read = await bench.run(bench.read(device, 0, 3 * BLOCK_BYTES))
    expect(read).toEqual(Buffer.concat([block(1), block(2), block(3)]))
    await bench.start(bench.nodes[0]!)
    await bench.until(() => bench.isIn(bench.nodes[0]!))
    await bench.until(() => bench.isClean())
    bench.kill(bench.nodes[1]!)
    const again = await bench.run(bench.vdis(0).openExport(HASH, false))
    expect(await bench.run(bench.read(again, 0, 3 * BLOCK_BYTES))).toEqual(
      Buffer.concat([block(1), block(2), block(3)]),
    )
  })

  it('goes on when the owner of a VDI does not reach a copy, nor learns from the group that it is put out for that', async () => {
    const { bench, vid } = await benchWithOwner()
    await bench.run(bench.vdis(0).putExport({ attachmentId: 'one', nameHash: HASH, vid, readOnly: false }))
    const device = await bench.run(bench.vdis(1).openExport(HASH, false))
    await bench.run(bench.write(device, 0, block(1)))
    const [owner, gateway, copy] = bench.nodes.map(({ name }) => name) as [string, string, string]
    bench.network.silence([owner, copy], [owner, copy])
    bench.group.partition([[owner], [gateway, copy]])
    const endMs = bench.clock.nowMs + 10_000
    let longestMs = 0
    while (bench.clock.nowMs < endMs) {
      const startMs = bench.clock.nowMs
      await bench.run(bench.write(device, 0, block(2)))
      longestMs = Math.max(longestMs, bench.clock.nowMs - startMs)
      await bench.pass(10)
    }
    expect(longestMs).toBeLessThan(6000)
    expect(bench.nodes.map(({ running }) => running!.node.sheep.state.members.length)).toEqual([3, 2, 2])
  })

  it.each([2, 3, 4, 5])(
    'goes on when all %d were apart, and each owner has lost what it had asked of the others',
    async (nodes) => {
      const bench = await ClusterBench.open(5, nodes, { copies: Math.min(3, nodes) })
      const { state } = bench.nodes[0]!.running!.node.sheep
      await bench.until(() => state.view.voters.length === Math.min(5, nodes - 1 + (nodes % 2)) || nodes === 2)
      const devices: Device[] = []
      for (let at = 0; at < nodes; at++) {
        const vid = await bench.run(bench.vdis(at).create(`vdi${at}`, 64 * MIB))
        const nameHash = HASH.replace(/^../, `0${at}`)
        await bench.run(bench.vdis(at).putExport({ attachmentId: `right${at}`, nameHash, vid, readOnly: false }))
        const device = await bench.run(bench.connect(bench.nodes[at]!)!.vdis.openExport(nameHash, false))
        await bench.run(bench.write(device, 0, block(1)))
        expect(bench.nodes[at]!.running!.node.store.owns(vid)).toBe(true)
        devices.push(device)
      }
      bench.part(bench.nodes.map(({ name }) => [name]))
      // One may be put out, and then its clients come anew.
      const written = devices.map((device) =>
        bench.write(device, 0, block(2)).catch(({ code }) => expect(code).toBe('Fenced')),
      )
      await bench.pass(6000)
      bench.heal()
      const startMs = bench.clock.nowMs
      await bench.run(Promise.all(written))
      expect(bench.clock.nowMs - startMs).toBeLessThan(10_000)
    },
  )

  it('tells nobody of the disk of an owner that fails, before the owner ends', async () => {
    for (let operations = 2; operations < 24; operations += 2) {
      const { bench } = await benchWithOwner()
      const vid = await bench.run(bench.vdis(0).create('b', 64 * MIB))
      await bench.run(bench.vdis(0).putExport({ attachmentId: 'one', nameHash: HASH, vid, readOnly: false }))
      const device = await bench.run(bench.connect(bench.nodes[1]!)!.vdis.openExport(HASH, false))
      await bench.run(bench.write(device, 0, block(1)))
      const [owner] = bench.nodes
      owner!.mayFail = true
      bench.lingerMs = 500
      owner!.disk.operationsLeft = operations
      for (let fill = 2; fill < 40; fill++) {
        const offset = (fill % 5) * OBJECT_BYTES
        const work = [
          settled((done) => device.write(offset, block(fill), { fua: fill % 3 === 0 }, done)),
          settled((done) => device.flush(done)),
          settled((done) => device.read(offset, Buffer.alloc(4 * BLOCK_BYTES), done)),
          settled((done) => device.zero(offset + 3 * BLOCK_BYTES, BLOCK_BYTES, { fua: false, mayDiscard: true }, done)),
        ]
        await bench.run(Promise.all(work))
      }
      for (let index = 0; index < 5; index++) {
        expect(await bench.run(bench.read(device, index * OBJECT_BYTES, BLOCK_BYTES))).toEqual(block(35 + index))
      }
      expect(bench.failures).toBe(1)
    }
  })

  it('is served by a gateway that was cut off and has come back, also what others own', async () => {
    const bench = await ClusterBench.open(4, 3)
    const vid = await bench.run(bench.vdis(0).create('a', 100 * MIB))
    const device = await bench.run(bench.vdis(0).open(vid, { readOnly: false }))
    await bench.run(bench.write(device, 0, block(5)))
    const reads = async () => {
      const there = await bench.run(bench.vdis(2).open(vid, { readOnly: true }))
      expect(await bench.run(bench.read(there, 0, BLOCK_BYTES))).toEqual(block(5))
    }
    await reads()
    bench.cutOff(bench.nodes[2]!)
    await bench.until(() => bench.nodes[0]!.running!.node.sheep.state.members.length === 2)
    bench.heal()
    await bench.allIn()
    await reads()
  })

  it('starts again when all nodes have ended, in any order', async () => {
    const bench = await ClusterBench.open(3, 3)
    const vid = await bench.run(bench.vdis(2).create('a', 100 * MIB))
    const device = await bench.run(bench.vdis(2).open(vid, { readOnly: false }))
    await bench.run(bench.write(device, 5 * MIB, block(7)))
    for (const node of bench.nodes) bench.kill(node)
    for (const node of [2, 0, 1]) await bench.start(bench.nodes[node]!)
    await bench.until(() => bench.nodes.every((node) => bench.isIn(node)) && bench.isClean())
    const again = await bench.run(bench.vdis(1).open(await bench.run(bench.vdis(1).lookup('a')), { readOnly: false }))
    expect(await bench.run(bench.read(again, 5 * MIB, BLOCK_BYTES))).toEqual(block(7))
  })

  it('loses nothing and goes on, whatever fails', { timeout: 3_600_000 }, async () => {
    const faults: Record<string, number> = {}
    const seeds = await runSeeds('test/sheep/clustered/clustered.test.ts', 2, async (seed) => {
      const report = await ClusterModel.run(seed, WHOLE_SEED)
      for (const [kind, count] of Object.entries(report.faults)) faults[kind] = (faults[kind] ?? 0) + count
      expect(report.checks.copies).toBeGreaterThan(0)
    })
    console.info({ seeds, ...faults })
  })
})
