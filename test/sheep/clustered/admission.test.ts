import { expect, it } from 'vitest'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import { ClusterBench } from './cluster-bench.ts'

const block = (fill: number) => Buffer.alloc(BLOCK_BYTES, fill)
const HASH = 'ab'.repeat(32)

it('what a client left behind at a gateway does not happen when he has been at another one, and is back', async () => {
  const bench = await ClusterBench.open(1, 3)
  const [left, ...others] = bench.nodes
  await bench.until(() => left!.running!.node.sheep.state.view.voters.length === 3)
  const vid = await bench.run(bench.vdis(0).create('a', 100 * BLOCK_BYTES))
  await bench.run(bench.vdis(0).putExport({ attachmentId: 'one', nameHash: HASH, vid, readOnly: false }))
  const before = await bench.run(bench.connect(left!)!.vdis.openExport(HASH, false))
  await bench.run(bench.write(before, 0, block(1)))

  bench.cutOff(left!)
  const late = bench.write(before, 0, block(2)).catch((error) => error.code)
  const there = await bench.run(bench.connect(others[0]!)!.vdis.openExport(HASH, false))
  await bench.run(bench.write(there, 0, block(3)))

  bench.heal()
  const back = await bench.run(bench.connect(left!)!.vdis.openExport(HASH, false))
  expect(await bench.run(late)).toBe('Fenced')
  expect(await bench.run(bench.read(back, 0, BLOCK_BYTES))).toEqual(block(3))
})
