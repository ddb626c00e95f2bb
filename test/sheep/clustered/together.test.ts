import { describe, expect, it } from 'vitest'
import { StoreError } from '../../../src/errors.ts'
import type { Clock } from '../../../src/runtime/clock.ts'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import type { VdiClient } from '../../../src/vdi/client.ts'
import type { Device } from '../../../src/vdi/device.ts'
import { runSeeds } from '../../sim/seeds.ts'
import { ClusterBench } from './cluster-bench.ts'

const NAMES = ['a', 'b', 'c', 'd']
const BLOCKS = 128
const SIZE_BYTES = BLOCKS * BLOCK_BYTES
/** As long as a client of a gateway waits before it goes to another one. */
const PATIENCE_MS = 15_000
const LIVENESS_MS = 120_000

const hashOf = (at: number) => `${at}`.repeat(64)
const together = (tag: string) => NAMES.map((name) => ({ name, tag }))

/** Three nodes, each of which owns one or two of the VDIs. */
async function open(seed: number): Promise<ClusterBench> {
  const bench = await ClusterBench.open(seed, 3)
  for (const [at, name] of NAMES.entries()) {
    const vdis = bench.vdis(at % 3)
    const vid = await bench.run(vdis.create(name, SIZE_BYTES))
    await bench.run(vdis.putExport({ attachmentId: name, nameHash: hashOf(at), vid, readOnly: false }))
  }
  return bench
}

/** A writer that writes one number after the other, each to the next VDI, and each when the one before it was answered. */
class Counter {
  sent = 0
  answered = 0
  isOver = false
  readonly #bench: ClusterBench
  readonly #clock: Clock
  readonly #devices: (Device | null)[] = NAMES.map(() => null)

  constructor(bench: ClusterBench, clock: Clock) {
    this.#bench = bench
    this.#clock = clock
  }

  async run(): Promise<void> {
    while (!this.isOver) {
      this.sent++
      while (!(await this.#tryWrite(this.sent)) && !this.isOver) await this.#clock.sleep(100)
      if (this.isOver) return
      this.answered = this.sent
      await this.#clock.sleep(this.#bench.random.next() * 20)
    }
  }

  /** A number has a block of its own, so that one that is late changes nothing. */
  async #tryWrite(number: number): Promise<boolean> {
    const at = number % NAMES.length
    const bytes = Buffer.alloc(BLOCK_BYTES)
    bytes.writeUInt32LE(number)
    try {
      const device = this.#devices[at] ?? (await this.#patiently(this.#openAt(at)))
      this.#devices[at] = device
      await this.#patiently(
        this.#bench.write(device, (Math.floor(number / NAMES.length) % BLOCKS) * BLOCK_BYTES, bytes),
      )
      return true
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      this.#devices[at] = null
      return false
    }
  }

  async #openAt(at: number): Promise<Device> {
    const { running } = this.#bench.random.pick(this.#bench.nodes)
    if (!running) throw new StoreError('Disconnected')
    return running.vdis.openExport(hashOf(at), false)
  }

  async #patiently<T>(work: Promise<T>): Promise<T> {
    work.catch(() => {})
    return Promise.race([
      work,
      this.#clock.sleep(PATIENCE_MS).then(() => Promise.reject(new StoreError('Disconnected'))),
    ])
  }
}

/** The highest number in each of the snapshots. */
async function highest(bench: ClusterBench, vdis: VdiClient, tag: string): Promise<number[]> {
  const numbers: number[] = []
  for (const name of NAMES) {
    const device = await vdis.open(await vdis.lookup(name, tag), { readOnly: true })
    const held = await bench.read(device, 0, SIZE_BYTES)
    numbers.push(Math.max(...Array.from({ length: BLOCKS }, (_, block) => held.readUInt32LE(block * BLOCK_BYTES))))
    await device.close()
  }
  return numbers
}

/** What one counter leaves that stood still at `last`: each VDI has the last number that was its own. */
function countedTo(last: number): number[] {
  return NAMES.map((_, own) => Math.max(0, last - ((last - own + NAMES.length) % NAMES.length)))
}

type Outcome = 'taken' | StoreError

const outcomeOf = (taken: Promise<void>): Promise<Outcome> =>
  taken.then(
    () => 'taken' as const,
    (error) => {
      if (error instanceof StoreError) return error
      throw error
    },
  )

/** One node or the network fails for a while, at some moment of a snapshot. */
async function fail(bench: ClusterBench, clock: Clock): Promise<() => Promise<void>> {
  const node = bench.random.pick(bench.nodes)
  await clock.sleep(bench.random.next() * bench.random.pick([5, 50, 3000]))
  const kind = bench.random.below(3)
  if (kind === 0) {
    bench.kill(node)
    return () => bench.begin(node)
  }
  if (kind === 1) {
    bench.stop(node)
    return async () => bench.resume(node)
  }
  bench.cutOff(node)
  return async () => {
    bench.heal()
  }
}

