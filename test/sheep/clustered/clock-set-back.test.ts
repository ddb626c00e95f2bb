import { expect, it } from 'vitest'
import { ClusterBench } from './cluster-bench.ts'

it('a node that came often while clocks were ahead comes in when they are right again', async () => {
  const bench = await ClusterBench.open(1, 3)
  await bench.until(() => bench.nodes[0]!.running!.node.sheep.state.view.voters.length === 3)
  for (const { clock } of bench.nodes) clock.wallOffsetMs += 10 ** 11
  const often = bench.nodes[2]!
  const startAgain = async () => {
    bench.kill(often)
    await bench.until(() => bench.nodes[0]!.running!.node.sheep.state.members.length === 2)
    await bench.start(often)
    await bench.until(() => bench.isIn(often), 120_000)
  }
  for (let times = 0; times < 3; times++) await startAgain()
  for (const { clock } of bench.nodes) clock.wallOffsetMs -= 10 ** 11
  await startAgain()
  expect(bench.nodes.every((node) => bench.isIn(node))).toBe(true)
})
