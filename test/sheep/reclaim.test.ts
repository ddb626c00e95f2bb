import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../src/sheep/object-format.ts'
import type { Session } from '../../src/sheep/session.ts'
import { Sheep } from '../../src/sheep/sheep.ts'
import { SimClock } from '../sim/clock.ts'
import { SimDisk } from '../sim/disk.ts'
import { SeededRandom } from '../sim/random.ts'

const OBJECTS = 24
/** More steps than the reclaim of this scenario has. */
const STEPS_MAX = 60

class Scenario {
  readonly clock: SimClock
  readonly #random: SeededRandom
  readonly #disk: SimDisk
  sheep!: Sheep

  constructor(seed: number) {
    this.#random = new SeededRandom(seed)
    this.clock = new SimClock(this.#random)
    this.#disk = new SimDisk(this.#random, this.clock, { wouldBlock: 0.5 })
  }

  /** Starts the sheep, again if it runs: then nothing is loaded. */
  async start(): Promise<void> {
    if (this.sheep) await this.clock.run(this.sheep.close())
    const opening = Sheep.open({
      disk: this.#disk.mount(),
      clock: this.clock.mount(),
      random: this.#random,
      log: pino({ level: 'silent' }),
      address: 'a:1',
      zone: 0,
      segmentBytes: 64 * BLOCK_BYTES,
      durability: 'flush',
      reserveBytes: 0,
      copies: 1,
      loadedObjectsMax: 1,
      onFailed: (error) => {
        throw error
      },
    })
    this.sheep = await this.clock.run(opening)
  }

  /** Fills one or both of the first two blocks of each object, against the order of the reclaim. */
  async write(vid: number, fill: number, first: 0 | 1, count: 1 | 2): Promise<void> {
    for (let index = OBJECTS - 1; index >= 0; index--) {
      const offset = index * OBJECT_BYTES + first * BLOCK_BYTES
      const bytes = Buffer.alloc(count * BLOCK_BYTES, fill)
      await this.#with(vid, (session, done) => session.write(offset, bytes, false, done))
    }
  }

  /** What the first two blocks of each object are filled with. */
  async read(vid: number): Promise<number[][]> {
    const found: number[][] = []
    for (let index = 0; index < OBJECTS; index++) {
      const bytes = Buffer.alloc(2 * BLOCK_BYTES)
      await this.#with(vid, (session, done) => session.read(index * OBJECT_BYTES, bytes, done))
      found.push([bytes[0]!, bytes[BLOCK_BYTES]!])
    }
    return found
  }

  async #with(vid: number, use: (session: Session, done: (error: Error | null) => void) => void): Promise<void> {
    const session = this.sheep.sessions.openAnonymous(vid, false)
    await this.clock.run(
      new Promise<void>((resolve, reject) => use(session, (error) => (error ? reject(error) : resolve()))),
    )
    await this.clock.run(this.sheep.sessions.close(session.id))
  }

  /** Lets a number of events happen. */
  async steps(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      await new Promise<void>((resolve) => setImmediate(resolve))
      this.clock.step()
    }
  }
}

describe('reclaim', () => {
  it('keeps what a snapshot needs that is taken, and written after, at any moment of the reclaim', {
    timeout: 240_000,
  }, async () => {
    for (let steps = 0; steps < STEPS_MAX; steps++) {
      const scenario = new Scenario(steps)
      const { clock } = scenario
      await scenario.start()
      const first = await clock.run(scenario.sheep.createVdi('disk', OBJECTS * OBJECT_BYTES, 0))
      await scenario.write(first.vid, 1, 0, 2)
      const second = await clock.run(scenario.sheep.snapshot(first.vid, 'old'))
      await scenario.write(second.vid, 2, 1, 1) // block 0 is still the first one's
      await scenario.start()
      const { sheep } = scenario
      const held = sheep.sessions.openAnonymous(second.vid, false)
      await clock.run(sheep.deleteVdi(first.vid))
      await scenario.steps(steps)
      const third = await clock.run(sheep.snapshot(second.vid, 'kept'))
      await scenario.write(third.vid, 3, 0, 2)
      await clock.run(sheep.reclaimed())
      // The freed vid, if it is, goes to the next VDI of the name, whose objects must be nobody else's.
      const fourth = await clock.run(sheep.snapshot(third.vid, 'later'))
      await scenario.write(fourth.vid, 4, 0, 2)
      expect(await scenario.read(second.vid), `after ${steps} steps`).toEqual(Array(OBJECTS).fill([1, 2]))
      expect(await scenario.read(third.vid)).toEqual(Array(OBJECTS).fill([3, 3]))
      expect(await scenario.read(fourth.vid)).toEqual(Array(OBJECTS).fill([4, 4]))
      expect((await clock.run(sheep.audit())).problems).toEqual([])
      await clock.run(sheep.sessions.close(held.id))
    }
  })
})
