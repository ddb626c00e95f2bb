import { describe, expect, it } from 'vitest'
import { Grace } from '../../../src/sheep/replicated/grace.ts'

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** Whether it has passed yet. */
function watch(grace: Grace): { hasPassed: boolean } {
  const seen = { hasPassed: false }
  void grace.passed().then(() => {
    seen.hasPassed = true
  })
  return seen
}

describe('the time that those who look are given', () => {
  it('is over at once when nobody looks', async () => {
    await new Grace().passed()
  })

  it('is until all have left who came before, whoever comes meanwhile', async () => {
    const grace = new Grace()
    const [one, other] = [grace.enter(), grace.enter()]
    const first = watch(grace)
    const late = grace.enter()
    grace.leave(one)
    await turn()
    expect(first.hasPassed).toBe(false)
    const second = watch(grace)
    grace.leave(late)
    await turn()
    expect(second.hasPassed).toBe(false)
    grace.leave(other)
    await turn()
    expect(first.hasPassed).toBe(true)
    expect(second.hasPassed).toBe(true)
  })

  it('is also for those who fail, and for who waits when only earlier ones are left', async () => {
    const grace = new Grace()
    let fail = (_error: Error) => {}
    const looking = grace.during(() => new Promise<void>((_resolve, reject) => (fail = reject)))
    const first = watch(grace)
    const second = watch(grace)
    await turn()
    expect([first.hasPassed, second.hasPassed]).toEqual([false, false])
    fail(new Error('gone'))
    await expect(looking).rejects.toThrow('gone')
    await turn()
    expect([first.hasPassed, second.hasPassed]).toEqual([true, true])
  })
})
