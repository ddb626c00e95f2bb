import { describe, expect, it } from 'vitest'
import { Recovery } from '../../../src/sheep/clustered/recovery.ts'
import { SimClock } from '../../sim/clock.ts'
import { SeededRandom } from '../../sim/random.ts'

const MIB = 2 ** 20
const FAMILY = 7
const STEP_BYTES = 256 << 10
const STEP_MS = 4

/** A node that copies in steps of some milliseconds, and what of it is under way. */
class Copying {
  readonly root = new SimClock(new SeededRandom(1))
  readonly clock = this.root.mount()
  readonly settings = { isPaused: false, bytesPerSecond: null as number | null }
  readonly recovery: Recovery
  now = 0
  most = 0

  constructor(bytesPerSecond = 1000 * MIB) {
    this.recovery = new Recovery({ clock: this.clock, settings: () => this.settings, bytesPerSecond })
  }

  /** Until so many steps of so many bytes are over; how long that took. */
  copy(steps: number, { bytes = STEP_BYTES, during = () => {} } = {}): Promise<number> {
    const startMs = this.root.nowMs
    const all = Array.from({ length: steps }, () =>
      this.recovery.step(FAMILY, async () => {
        this.most = Math.max(this.most, ++this.now)
        during()
        await this.clock.sleep(STEP_MS)
        this.now--
        return bytes
      }),
    )
    return this.root.run(Promise.all(all)).then(() => this.root.nowMs - startMs)
  }
}

describe('recovery', () => {
  it('has several steps under way at once, and never more than it may', async () => {
    const copying = new Copying()
    const ms = await copying.copy(160)
    expect(copying.most).toBe(16)
    expect(ms).toBeLessThan((160 * STEP_MS) / 10)
  })

  it('copies no faster than it is told, however many steps there are', async () => {
    const copying = new Copying(100 * MIB)
    const slow = await copying.copy(400)
    expect(slow).toBeGreaterThan(950)
    expect(slow).toBeLessThan(1200)
    copying.settings.bytesPerSecond = MIB
    copying.most = 0
    const slower = await copying.copy(20)
    expect(slower).toBeGreaterThan(4500)
    expect(slower).toBeLessThan(5500)
    expect(copying.most).toBe(1)
  })

  it('does less while clients ask for something, and rests as long as it has worked', async () => {
    const copying = new Copying()
    const { recovery } = copying
    await copying.copy(16, { during: () => recovery.requested() })
    copying.most = 0
    const ms = await copying.copy(100, { during: () => recovery.requested() })
    expect(copying.most).toBe(4)
    expect(ms).toBeGreaterThan((100 / 4) * 2 * STEP_MS * 0.9)
    await copying.root.run(copying.clock.sleep(2000))
    copying.most = 0
    await copying.copy(100)
    expect(copying.most).toBe(16)
  })

  it('goes on at once when the rate is another one', async () => {
    const copying = new Copying(1024)
    await copying.copy(1)
    const next = copying.copy(1)
    copying.settings.bytesPerSecond = 1000 * MIB
    copying.recovery.changed()
    expect(await next).toBeLessThan(100)
  })

  it('says how much is left by the objects that were looked at, and how long it takes by what takes longer', async () => {
    const copying = new Copying()
    const { recovery } = copying
    const run = (work: Promise<unknown>) => copying.root.run(work)
    expect(recovery.progress).toMatchObject({ families: 0, objects: 0, bytesLeft: 0, secondsLeft: null })
    recovery.begin(FAMILY, 10)
    for (let i = 0; i < 3; i++) await run(recovery.look(FAMILY, async () => ({ objects: 1, bytes: 5 * MIB })))
    await run(recovery.look(FAMILY, async () => ({ objects: 2, bytes: MIB })))
    recovery.done(FAMILY, 1)
    expect(recovery.progress).toMatchObject({ families: 1, objects: 10, objectsDone: 1, bytesLeft: 32 * MIB })
    await run(copying.clock.sleep(1000))
    expect(recovery.progress.secondsLeft).toBeGreaterThanOrEqual(9)
    await run(recovery.step(FAMILY, async () => MIB))
    expect(recovery.progress).toMatchObject({ bytesLeft: 31 * MIB, bytesCopied: MIB })
    expect(recovery.progress.secondsLeft).toBeGreaterThanOrEqual(31)
    copying.settings.isPaused = true
    expect(recovery.progress.secondsLeft).toBeNull()
    recovery.end(FAMILY)
    expect(recovery.progress).toMatchObject({ families: 0, objects: 0, bytesLeft: 0, bytesCopied: MIB })
  })
})
