import { expect, it } from 'vitest'
import { benchWithOwner, type ClusterBench } from './cluster-bench.ts'

const stateAt = (bench: ClusterBench, at: number) => bench.nodes[at]!.running!.node.sheep.state

it('a number of copies that was asked for at a node that was cut off does not replace one that was asked for since', async () => {
  const { bench, vid } = await benchWithOwner()
  bench.cutOff(bench.nodes[0]!)
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
  bench.heal()
  await bench.allIn()
  await bench.pass(10_000)
  expect(stateAt(bench, 1).get(vid).copies).toBe(2)
  expect(await bench.run(late)).not.toBe(null)
})

it('an order to a node that loses the group has an answer, and its VDI goes on', async () => {
  const { bench, vid } = await benchWithOwner()
  bench.cutOff(bench.nodes[0]!)
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
  bench.heal()
  await bench.allIn()
  await bench.until(() => isAnswered)
  const { vdis } = bench.connect(bench.nodes[0]!)!
  await bench.run(vdis.snapshot(vid, 'then'))
})
