import { expect, it } from 'vitest'
import { dataOid, inodeOid } from '../../../src/protocol/oid.ts'
import { Places } from '../../../src/sheep/clustered/places.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../../src/sheep/object-format.ts'
import { type BenchNode, ClusterBench } from './cluster-bench.ts'

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

  await bench.run(store.member.propose({ type: 'delete', vid }))
  await bench.until(() => state.vdis.size === 0)
  expect(bench.objects()).toEqual([])
  await bench.until(() => state.families.ownerOf(vid) === null)
})

it('says of no deleted VDI that nothing is left of it while all who have an object of it may be away', async () => {
  const bench = await ClusterBench.open(1, 7)
  const { state } = bench.nodes[0]!.running!.node.sheep
  await bench.until(() => state.view.voters.length > 3)
  const vid = await bench.run(bench.vdis(0).create('a', 64 * OBJECT_BYTES))
  const targetsOf = (oid: bigint) => new Places().targetsOf(oid, { copies: 3, copiesMin: 2 }, state.view)
  const nodeOf = ({ running }: BenchNode) => running!.node.sheep.node
  // One whose copies are all on nodes without which the cluster, the first node, and both maps go on.
  const areElsewhere = (index: number) => {
    const holders = targetsOf(dataOid(vid, index))
    const isAway = (node: string) => holders.includes(node)
    const { voters } = state.view
    const others = [[nodeOf(bench.nodes[0]!)], targetsOf(inodeOid(vid)), targetsOf(inodeOid(vid + 1))]
    return 2 * voters.filter(isAway).length < voters.length && !others.some((nodes) => nodes.every(isAway))
  }
  const index = Array.from({ length: 64 }, (_, at) => at).find(areElsewhere)!
  const holders = targetsOf(dataOid(vid, index))
  const device = await bench.run(bench.vdis(0).open(vid, { readOnly: false }))
  const bytes = Buffer.alloc(BLOCK_BYTES, 1)
  await bench.run(bench.write(device, index * OBJECT_BYTES, bytes))
  expect(await bench.run(bench.vdis(0).snapshot(vid, 's'))).toBe(vid + 1)
  await bench.until(() => bench.isHome())

  const [away, left] = [true, false].map((isAway) =>
    bench.nodes.filter((node) => holders.includes(nodeOf(node)) === isAway).map(({ name }) => name),
  )
  bench.part([away!, left!])
  await bench.until(() => state.view.members.length === 4)
  await bench.run(bench.vdis(0).remove('a', 's'))
  await bench.pass(20_000)
  expect(state.vdis.has(vid)).toBe(true)
  bench.heal()
  await bench.until(() => state.view.members.length === 7 && bench.isHome(), 120_000)
  expect(await bench.run(bench.read(device, index * OBJECT_BYTES, BLOCK_BYTES))).toEqual(bytes)
})