describe('snapshots of several VDIs with different owners', () => {
  it('are of one moment in the order of writes, all or none, whatever fails', { timeout: 300_000 }, async () => {
    const totals = { taken: 0, refused: 0, none: 0 }
    const seeds = await runSeeds('test/sheep/clustered/together.test.ts', 4, async (seed) => {
      const bench = await open(seed)
      const clock = bench.clock.node().mount()
      const counter = new Counter(bench, clock)
      const counting = counter.run()
      const until = async (what: string, isSo: () => boolean) => {
        const endMs = clock.monotonicMs() + LIVENESS_MS
        while (!isSo()) {
          if (clock.monotonicMs() > endMs) throw new Error(`it does not come that ${what}; ${bench.describe()}`)
          await clock.sleep(100)
        }
      }
      const scenario = async () => {
        await clock.sleep(bench.random.next() * 200)
        const { running } = bench.random.pick(bench.nodes)
        const answeredBefore = counter.answered
        const gatewayDied = clock.sleep(60_000).then(() => new StoreError('Disconnected'))
        const taken = Promise.race([outcomeOf(running!.vdis.snapshotTogether(together('t'))), gatewayDied])
        const mend = seed % 4 === 0 ? async () => {} : await fail(bench, clock)
        const stillMs = 4000 * bench.random.next()
        const outcome = await Promise.race([taken, clock.sleep(stillMs).then(() => null)])
        await mend()
        const result = outcome ?? (await taken)
        const sentBefore = counter.sent
        if (seed % 4 === 0) expect(result).toBe('taken')
        await until('all nodes are in', () => bench.nodes.every((node) => bench.isIn(node)))
        // It goes on: no gate has stayed closed.
        const before = counter.answered
        await until('the counter goes on', () => counter.answered >= before + 8)
        counter.isOver = true
        await counting
        const vdis = bench.vdis(bench.random.below(3))
        const found = await snapshotsOf(vdis, 't')
        if (result === 'taken') totals.taken++
        else totals.refused++
        expect(found === 0 || found === NAMES.length).toBe(true)
        if (result === 'taken') expect(found).toBe(NAMES.length)
        if (found === 0) totals.none++
        else {
          const numbers = await highest(bench, vdis, 't')
          const last = Math.max(...numbers)
          expect(numbers).toEqual(countedTo(last))
          expect(last).toBeGreaterThanOrEqual(answeredBefore)
          if (result === 'taken') expect(last).toBeLessThanOrEqual(sentBefore)
        }
        await vdis.snapshotTogether(together('u'))
        const numbers = await highest(bench, vdis, 'u')
        expect(numbers).toEqual(countedTo(Math.max(...numbers)))
        expect(Math.max(...numbers)).toBeGreaterThanOrEqual(counter.answered)
        // What was set aside for a snapshot that did not come is free again.
        const makings = () => bench.nodes.map(({ running }) => running!.node.sheep.state.makings.size)
        await until(`nothing is set aside: ${makings()}`, () => makings().every((size) => size === 0))
      }
      await bench.run(scenario())
    })
    console.info({ seeds, ...totals })
    expect(totals.taken).toBeGreaterThan(seeds / 4)
  })

  it('are refused as a whole when one of them is, and wait for each other', async () => {
    const bench = await open(1)
    const take = (at: number, of: readonly { name: string; tag: string }[]) =>
      bench.run(bench.vdis(at).snapshotTogether(of))
    await expect(take(0, [...together('t'), { name: 'nobody', tag: 't' }])).rejects.toMatchObject({ code: 'NoVdi' })
    await expect(take(0, [...together('t'), { name: 'a', tag: 'u' }])).rejects.toMatchObject({
      code: 'InvalidParameters',
    })
    await bench.run(bench.vdis(0).snapshot(await bench.run(bench.vdis(0).lookup('d')), 't'))
    await expect(take(1, together('t'))).rejects.toMatchObject({ code: 'VdiExists' })
    const orders = [NAMES, NAMES.toReversed(), ['c', 'a'], ['d', 'b']]
    const startMs = bench.clock.nowMs
    const taken = orders.map((names, i) =>
      bench.vdis(i % 3).snapshotTogether(names.map((name) => ({ name, tag: `t${i}` }))),
    )
    await bench.run(Promise.all(taken))
    expect(bench.clock.nowMs - startMs).toBeLessThan(5000)
    for (const [i, names] of orders.entries())
      expect(await bench.run(snapshotsOf(bench.vdis(i % 3), `t${i}`))).toBe(names.length) // others may hear of it later
  })

  it('hold nobody up for long when who asked for them is gone', async () => {
    const bench = await open(2)
    const vid = await bench.run(bench.vdis(0).lookup('a'))
    const device = await bench.run(bench.vdis(0).open(vid, { readOnly: true }))
    const asking = bench.nodes[1]!.running!.node.store
    const owner = bench.nodes[0]!.running!.node.store.member.life
    await bench.run(asking.ask(owner, 'hold_vdis', { hold: 'x', names: ['a'] }))
    await bench.run(asking.ask(owner, 'freeze_vdis', { hold: 'x' }))
    let isRead = false
    const read = bench.read(device, 0, BLOCK_BYTES).then(() => {
      isRead = true
    })
    await bench.pass(5000)
    expect(isRead).toBe(false)
    await bench.pass(7000)
    expect(isRead).toBe(true)
    await bench.run(read)
    await expect(bench.run(asking.ask(owner, 'freeze_vdis', { hold: 'x' }))).rejects.toBeInstanceOf(StoreError)
    await bench.run(bench.vdis(2).snapshotTogether(together('t')))
  })
})

async function snapshotsOf(vdis: VdiClient, tag: string): Promise<number> {
  return (await vdis.list()).filter((vdi) => vdi.tag === tag).length
}
