import { relative } from 'node:path'
import fc from 'fast-check'
import { expect } from 'vitest'

/**
 * Properties take the same inputs in every run, from `FIRST_SEED` on. One that fails ends with its first counterexample:
 * where a try takes a second and a database, a smaller one takes minutes, and whoever wants it asks with `SHRINK=1`.
 */
const firstSeed = Number(process.env.FIRST_SEED ?? 1)

fc.configureGlobal({
  seed: firstSeed,
  endOnFailure: process.env.SHRINK !== '1',
  reporter: (run) => {
    if (!run.failed) return
    const file = relative(process.cwd(), expect.getState().testPath ?? '')
    const replay = `FIRST_SEED=${firstSeed} npx vitest run ${file}`
    const message = `${fc.defaultReportMessage(run)}\nReplay: ${replay}; with SHRINK=1 before it, for a smaller counterexample`
    throw new Error(message, { cause: run.errorInstance })
  },
})
