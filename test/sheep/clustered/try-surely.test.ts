import { describe, expect, it } from 'vitest'
import { StoreError, type StoreErrorCode } from '../../../src/errors.ts'
import { trySurely } from '../../../src/sheep/clustered/try-surely.ts'
import { SimClock } from '../../sim/clock.ts'
import { SeededRandom } from '../../sim/random.ts'

/** What is answered to each try; null: it was done. Of each whether it has taken effect. */
type Try = [answer: StoreErrorCode | null, hasEffect: boolean]

function tried(tries: readonly Try[]): { tries(): number; ended: Promise<void>; clock: SimClock } {
  const clock = new SimClock(new SeededRandom(1))
  let count = 0
  let isDone = false
  const work = async () => {
    const [answer, hasEffect] = tries[Math.min(count++, tries.length - 1)]!
    isDone ||= hasEffect
    if (answer) throw new StoreError(answer)
  }
  const changed = () => new Promise<void>(() => {})
  const ended = clock.run(trySurely(work, { clock: clock.mount(), isDone: () => isDone, changed }))
  return { tries: () => count, ended, clock }
}

describe('what may have been done', () => {
  it('is tried again until it is done', async () => {
    const { tries, ended } = tried([
      ['Unsure', false],
      ['Unsure', false],
      [null, true],
    ])
    await ended
    expect(tries()).toBe(3)
  })

  it('is done when the log says so, without another try', async () => {
    const { tries, ended } = tried([['Unsure', true]])
    await ended
    expect(tries()).toBe(1)
  })

  it('is refused when it was refused first, whatever there is of that name', async () => {
    const { ended } = tried([['VdiExists', true]])
    await expect(ended).rejects.toMatchObject({ code: 'VdiExists' })
  })

  it('is done when the second try is refused because the first one was done late', async () => {
    const { tries, ended } = tried([
      ['Unsure', false],
      ['VdiExists', true],
    ])
    await ended
    expect(tries()).toBe(2)
  })

  it('stays unsure when nobody can tell for long', async () => {
    const { ended, clock } = tried([['Unsure', false]])
    await expect(ended).rejects.toMatchObject({ code: 'Unsure' })
    expect(clock.nowMs).toBeGreaterThanOrEqual(5000)
    expect(clock.nowMs).toBeLessThan(6000)
  })
})
