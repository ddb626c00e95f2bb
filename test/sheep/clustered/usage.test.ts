import { expect, it } from 'vitest'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import { ClusterBench } from './cluster-bench.ts'

const MIB = 1024 * 1024

/** A VDI with a snapshot, written through the first node, which owns it no more. */
async function openLeft() {
  const bench = await ClusterBench.open(1, 3)
  const vdis = bench.vdis(0)
  const vid = await bench.run(vdis.create('a', 100 * MIB))
  const device = await bench.run(vdis.open(vid, { readOnly: false }))
  await bench.run(bench.write(device, 0, Buffer.alloc(2 * BLOCK_BYTES, 1)))
  await bench.run(device.close())
  await bench.run(vdis.snapshot(vid, 'then'))
  const { state } = bench.nodes[0]!.running!.node.sheep
  await bench.until(() => state.families.ownerOf(vid) === null)
  const usageAt = (at: number) => bench.run(bench.nodes[at]!.running!.node.sheep.usage())
  return { bench, state, family: vid, usageAt }
}

it('what a deleted VDI took when its last owner let go is not what it takes', async () => {
  const { bench, state, family, usageAt } = await openLeft()
  const snapshot = await bench.run(bench.vdis(1).lookup('a', 'then'))
  const now = await bench.run(bench.vdis(1).lookup('a'))
  expect([...(await usageAt(2)).keys()].sort()).toEqual([snapshot, now].sort())

  await bench.run(bench.vdis(1).remove('a', 'then'))
  expect([...(await usageAt(2)).keys()]).toEqual([now])
  expect(state.families.usageOf(family).map(([vid]) => vid)).toContain(snapshot)
})

it('of a VDI that nobody has used yet is nothing, exactly', async () => {
  const { bench, usageAt } = await openLeft()
  const vid = await bench.run(bench.vdis(0).create('b', 8 * MIB))
  for (const node of [0, 1, 2]) {
    const taken = (await usageAt(node)).get(vid)
    expect(taken).toMatchObject({ provisionedBytes: 8 * MIB, allocatedBytes: 0, isExact: true })
  }
})

it('is never said to be exact while the owner has not counted it, or does not answer', async () => {
  const { bench, state, family, usageAt } = await openLeft()
  const exact = await usageAt(2)
  expect([...exact.values()].every(({ isExact }) => isExact)).toBe(true)
  const writable = await bench.run(bench.vdis(1).lookup('a'))

  let isOwned = false
  const opened = bench.vdis(1).open(writable, { readOnly: false })
  for (let looks = 0; !isOwned || looks < 20; looks++) {
    const usage = await usageAt(2)
    for (const [vid, of] of usage) if (of.isExact) expect(of).toEqual(exact.get(vid))
    isOwned = state.families.ownerOf(family) !== null
    await bench.pass(0.5)
  }
  await bench.run(opened)
  expect(await usageAt(2)).toEqual(exact)

  bench.kill(bench.nodes[1]!)
  const unanswered = await usageAt(2)
  expect(unanswered).toEqual(new Map([...exact].map(([vid, of]) => [vid, { ...of, isExact: false }])))
})
