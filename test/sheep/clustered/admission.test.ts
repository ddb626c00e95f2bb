import { expect, it } from 'vitest'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import { type BenchNode, benchWithOwner, ClusterBench } from './cluster-bench.ts'

const right = (vid: number) => ({ attachmentId: 'one', nameHash: HASH, vid, readOnly: false })
const block = (fill: number) => Buffer.alloc(BLOCK_BYTES, fill)
const HASH = 'ab'.repeat(32)

it('what a client left behind at a gateway does not happen when he has been at another one, and is back', async () => {
  const bench = await ClusterBench.open(1, 3)
  const [left, ...others] = bench.nodes
  await bench.until(() => left!.running!.node.sheep.state.view.voters.length === 3)
  const vid = await bench.run(bench.vdis(0).create('a', 100 * BLOCK_BYTES))
  await bench.run(bench.vdis(0).putExport(right(vid)))
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

it('what is open under a right goes on at the next owner, also when the right was given again', async () => {
  const { bench, vid } = await benchWithOwner()
  await bench.run(bench.vdis(0).putExport(right(vid)))
  const device = await bench.run(bench.connect(bench.nodes[1]!)!.vdis.openExport(HASH, false))
  await bench.run(bench.write(device, 0, block(1)))
  await bench.run(bench.vdis(0).putExport(right(vid)))
  bench.kill(bench.nodes[0]!)
  await bench.run(bench.write(device, 0, block(2)))
  expect(await bench.run(bench.read(device, 0, BLOCK_BYTES))).toEqual(block(2))
})

it('a former owner lets nobody in with what had waited there, and the next one keeps out who was before', async () => {
  const { bench, vid } = await benchWithOwner()
  await bench.run(bench.vdis(0).putExport(right(vid)))
  const [owner, gateway, copy] = bench.nodes as [BenchNode, BenchNode, BenchNode]
  const before = await bench.run(bench.connect(gateway)!.vdis.openExport(HASH, false))
  await bench.run(bench.write(before, 0, block(1)))
  bench.network.silence([owner.name], [copy.name])
  const written = bench.write(before, 0, block(2))
  await bench.pass(100)
  bench.cutOff(owner)
  const came = bench.connect(owner)! // waits for what is under way of those who came before
  void came.vdis.openExport(HASH, false).catch(() => {})
  await bench.pass(100)
  came.close()
  await bench.run(written)
  bench.heal()
  await bench.allIn()
  await bench.pass(1000)
  const { state } = owner.running!.node.sheep
  expect(state.exports.byHash(HASH)!.gateway!.node).toBe(gateway.running!.node.sheep.node)
  await bench.run(bench.write(before, 0, block(3)))
})
