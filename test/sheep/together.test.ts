import { describe, expect, it } from 'vitest'
import type { Disk } from '../../src/runtime/disk.ts'
import { BLOCK_BYTES } from '../../src/sheep/object-format.ts'
import type { Session } from '../../src/sheep/session.ts'
import { runSeeds } from '../sim/seeds.ts'
import { answered, SheepBench } from './sheep-bench.ts'

const NAMES = ['a', 'b', 'c', 'd']

/** A writer whose each write begins when the one before it was answered, to one VDI after the other. */
class Counter {
  readonly #bench: SheepBench
  readonly #sessions: readonly Session[]
  /** The last number that was sent, and the last that was answered. */
  sent = 0
  answered = 0

  constructor(bench: SheepBench, sessions: readonly Session[]) {
    this.#bench = bench
    this.#sessions = sessions
  }

  /** Writes until it is told to stop; an error is the end of the store. */
  async run(mayGoOn: () => boolean): Promise<void> {
    while (mayGoOn()) {
      const number = ++this.sent
      const bytes = Buffer.alloc(BLOCK_BYTES)
      bytes.writeUInt32LE(number)
      const session = this.#sessions[number % NAMES.length]!
      const durable = this.#bench.random.next() < 0.2
      await answered((done) => session.write(this.#bench.random.below(3) * BLOCK_BYTES, bytes, durable, done))
      this.answered = number
    }
  }
}

/** The highest number in each of the VDIs. */
async function highest(bench: SheepBench, vids: readonly number[]): Promise<number[]> {
  const numbers: number[] = []
  for (const vid of vids) {
    const session = bench.sheep.sessions.openAnonymous(vid, true)
    const blocks = await bench.read(session, 0, 3 * BLOCK_BYTES)
    numbers.push(Math.max(...[0, 1, 2].map((block) => blocks.readUInt32LE(block * BLOCK_BYTES))))
  }
  return numbers
}

/** What one counter leaves that stood still at `last`: each VDI has the last number that was its own. */
function countedTo(last: number): number[] {
  return NAMES.map((_, own) => {
    for (let number = last; number > 0; number--) if (number % NAMES.length === own) return number
    return 0
  })
}

const together = (tag: string) => NAMES.map((name) => ({ name, tag }))

function snapshotVids({ sheep }: SheepBench, tag: string): number[] {
  return NAMES.flatMap((name) => sheep.state.vdis.snapshotsOf(name).filter((vdi) => vdi.tag === tag)).map(
    ({ vid }) => vid,
  )
}

describe('snapshots of several VDIs', () => {
  it('are of one moment in the order of writes, and all or none after a crash at any moment', {
    timeout: 300_000,
  }, async () => {
    let whole = 0
    let none = 0
    const seeds = await runSeeds('test/sheep/together.test.ts', 120, async (seed) => {
      const bench = await SheepBench.open({ seed })
      const vids: number[] = []
      for (const name of NAMES) vids.push(await bench.create(name))
      const counter = new Counter(
        bench,
        vids.map((vid) => bench.session(vid)),
      )
      // Others that write to the same VDIs: what is in flight when the gates close.
      const noise = vids.map((vid) => bench.session(vid))
      let goesOn = true
      const writer = counter.run(() => goesOn).catch(() => {})
      const others = noise.map(async (session) => {
        while (goesOn) await answered((done) => session.write(8 * BLOCK_BYTES + 100, Buffer.alloc(5000, 1), true, done))
      })
      const noisy = Promise.all(others).catch(() => {})
      await bench.step(bench.random.below(60))
      const answeredBefore = counter.answered
      const taken = bench.sheep.snapshotTogether(together('t')).then(
        () => 'taken',
        () => 'failed',
      )
      if (seed % 2 === 0) {
        expect(await bench.run(taken)).toBe('taken')
        const sentBefore = counter.sent
        goesOn = false
        await bench.run(Promise.all([writer, noisy]))
        const numbers = await highest(bench, snapshotVids(bench, 't'))
        const last = Math.max(...numbers)
        expect(numbers).toEqual(countedTo(last))
        expect(last).toBeGreaterThanOrEqual(answeredBefore)
        expect(last).toBeLessThanOrEqual(sentBefore)
        expect(await bench.audit()).toMatchObject({ sound: true, problemsTotal: 0 })
      } else {
        await bench.step(bench.random.below(12))
        goesOn = false
        await bench.restart(bench.random.next() < 0.5 ? 'kill' : 'powerLoss')
        const found = snapshotVids(bench, 't')
        if (found.length === 0) none++
        else {
          whole++
          const numbers = await highest(bench, found)
          expect(numbers).toEqual(countedTo(Math.max(...numbers)))
        }
        expect(NAMES.every((name) => bench.sheep.state.vdis.hasWorking(name))).toBe(true)
        if (found.length === 0) await bench.run(bench.sheep.snapshotTogether(together('t')))
        expect(snapshotVids(bench, 't')).toHaveLength(NAMES.length)
      }
    })
    console.info({ seeds, whole, none })
    if (seeds > 50) expect(Math.min(whole, none)).toBeGreaterThan(3)
  })

  it('are refused as a whole when one of them is', async () => {
    const bench = await SheepBench.open()
    for (const name of NAMES) await bench.create(name)
    const take = (of: readonly { name: string; tag: string }[]) => bench.run(bench.sheep.snapshotTogether(of))
    await expect(take([...together('t'), { name: 'nobody', tag: 't' }])).rejects.toMatchObject({ code: 'NoVdi' })
    await expect(take([...together('t'), { name: 'a', tag: 'u' }])).rejects.toMatchObject({ code: 'InvalidParameters' })
    await bench.run(bench.sheep.snapshot(bench.sheep.state.find('d').vid, 't'))
    await expect(take(together('t'))).rejects.toMatchObject({ code: 'VdiExists' })
    expect(snapshotVids(bench, 't')).toHaveLength(1)
    await take(together('u'))
    expect(new Set(bench.sheep.state.vdis.keys()).size).toBe(4 + 1 + 4)
  })

  it('of one family, also beside others that are asked for in another order', async () => {
    const bench = await SheepBench.open()
    const first = await bench.create('a')
    await bench.run(bench.sheep.snapshot(first, 'base'))
    await bench.run(bench.sheep.createVdi('b', 0, first))
    for (const name of ['c', 'd']) await bench.create(name)
    const orders = [NAMES, NAMES.toReversed(), ['c', 'a'], ['d', 'b']]
    await bench.run(
      Promise.all(
        orders.map((names, i) => bench.sheep.snapshotTogether(names.map((name) => ({ name, tag: `t${i}` })))),
      ),
    )
    for (const [i, names] of orders.entries()) expect(snapshotVids(bench, `t${i}`)).toHaveLength(names.length)
  })

  it('do not wait for ever for requests that are not answered', async () => {
    let release = () => {}
    let held: Promise<void> = Promise.resolve()
    const slow = (disk: Disk): Disk => ({
      ...disk,
      open: async (path, options) => {
        const file = await disk.open(path, options)
        return { ...file, sync: () => held.then(() => file.sync()) }
      },
    })
    const bench = await SheepBench.open({ wrap: slow })
    for (const name of NAMES) await bench.create(name)
    const session = bench.session(bench.sheep.state.find('b').vid)
    await bench.write(session, 0, Buffer.alloc(BLOCK_BYTES, 1))
    held = new Promise((resolve) => {
      release = resolve
    })
    const stuck = answered((done) => session.write(0, Buffer.alloc(BLOCK_BYTES, 2), true, done))
    await expect(bench.run(bench.sheep.snapshotTogether(together('t')))).rejects.toMatchObject({ code: 'Busy' })
    expect(snapshotVids(bench, 't')).toEqual([])
    release()
    await bench.run(stuck)
    await bench.run(bench.sheep.snapshotTogether(together('t')))
    expect(snapshotVids(bench, 't')).toHaveLength(NAMES.length)
  })
})

describe('another name', () => {
  it('is that of a VDI with its snapshots, through a restart, and its content stays', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('mine')
    await bench.write(bench.session(vid), 0, Buffer.alloc(BLOCK_BYTES, 7))
    await bench.run(bench.sheep.snapshot(vid, 'then'))
    await bench.run(bench.sheep.renameVdi('mine', 'ours'))
    await bench.run(bench.sheep.retag(bench.sheep.state.find('ours', { tag: 'then' }).vid, 'now'))
    await bench.restart()
    expect(bench.sheep.state.vdis.of('mine')).toEqual([])
    expect(bench.sheep.state.find('ours', { tag: 'now' }).vid).toBe(vid)
    const current = bench.sheep.state.find('ours').vid
    expect(await bench.read(bench.session(current), 0, BLOCK_BYTES)).toEqual(Buffer.alloc(BLOCK_BYTES, 7))
    await bench.create('mine')
    await bench.run(bench.sheep.snapshot(current, 'later'))
    expect(
      bench.sheep.state.vdis
        .snapshotsOf('ours')
        .map(({ tag }) => tag)
        .sort(),
    ).toEqual(['later', 'now'])
  })

  it('is refused where it is taken, or the VDI is locked, or there is none', async () => {
    const bench = await SheepBench.open()
    await bench.create('mine')
    await bench.create('ours')
    const rename = (name: string, to: string) => bench.run(bench.sheep.renameVdi(name, to))
    await expect(rename('mine', 'ours')).rejects.toMatchObject({ code: 'VdiExists' })
    await expect(rename('nobody', 'somebody')).rejects.toMatchObject({ code: 'NoVdi' })
    await expect(rename('mine', '')).rejects.toMatchObject({ code: 'InvalidParameters' })
    await expect(bench.run(bench.sheep.retag(bench.sheep.state.find('mine').vid, 't'))).rejects.toMatchObject({
      code: 'NoTag',
    })
  })
})
