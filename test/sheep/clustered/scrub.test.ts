import { describe, expect, it } from 'vitest'
import { dataOid, inodeOid } from '../../../src/protocol/oid.ts'
import { BLOCK_BYTES, objectPath } from '../../../src/sheep/object-format.ts'
import { type BenchNode, ClusterBench } from './cluster-bench.ts'

/** A VDI of which all that it has is in the files of objects, on three nodes. */
async function written({ deletesSnapshot = false } = {}) {
  const bench = await ClusterBench.open(1, 3)
  const vdis = bench.vdis(0)
  const vid = await bench.run(vdis.create('a', 100 << 20))
  const device = await bench.run(vdis.open(vid, { readOnly: false }))
  await bench.run(bench.write(device, 0, Buffer.alloc(8 * BLOCK_BYTES, 1)))
  await bench.run(device.close())
  if (deletesSnapshot) {
    await bench.run(vdis.snapshot(vid, 'then'))
    await bench.run(vdis.remove('a', 'then'))
  }
  for (const node of bench.nodes) {
    await bench.run(node.running!.node.close())
    bench.kill(node)
    await bench.start(node)
  }
  await bench.until(() => bench.isClean() && bench.nodes.every((node) => bench.isIn(node)))
  return { bench, vid, oid: dataOid(vid, 0) }
}

const rot = ({ disk }: BenchNode, oid: bigint, block: number) =>
  disk.flipBit(objectPath(oid), block * BLOCK_BYTES + 100)

async function scrub(bench: ClusterBench, node: BenchNode) {
  const { scrubber } = node.running!.node.sheep
  const { round } = scrubber.status
  await bench.run(scrubber.start())
  await bench.until(() => scrubber.status.round > round && scrubber.status.state === 'waiting', 300_000)
  return scrubber.status
}

describe('the scrub of a node of several', () => {
  it('has what it finds put right from the other copies', async () => {
    const { bench, oid } = await written()
    const [node] = bench.nodes
    rot(node!, oid, 2)
    expect(await scrub(bench, node!)).toMatchObject({ findings: 0, repaired: 1, damage: [] })
    await bench.until(() => bench.isHome())
    expect(await scrub(bench, node!)).toMatchObject({ findings: 0, repaired: 0 })
  })

  it('does so too with the map of a VDI that is deleted, of which others read what it had', async () => {
    const { bench, vid } = await written({ deletesSnapshot: true })
    const [node] = bench.nodes
    rot(node!, inodeOid(vid), 0)
    expect(await scrub(bench, node!)).toMatchObject({ findings: 0, repaired: 1, damage: [] })
    await bench.until(() => bench.isHome())
    expect(await scrub(bench, node!)).toMatchObject({ findings: 0, repaired: 0 })
  })

  it('says where users see what no copy has', async () => {
    const { bench, oid } = await written()
    for (const node of bench.nodes) rot(node, oid, 2)
    const status = await scrub(bench, bench.nodes[1]!)
    expect(status).toMatchObject({ findings: 1, repaired: 0 })
    expect(status.damage).toEqual([{ vdi: 'a', snapshot: '', offsetBytes: 2 * BLOCK_BYTES, lengthBytes: BLOCK_BYTES }])
  })
})
