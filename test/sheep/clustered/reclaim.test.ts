import { expect, it } from 'vitest'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import { ClusterBench } from './cluster-bench.ts'

it('gives back a deleted VDI that nobody owned by the time the log said so', async () => {
  const bench = await ClusterBench.open(1, 3)
  const vdis = bench.vdis(0)
  const vid = await bench.run(vdis.create('a', 100 << 20))
  const device = await bench.run(vdis.open(vid, { readOnly: false }))
  await bench.run(bench.write(device, 0, Buffer.alloc(BLOCK_BYTES, 1)))
  await bench.run(device.close())
  const { store, sheep } = bench.nodes[0]!.running!.node
  const { state } = sheep
  await bench.until(() => state.families.ownerOf(vid) === null)

  await bench.run(store.propose({ type: 'delete', vid }))
  await bench.until(() => state.vdis.size === 0)
  expect(bench.objects()).toEqual([])
  await bench.until(() => state.families.ownerOf(vid) === null)
})
