import { describe, expect, it } from 'vitest'
import { BLOCK_BYTES } from '../../src/sheep/object-format.ts'
import { blocksOf, OBJECT, StoreBench } from './store-bench.ts'

const COUNT = 40
const LARGE = 256

describe('objects that a start finds in the journal alone', () => {
  it('give way like all others once they have their files, and leave nothing open', async () => {
    const bench = await StoreBench.open({ loadedObjectsMax: 8, segmentBlocks: 200 })
    const filesOfStore = bench.disk.openFiles
    const oids = Array.from({ length: COUNT }, (_, i) => OBJECT + BigInt(i))
    await bench.create(...oids)
    await bench.restart('kill')
    for (const oid of oids) await bench.read(oid, 0)
    for (const oid of oids) await bench.read(oid, 0)
    expect(bench.store.measures().loadedObjects).toBeLessThanOrEqual(8)
    expect(bench.disk.openFiles).toBeLessThanOrEqual(filesOfStore + 8)
    await bench.clock.run(bench.store.close())
    expect(bench.disk.openFiles).toBe(0)
  })

  it('cost a start a few operations each, however much was placed in their files at once', async () => {
    const bench = await StoreBench.open({ placedMinBytes: LARGE * BLOCK_BYTES, segmentBlocks: 8 * LARGE })
    const large = blocksOf(...new Array<number>(LARGE).fill(7))
    for (const [round, how] of (['kill', 'powerLoss'] as const).entries()) {
      for (let i = 0; i < 4; i++) {
        const oid = OBJECT + BigInt(round * 4 + i)
        await bench.commit([
          { kind: 'create', oid, runs: [] },
          { kind: 'blocks', object: oid, first: 0, bytes: large },
        ])
      }
      const before = bench.disk.operations
      await bench.restart(how)
      expect(bench.disk.operations - before).toBeLessThan(LARGE)
    }
  })
})
