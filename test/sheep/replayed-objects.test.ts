import { describe, expect, it } from 'vitest'
import { OBJECT, StoreBench } from './store-bench.ts'

const COUNT = 40

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
})
