import { expect, it } from 'vitest'
import { inodeOid } from '../../../src/protocol/oid.ts'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import { ClusterBench } from './cluster-bench.ts'

const NAMES = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']
const block = (fill: number) => Buffer.alloc(BLOCK_BYTES, fill)

it('the map of a VDI that is about to be made when a node comes is where it belongs when it is made', async () => {
  const bench = await ClusterBench.open(1, 4, { copies: 1, rebalanceDelayMs: 1000 })
  const state = bench.nodes[0]!.running!.node.sheep.state
  await bench.until(() => state.view.voters.length === 3)
  const late = bench.nodes.find(({ running }) => !state.view.voters.includes(running!.node.store.member.life.node))!
  bench.kill(late)
  await bench.until(() => state.members.length === 3 && state.view.away === undefined)
  const [owner] = bench.nodes.filter((node) => node !== late)
  const { node, vdis } = owner!.running!
  for (const [at, name] of NAMES.entries()) {
    const vid = await bench.run(vdis.create(name, 8 * BLOCK_BYTES))
    const device = await bench.run(vdis.open(vid, { readOnly: false }))
    await bench.run(bench.write(device, 0, block(at + 1)))
    await bench.run(device.close())
  }
  await bench.until(() => bench.isHome())

  const { store } = node
  const hold = 'x'
  const { owners, vdis: held } = await bench.run(store.ask(store.member.life, 'hold_vdis', { hold, names: NAMES }))
  await bench.run(store.ask(store.member.life, 'freeze_vdis', { hold }))
  await bench.start(late)
  await bench.until(() => bench.isIn(late))
  await bench.pass(5000) // for all else to be where it belongs
  const of = held.map(({ vid, newVid }) => ({ vid, newVid, tag: 's' }))
  await bench.run(store.propose({ type: 'snapshots', at: 1, of, owners }))
  await bench.pass(5000)
  await bench.until(() => bench.isHome())
  for (const { newVid } of held)
    expect(bench.objects().some((object) => object.includes(inodeOid(newVid).toString(16)))).toBe(true)
  for (const [at, name] of NAMES.entries()) {
    const device = await bench.run(vdis.open(await bench.run(vdis.lookup(name)), { readOnly: true }))
    expect(await bench.run(bench.read(device, 0, BLOCK_BYTES))).toEqual(block(at + 1))
  }
})
