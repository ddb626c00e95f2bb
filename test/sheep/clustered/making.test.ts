import { expect, it } from 'vitest'
import { ClusterBench } from './cluster-bench.ts'

const VDIS = 12

it('makes a VDI however long that takes: its family is not let go meanwhile, though nobody has opened it', async () => {
  const bench = await ClusterBench.open(1, 3)
  for (const { disk } of bench.nodes) disk.latencyMsMax = 100
  const startMs = bench.clock.nowMs
  const makeSome = async (at: number) => {
    for (let i = 0; i < VDIS; i++) await bench.vdis(at).create(`vdi ${i} of ${at}`, 100 << 20)
  }
  await bench.run(Promise.all([0, 1, 2].map(makeSome)))
  expect(bench.clock.nowMs - startMs).toBeGreaterThan(5000) // nodes have let go of what is idle, again and again
  await bench.until(() => bench.nodes.every(({ running }) => running!.node.sheep.state.vdis.size === 3 * VDIS))
})
