import fc from 'fast-check'
import { expect, it } from 'vitest'

/** What `test/fast-check.ts` promises of every property. */

function fail(): { message: string; cause: unknown; tries: number[] } {
  const tries: number[] = []
  const tooLarge = new Error('too large')
  const property = fc.property(fc.nat(), (n) => {
    tries.push(n)
    if (n > 5) throw tooLarge
  })
  try {
    fc.assert(property, { numRuns: 1000 })
  } catch (error) {
    const { message, cause } = error as Error
    return { message, cause, tries }
  }
  throw new Error('a false property holds')
}

it('a property takes the same inputs each time', () => {
  expect(fail()).toEqual(fail())
})

it.runIf(process.env.SHRINK !== '1')(
  'one that fails ends with its first counterexample, and says why, and how to replay it',
  () => {
    const { message, cause, tries } = fail()
    expect(tries.filter((n) => n > 5)).toHaveLength(1)
    expect(message).toContain(`Counterexample: [${tries.at(-1)}]`)
    expect(message).toMatch(/Replay: FIRST_SEED=\d+ npx vitest run test\/fast-check\.test\.ts;/)
    expect(cause).toEqual(new Error('too large'))
  },
)
