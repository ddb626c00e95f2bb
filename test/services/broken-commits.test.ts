import { describe, expect, it } from 'vitest'
import { DIALECTS } from '../db/harness.ts'
import { CommitBreaker } from './commit-breaker.ts'
import { createHarness, outcome, TEST_SETTINGS } from './harness.ts'
import {
  type CutScenario,
  expectSound,
  FURTHER_GROUP_SCENARIOS,
  FURTHER_SCENARIOS,
  GROUP_SCENARIOS,
  MOVING_SCENARIO,
  SCENARIOS,
  worldOf,
} from './scenarios.ts'

/**
 * Each step of each kind of work does its part, and what it wrote into the database does not hold: once, for as long as its result
 * is tried to be written, or also when it is given up. Whatever it is, the work ends.
 */
const { attemptsMax } = TEST_SETTINGS.work
const FAULTS = [
  { fault: 'once', times: 1, isTold: false },
  { fault: 'until it is given up', times: attemptsMax, isTold: true },
  // From then on, each attempt tries to write first its result and then that it is given up.
  { fault: 'until it is abandoned', times: attemptsMax + 1 + 2 * attemptsMax, isTold: true },
]
const BROKEN = 'could not be recorded: one and one is three'

/** Ends without work. */
const WORKLESS = 'completing an attachment'

describe.each(DIALECTS)('a result that cannot be written on %s', (dialect) => {
  const scenarios = [...SCENARIOS, ...FURTHER_SCENARIOS, ...GROUP_SCENARIOS, ...FURTHER_GROUP_SCENARIOS]
    .filter(({ name }) => name !== WORKLESS)
    .concat(dialect === 'SQLite' ? [MOVING_SCENARIO] : [])
  const cases = scenarios.flatMap((scenario) => FAULTS.map((fault) => ({ ...scenario, ...fault })))

  // The commits are the same on both; what PostgreSQL has besides are the lanes that processes share.
  it.each(dialect === 'SQLite' ? cases : cases.filter((_, index) => index % 10 === 2))(
    '$fault, at any step of $name, leaves nothing stuck or counted twice',
    async ({ times, isTold, ...scenario }) => {
      const whole = await run(scenario, new CommitBreaker(null, 0))
      const { steps } = whole.breaker
      expect(steps.length).toBeGreaterThan(0)
      for (const [index, step] of steps.entries()) {
        const { harness, breaker } = await run(scenario, new CommitBreaker(index, times))
        expect([step, breaker.broken]).toEqual([step, times])
        await expectSound(harness)
        const messages = await harness.db('messages')
        if (!isTold) {
          expect(await worldOf(harness), step).toEqual(whole.world)
          expect(messages).toHaveLength(whole.messages)
          continue
        }
        const reasons = await Promise.all(
          ['volumes', 'snapshots', 'attachments', 'backups', 'volume_groups', 'group_snapshots'].map((table) =>
            harness.db(table).pluck('status_reason'),
          ),
        )
        const isReasonKept = reasons.flat().some((reason) => reason?.includes(BROKEN))
        // An attachment that was made with its connection goes with the reason; who waited for it heard that.
        expect([step, isReasonKept || messages.length > 0]).toEqual([step, true])
      }
    },
    300_000,
  )

  async function run({ options, prepare, act }: CutScenario, breaker: CommitBreaker) {
    const whole = await createHarness({ ...options?.(), dialect })
    const id = await prepare(whole)
    const harness = await whole.reopen({ wrapDatabase: breaker.wrapDatabase })
    await whole.services.stop()
    await outcome(act(harness, id))
    await harness.settled()
    const messages = (await harness.db('messages')).length
    return { harness, breaker, messages, world: await worldOf(harness) }
  }
})
