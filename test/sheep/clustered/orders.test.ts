import { expect, it } from 'vitest'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import { type BenchNode, ClusterBench } from './cluster-bench.ts'

const stateAt = (bench: ClusterBench, at: number) => bench.nodes[at]!.running!.node.sheep.state

/** Nodes of which the first owns a VDI. */
async function opened() {
  const bench = await ClusterBench.open(1, 3)
  await bench.until(() => stateAt(bench, 0).view.voters.length === 3)
  const vid = await bench.run(bench.vdis(0).create('a', 100 * BLOCK_BYTES))
  await bench.until(() => bench.isHome())
  expect(bench.nodes[0]!.running!.node.store.owns(vid)).toBe(true)
  return { bench, vid }
}

function cutOff(bench: ClusterBench, node: BenchNode): void {
  const sides = [[node.name], bench.nodes.filter((other) => other !== node).map(({ name }) => name)]
  bench.group.partition(sides)
  bench.network.cut(sides)
}

function heal(bench: ClusterBench): void {
  bench.group.heal()
  bench.network.heal()
}

const allIn = (bench: ClusterBench) => bench.until(() => bench.nodes.every((node) => bench.isIn(node)))

it('a number of copies that was asked for at a node that was cut off does not replace one that was asked for since', async () => {
  const { bench, vid } = await opened()
  cutOff(bench, bench.nodes[0]!)
  const late = bench
    .vdis(0)
    .alter(vid, { copies: 1 })
    .then(
      () => null,
      (error) => error.code,
    )
  await bench.until(() => stateAt(bench, 1).members.length === 2)
  await bench.run(bench.vdis(1).alter(vid, { copies: 2 }))
  expect(stateAt(bench, 1).get(vid).copies).toBe(2)
  heal(bench)
  await allIn(bench)
  await bench.pass(10_000)
  expect(stateAt(bench, 1).get(vid).copies).toBe(2)
  expect(await bench.run(late)).not.toBe(null)
})

it('an order to a node that loses the group has an answer, and its VDI goes on', async () => {
  const { bench, vid } = await opened()
  cutOff(bench, bench.nodes[0]!)
  let isAnswered = false
  bench
    .vdis(0)
    .alter(vid, { copies: 2 })
    .catch(() => {})
    .finally(() => {
      isAnswered = true
    })
  await bench.pass(1000)
  bench.group.lose(bench.nodes[0]!.name)
  await bench.pass(1000)
  heal(bench)
  await allIn(bench)
  await bench.until(() => isAnswered)
  const { vdis } = bench.connect(bench.nodes[0]!)!
  await bench.run(vdis.snapshot(vid, 'then'))
})
