import { expect, it } from 'vitest'
import { dataOid } from '../../../src/protocol/oid.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../../src/sheep/object-format.ts'
import { ClusterBench } from './cluster-bench.ts'

const block = (fill: number) => Buffer.alloc(BLOCK_BYTES, fill)

/**
 * A VDI and a clone, which both read an object of a deleted snapshot. That inherits a block which nobody sees from an object that is
 * gone for that reason.
 */
async function opened() {
  const bench = await ClusterBench.open(1, 3)
  const vdis = bench.vdis(0)
  const { sheep } = bench.nodes[0]!.running!.node
  const first = await bench.run(vdis.create('a', OBJECT_BYTES))
  const device = await bench.run(vdis.open(first, { readOnly: false }))
  await bench.run(bench.write(device, 0, block(1)))
  const second = await bench.run(vdis.snapshot(first, 's1'))
  await bench.run(bench.write(device, BLOCK_BYTES, block(2)))
  await bench.run(vdis.snapshot(second, 's2'))
  await bench.run(bench.write(device, 0, block(3)))
  const clone = await bench.run(vdis.create('clone', OBJECT_BYTES, second))
  const cloned = await bench.run(vdis.open(clone, { readOnly: false }))
  await bench.run(bench.write(cloned, 0, block(4)))
  for (const tag of ['s1', 's2']) await bench.run(vdis.remove('a', tag))
  await bench.run(sheep.reclaimed())
  await bench.pass(1000)
  expect(bench.nodes[0]!.running!.node.store.objectsHere()).not.toContain(dataOid(first, 0))
  expect(bench.nodes[0]!.running!.node.store.objectsHere()).toContain(dataOid(second, 0))
  expect(await bench.run(bench.read(device, 0, 2 * BLOCK_BYTES))).toEqual(Buffer.concat([block(3), block(2)]))
  expect(await bench.run(bench.read(cloned, 0, 2 * BLOCK_BYTES))).toEqual(Buffer.concat([block(4), block(2)]))
  return { bench, clone, sheep, store: bench.nodes[0]!.running!.node.store }
}

it('is not missed by an audit', { timeout: 60_000 }, async () => {
  const { bench, sheep } = await opened()
  expect(await bench.run(sheep.audit())).toMatchObject({ sound: true, problems: [] })
})

it('is not waited for by who has a block of another object put right', async () => {
  const { bench, clone, store } = await opened()
  let isMended = false
  void store.mend(dataOid(clone, 0), [0]).then(() => {
    isMended = true
  })
  await bench.until(() => isMended)
})
