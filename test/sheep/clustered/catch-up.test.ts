import { expect, it } from 'vitest'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import { ClusterBench } from './cluster-bench.ts'

const HASH = 'ab'.repeat(32)
const SIZE_BYTES = 100 * BLOCK_BYTES

/** A client of one node has been answered: a client of any other one, who hears of that, finds what the first one has made. */
it.each([1, 2, 3])('what one node has answered is there for who asks another one, seed %d', async (seed) => {
  const bench = await ClusterBench.open(seed, 3)
  await bench.until(() => bench.nodes[0]!.running!.node.sheep.state.view.voters.length === 3)
  for (let round = 0; round < 12; round++) {
    const [one, other] = [bench.vdis(round % 3), bench.vdis((round + 1 + (round % 2)) % 3)]
    const [name, nameHash] = [`a${round}`, HASH.replace(/^../, String(10 + round))]
    const vid = await bench.run(one.create(name, SIZE_BYTES))
    expect(await bench.run(other.listOf(name))).toMatchObject([{ vid }])
    const workingVid = await bench.run(one.snapshot(vid, 'tag'))
    const snapshot = await bench.run(other.lookup(name, 'tag'))
    await bench.run(one.create(`${name}-clone`, SIZE_BYTES, snapshot))
    expect(await bench.run(other.lookup(`${name}-clone`))).toBeGreaterThan(0)
    await bench.run(one.putExport({ attachmentId: name, nameHash, vid: workingVid, readOnly: false }))
    const device = await bench.run(other.openExport(nameHash, false))
    expect(device.sizeBytes).toBe(SIZE_BYTES)
    await bench.run(device.close())
  }
})

it('what there is not is said to be missing also while another node is silent', async () => {
  const bench = await ClusterBench.open(1, 3)
  await bench.until(() => bench.nodes[0]!.running!.node.sheep.state.view.voters.length === 3)
  bench.stop(bench.nodes[2]!)
  await expect(bench.run(bench.vdis(0).lookup('no such VDI'))).rejects.toMatchObject({ code: 'NoVdi' })
})
