import assert from 'node:assert/strict'
import type { Db } from '../../src/db/database.ts'

type Work = (trx: Db) => Promise<unknown>

interface Unit {
  id: string
  kind: string
  next_step: string
  attempt: number
  updated_at: string | null
}

/**
 * Lets the commits fail that write the result of one step of work, as a broken invariant does: the database answers, and the
 * transaction is rolled back. `step` counts the steps in the order in which they are first written, and null breaks none.
 */
export class CommitBreaker {
  /** What was written, in order of the first time: `kind step`. */
  readonly steps: string[] = []
  /** Commits that were broken. */
  broken = 0
  readonly #step: number | null
  readonly #times: number

  constructor(step: number | null, times: number) {
    this.#step = step
    this.#times = times
  }

  readonly wrapDatabase = (db: Db): Db =>
    new Proxy(db, {
      get: (target, key) =>
        key === 'transaction' ? (work: Work) => this.#transaction(target, work) : Reflect.get(target, key),
    })

  #transaction(db: Db, work: Work): Promise<unknown> {
    return db.transaction(async (trx) => {
      const before: Unit[] = await trx('work')
      const result = await work(trx)
      const after = new Map((await trx('work')).map((unit: Unit) => [unit.id, unit]))
      for (const unit of before) if (isWritten(unit, after.get(unit.id))) this.#see(unit)
      return result
    })
  }

  #see({ kind, next_step: nextStep }: Unit): void {
    const name = `${kind} ${nextStep}`
    if (!this.steps.includes(name)) this.steps.push(name)
    if (this.steps.indexOf(name) !== this.#step || this.broken === this.#times) return
    this.broken += 1
    assert.fail('one and one is three')
  }
}

/** Whether a step was: a unit that only waits for its next attempt counts one more. */
function isWritten(before: Unit, after: Unit | undefined): boolean {
  if (after === undefined) return true
  return (
    after.attempt <= before.attempt && (after.updated_at !== before.updated_at || after.next_step !== before.next_step)
  )
}
