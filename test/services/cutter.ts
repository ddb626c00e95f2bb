import type { Db } from '../../src/db/database.ts'
import type { DriverFilter } from '../../src/drivers/wrappers.ts'

/**
 * Ends a process at one of the moments at which that makes a difference: before and after each call of the driver, and before and
 * after each commit. What the process awaits at that moment never comes; a transaction that was not committed is rolled back, as a
 * server does that loses its client.
 */
export class Cutter {
  /** The moments that went by since `begin`, in order. */
  readonly moments: string[] = []
  /** Resolves when the process was cut off. */
  readonly reached: Promise<void>
  readonly #cutAt: number | null
  #reach = () => {}
  #isOn = false

  /** `cutAt` is an index into `moments`; null lets all of them go by. */
  constructor(cutAt: number | null) {
    this.#cutAt = cutAt
    this.reached = new Promise((resolve) => {
      this.#reach = resolve
    })
  }

  begin(): void {
    this.#isOn = true
  }

  readonly filter: DriverFilter = {
    around: async ({ method }, next) => {
      if (['start', 'stop', 'stats'].includes(method)) return next()
      await this.#pass(`before ${method}`)
      const result = await next()
      await this.#pass(`after ${method}`)
      return result
    },
    toString: () => 'cutter',
  }

  readonly wrapDatabase = (db: Db): Db =>
    new Proxy(db, {
      get: (target, key) =>
        key === 'transaction' ? (work: Work) => this.#transaction(target, work) : Reflect.get(target, key),
    })

  async #transaction(db: Db, work: Work): Promise<unknown> {
    let result: unknown
    try {
      result = await db.transaction(async (trx) => {
        const answer = await work(trx)
        if (this.#isCutBy('before a commit')) throw new CutOff()
        return answer
      })
    } catch (error) {
      if (error instanceof CutOff) return this.#hang()
      throw error
    }
    await this.#pass('after a commit')
    return result
  }

  async #pass(moment: string): Promise<void> {
    if (this.#isCutBy(moment)) await this.#hang()
  }

  #isCutBy(moment: string): boolean {
    return this.#isOn && this.moments.push(moment) - 1 === this.#cutAt
  }

  #hang(): Promise<never> {
    this.#reach()
    return new Promise(() => {})
  }
}

type Work = (trx: Db) => Promise<unknown>

class CutOff extends Error {}
