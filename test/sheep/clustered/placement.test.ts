import { describe, expect, it } from 'vitest'
import { dataOid, inodeOid } from '../../../src/protocol/oid.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../../src/sheep/object-format.ts'
import { ClusterBench } from './cluster-bench.ts'
import { at, block, copied, copiesOf, filled, hasLeft, holdsAll, OBJECTS, TIMEOUT, view } from './placement-bench.ts'

describe('a node that is away', () => {
  it(
    'keeps its places for a while: nothing is made anew elsewhere, and it only gets what was written meanwhile',
    TIMEOUT,
    async () => {
      const bench = await ClusterBench.open(11, 4, { rebalanceDelayMs: 120_000 })
      const { device } = await filled(bench)
      const away = bench.nodes[3]!
      bench.kill(away)
      await bench.until(() => hasLeft(bench, away))
      for (let index = 0; index < OBJECTS; index++)
        await bench.run(bench.write(device, at(index) + 8 * BLOCK_BYTES, block(77)))
      await bench.until(() => bench.isClean())
      await bench.pass(10_000)
      expect(view(bench).away?.map(({ address }) => address)).toEqual([`${away.name}:7000`])
      expect(copied(bench)).toBe(0)
      await bench.start(away)
      await bench.until(() => bench.isIn(away))
      await bench.until(() => bench.isClean())
      expect(view(bench).away).toBeUndefined()
      const written = OBJECTS * BLOCK_BYTES
      expect(copied(bench)).toBeGreaterThan(0)
      expect(copied(bench)).toBeLessThanOrEqual(2 * written)
      await holdsAll(bench, device)
    },
  )
})

describe('another number of copies', () => {
  it('is what a VDI is made with', TIMEOUT, async () => {
    const bench = await ClusterBench.open(15, 4)
    const vid = await bench.run(bench.vdis(1).create('two', OBJECT_BYTES, 0, { copies: 2 }))
    const device = await bench.run(bench.vdis(1).open(vid, { readOnly: false }))
    await bench.run(bench.write(device, 0, block(1)))
    expect(copiesOf(bench)).toEqual([2, 2])
  })
})

describe('a node that is gone for good', () => {
  it('is given up with what only it had when an operator says so; the rest is there', TIMEOUT, async () => {
    const bench = await ClusterBench.open(18, 4)
    const { vid, device } = await filled(bench)
    await bench.run(bench.vdis(0).alter(vid, { copies: 1 }))
    await bench.until(() => bench.isClean())
    await bench.until(() => copiesOf(bench).every((count) => count === 1))
    const lost = bench.nodes.slice(1).find(({ running }) => {
      const here = running!.node.store.objectsHere()
      return here.length > 0 && !here.includes(inodeOid(vid))
    })!
    const gone = new Set(lost.running!.node.store.objectsHere())
    bench.kill(lost)
    await bench.until(() => hasLeft(bench, lost))
    const { admin } = bench.nodes[0]!.running!.node.store
    await expect(bench.run(admin.remove(lost.name, { isForced: false }))).rejects.toMatchObject({ code: 'VdiInUse' })
    await bench.run(admin.remove(lost.name, { isForced: true }))
    for (let index = 0; index < OBJECTS; index++) {
      const read = bench.run(bench.read(device, at(index), BLOCK_BYTES))
      if (gone.has(dataOid(vid, index))) await expect(read).rejects.toMatchObject({ code: 'CorruptBlock' })
      else expect(await read).toEqual(block(index + 1))
      await bench.run(bench.write(device, at(index), block(index + 1)))
    }
    await holdsAll(bench, device)
  })
})
