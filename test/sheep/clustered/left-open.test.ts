import { expect, it } from 'vitest'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import { benchWithOwner, type ClusterBench } from './cluster-bench.ts'

const block = (fill: number) => Buffer.alloc(BLOCK_BYTES, fill)
const HASH = 'ab'.repeat(32)

/** All are apart for so long that nobody has a lease, and nobody can be put out of the view. */
async function loseLeases(bench: ClusterBench, meanwhile: () => void): Promise<void> {
  bench.part(bench.nodes.map(({ name }) => [name]))
  await bench.until(() => bench.nodes.every((node) => !bench.isIn(node)))
  meanwhile()
  bench.heal()
  await bench.allIn()
}

it('a session that goes on at the owner that had no lease is open there once', async () => {
  const { bench, vid } = await benchWithOwner()
  const owner = bench.nodes[0]!.running!.node
  await bench.run(bench.vdis(0).putExport({ attachmentId: 'one', nameHash: HASH, vid, readOnly: false }))
  const device = await bench.run(bench.connect(bench.nodes[1]!)!.vdis.openExport(HASH, false))
  expect([owner.store.owns(vid), owner.sheep.sessions.size]).toEqual([true, 1])
  const { epoch } = owner.sheep.state
  const reads: Promise<Buffer>[] = []
  await loseLeases(bench, () => reads.push(bench.read(device, 0, BLOCK_BYTES)))
  expect(await bench.run(reads[0]!)).toEqual(block(0))
  expect([owner.sheep.state.epoch, owner.store.owns(vid)]).toEqual([epoch, true])
  expect(owner.sheep.sessions.size).toBe(1)
  await bench.run(device.close())
  expect(owner.sheep.sessions.size).toBe(0)
})

it('a snapshot whose reader was told that the owner has no lease can be deleted', async () => {
  const { bench, vid } = await benchWithOwner()
  const owner = bench.nodes[0]!.running!.node
  await bench.run(bench.vdis(0).snapshot(vid, 'then'))
  const device = await bench.run(bench.vdis(0).open(vid, { readOnly: true }))
  expect([owner.store.owns(vid), owner.sheep.sessions.size]).toEqual([true, 1])
  const reads: Promise<unknown>[] = []
  await loseLeases(bench, () => reads.push(bench.read(device, 0, BLOCK_BYTES).catch((error) => error.code)))
  expect(await bench.run(reads[0]!)).toBe('Unsure')
  await bench.run(device.close().catch(() => {}))
  expect(owner.sheep.sessions.size).toBe(0)
  await bench.run(bench.vdis(0).remove('a', 'then'))
})
