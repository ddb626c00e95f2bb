import { describe, expect, it } from 'vitest'
import type { Db } from '../../src/db/database.ts'
import type { Dialect } from '../db/harness.ts'
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

/** Ends without work. */
const WORKLESS = 'completing an attachment'

const ALL: readonly CutScenario[] = [
  ...SCENARIOS,
  ...FURTHER_SCENARIOS,
  ...GROUP_SCENARIOS,
  ...FURTHER_GROUP_SCENARIOS,
].filter(({ name }) => name !== WORKLESS)

const SCENARIOS_OF: Record<Dialect, readonly CutScenario[]> = { SQLite: [...ALL, MOVING_SCENARIO], PostgreSQL: ALL }

const { attemptsMax } = TEST_SETTINGS.work
const FAULTS = [
  { fault: 'once', times: 1, isTold: false },
  { fault: 'until it is given up', times: attemptsMax, isTold: true },
  // From then on, each attempt tries to write first its result and then that it is given up.
  { fault: 'until it is abandoned', times: attemptsMax + 1 + 2 * attemptsMax, isTold: true },
] as const
const BROKEN = 'could not be recorded: one and one is three'

/** How much is tried: of `scenarios` kinds of work one, and of `faults` faults of each of its steps one, another one with each step. */
interface Share {
  scenarios: number
  faults: 1 | 3
}

/**
 * Each step of each kind of work does its part, and what it wrote into the database does not hold: once, for as long as its result
 * is tried to be written, or also when it is given up. Whatever it is, the work ends.
 */
export function describeBrokenCommits(dialect: Dialect, share: Share): void {
  describe(`a result that cannot be written on ${dialect}`, () => {
    const scenarios = SCENARIOS_OF[dialect].map((scenario, turn) => ({ ...scenario, turn }))

    it.each(scenarios.filter(({ turn }) => turn % share.scenarios === 0))(
      'at any step of $name leaves nothing stuck or counted twice',
      async ({ turn, ...scenario }) => {
        const whole = await run(scenario, new CommitBreaker(null, 0))
        const { steps } = whole.breaker
        expect(steps.length).toBeGreaterThan(0)
        for (const [index, step] of steps.entries()) {
          for (const [kind, { fault, times, isTold }] of FAULTS.entries()) {
            if ((turn + index + kind) % share.faults !== 0) continue
            const about = `${step}, ${fault}`
            const { harness, breaker } = await run(scenario, new CommitBreaker(index, times))
            expect(breaker.broken, about).toEqual(times)
            await expectSound(harness)
            if (isTold) expect(await isReasonTold(harness.db), about).toBe(true)
            else {
              expect(await worldOf(harness), about).toEqual(whole.world)
              expect(await harness.db('messages'), about).toHaveLength(whole.messages)
            }
            await harness.end()
          }
        }
      },
      300_000,
    )
  })

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
}

const HAVING_REASONS = ['volumes', 'snapshots', 'attachments', 'backups', 'volume_groups', 'group_snapshots']

/** By a reason that is kept, or a message: an attachment that was made with its connection goes with the reason; who waited for it heard that. */
async function isReasonTold(db: Db): Promise<boolean> {
  const reasons = await Promise.all(HAVING_REASONS.map((table) => db(table).pluck('status_reason')))
  return reasons.flat().some((reason) => reason?.includes(BROKEN)) || (await db('messages')).length > 0
}
