import { expect, it } from 'vitest'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../../src/sheep/object-format.ts'
import { benchWithOwner } from './cluster-bench.ts'

const block = (fill: number) => Buffer.alloc(BLOCK_BYTES, fill)

it('a snapshot that is opened at once, by way of another node, stays what it is', async () => {
  const { bench, vid } = await benchWithOwner()
  const [owner, coordinator] = bench.nodes
  const working = await bench.run(bench.vdis(0).open(vid, { readOnly: false }))
  await bench.run(bench.write(working, 0, block(1)))

  // The snapshot is agreed on by the others before its owner hears of it.
  const { store } = coordinator!.running!.node
  const life = owner!.running!.node.store.member.life
  const hold = 'x'
  const { owners, vdis: held } = await bench.run(store.ask(life, 'hold_vdis', { hold, names: ['a'] }))
  await bench.run(store.ask(life, 'freeze_vdis', { hold }))
  bench.group.stop(owner!.name)
  const of = held.map(({ vid, newVid }) => ({ vid, newVid, tag: 's' }))
  await bench.run(store.propose({ type: 'snapshots', at: 1, of, owners }))
  const { vdis } = coordinator!.running!
  const snapshot = await bench.run(vdis.lookup('a', 's'))
  expect(snapshot).toBe(vid)
  const opening = vdis.open(snapshot, { readOnly: true })
  await bench.pass(500)
  bench.group.resume(owner!.name)

  const device = await bench.run(opening)
  await bench.run(bench.write(working, 0, block(2)))
  expect(await bench.run(bench.read(device, 0, BLOCK_BYTES))).toEqual(block(1))
  expect(device.sizeBytes).toBeLessThan(OBJECT_BYTES)
})
