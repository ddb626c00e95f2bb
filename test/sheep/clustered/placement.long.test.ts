import { describe, expect, it } from 'vitest'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import { ClusterBench } from './cluster-bench.ts'
import { at, block, copied, copiesOf, filled, hasLeft, holdsAll, OBJECTS, TIMEOUT, view } from './placement-bench.ts'

describe('a node that is away', () => {
  it(
    'loses them when it is away for longer: then what it held is made anew, and no more than that',
    TIMEOUT,
    async () => {
      const bench = await ClusterBench.open(12, 5, { rebalanceDelayMs: 30_000 })
      const { device } = await filled(bench, 64)
      const away = bench.nodes[4]!
      const held = away.running!.node.store.objectsHere().length
      bench.kill(away)
      await bench.until(() => hasLeft(bench, away))
      await bench.until(() => view(bench).away === undefined)
      await bench.until(() => bench.isClean())
      expect(copiesOf(bench).every((count) => count === 3)).toBe(true)
      const heldBytes = held * 64 * BLOCK_BYTES
      expect(copied(bench)).toBeGreaterThan(0)
      expect(copied(bench)).toBeLessThanOrEqual(1.05 * heldBytes)
      await holdsAll(bench, device)
    },
  )

  it('is not waited for when there would be one copy only', TIMEOUT, async () => {
    const bench = await ClusterBench.open(13, 5, { rebalanceDelayMs: 3_600_000 })
    const { device } = await filled(bench)
    for (const node of bench.nodes.slice(3)) bench.kill(node)
    await bench.until(() => bench.nodes.slice(3).every((node) => hasLeft(bench, node)))
    await bench.until(() => bench.isClean())
    expect(view(bench).away).toHaveLength(2)
    expect(Math.min(...copiesOf(bench))).toBeGreaterThanOrEqual(2)
    await holdsAll(bench, device)
  })
})

describe('another number of copies', () => {
  it('is made while clients go on, more and fewer', TIMEOUT, async () => {
    const bench = await ClusterBench.open(14, 5)
    const { vid, device } = await filled(bench)
    for (const copies of [5, 1, 2]) {
      const altered = bench.run(bench.vdis(1).alter(vid, { copies }))
      for (let index = 0; index < OBJECTS; index++) await bench.run(bench.write(device, at(index), block(index + 1)))
      await altered
      await bench.until(() => bench.isClean())
      await bench.until(() => copiesOf(bench).every((count) => count === copies))
      await holdsAll(bench, device)
    }
    await bench.run(bench.vdis(0).snapshot(vid, 's'))
    const next = await bench.run(bench.vdis(0).lookup('a'))
    await bench.run(bench.vdis(0).alter(next, { copies: 3, copiesMin: 1 }))
    await bench.until(() => bench.isClean())
    await bench.until(() => copiesOf(bench).every((count) => count === 3))
    await holdsAll(bench, device)
  })
})

describe('recovery', () => {
  it('waits while it is paused, on all nodes, also when they start again; and keeps to the rate', TIMEOUT, async () => {
    const bench = await ClusterBench.open(16, 5, { rebalanceDelayMs: 0 })
    const { device } = await filled(bench, 256)
    await bench.run(bench.nodes[1]!.running!.node.store.admin.setRecovery({ isPaused: true, bytesPerSecond: null }))
    bench.kill(bench.nodes[4]!)
    await bench.until(() => hasLeft(bench, bench.nodes[4]!))
    bench.kill(bench.nodes[3]!)
    await bench.start(bench.nodes[3]!)
    await bench.pass(30_000)
    expect(copied(bench)).toBe(0)
    expect(bench.isClean()).toBe(false)
    const rate = 128 * 1024
    await bench.run(bench.nodes[3]!.running!.node.store.admin.setRecovery({ isPaused: false, bytesPerSecond: rate }))
    const startMs = bench.clock.nowMs
    await bench.until(() => bench.isClean(), 3_600_000)
    const seconds = (bench.clock.nowMs - startMs) / 1000
    expect(copied(bench)).toBeGreaterThan(0)
    // One family has one owner: that is the node whose rate it is.
    expect(seconds).toBeGreaterThan(copied(bench) / rate / 1.1 - 5)
    await holdsAll(bench, device)
  })
})

describe('a node that shall go', () => {
  it('is drained while clients go on, and then removed: it never comes in again', TIMEOUT, async () => {
    const bench = await ClusterBench.open(17, 4)
    const { device } = await filled(bench)
    const { admin } = bench.nodes[0]!.running!.node.store
    const going = bench.nodes[3]!
    await expect(bench.run(admin.remove(going.name, { isForced: false }))).rejects.toMatchObject({ code: 'VdiInUse' })
    await expect(bench.run(admin.remove('10.0.0.99', { isForced: true }))).rejects.toMatchObject({
      code: 'InvalidParameters',
    })
    await bench.run(admin.drain(going.name, true))
    await holdsAll(bench, device)
    await bench.until(() => bench.isClean())
    await bench.until(() => going.running!.node.store.objectsHere().length === 0)
    await bench.run(admin.remove(going.name, { isForced: false }))
    await bench.until(() => hasLeft(bench, going))
    await bench.pass(30_000)
    expect(hasLeft(bench, going)).toBe(true)
    expect(view(bench).removed).toHaveLength(1)
    await holdsAll(bench, device)
  })
})
