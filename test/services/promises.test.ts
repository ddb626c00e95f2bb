import fc from 'fast-check'
import { expect, it } from 'vitest'
import { createPromises } from '../../src/services/promises.ts'

it('what was promised in a place counts from the round before, and for nobody twice who claimed it then', () => {
  const promises = createPromises()
  const sums = new Map([['b#p', 100]])
  const pending = [{ claim: 'v1', place: 'b#p', sizeGib: 5 }]
  promises.endRound({ promised: sums, heard: ['b#p'], pending })
  expect(promises.gibOf('b#p', sums)).toBe(5)
  expect(promises.gibOf('b#p', sums, 'v1')).toBe(0)
  expect(promises.gibOf('b#p', sums, 'v2')).toBe(5)
  expect(promises.gibOf('b#p', new Map([['b#p', 107]]), 'v1')).toBe(7)
  expect(promises.gibOf('elsewhere', sums, 'v1')).toBe(0)
})

it('what was promised in a place counts until its backend has answered again', () => {
  const promises = createPromises()
  promises.endRound({ promised: new Map(), heard: ['b#p', 'c#p'], pending: [] })
  const later = new Map([
    ['b#p', 3],
    ['c#p', 4],
  ])
  promises.endRound({ promised: later, heard: ['c#p'], pending: [] })
  expect([promises.gibOf('b#p', later), promises.gibOf('c#p', later)]).toEqual([3, 0])
})

/**
 * Volumes go their way (asked for, row and promise committed, made by the backend, row final) while the rounds of two processes go
 * theirs (read the sums, read the rows, hear the backend, end), in any order. For each process the sum of what was reported and
 * promised is never less than what volumes take, and is exactly that after a round in which nothing happened.
 */
it('with the last report is never less than the truth, and exactly that after a quiet round', () => {
  const steps = fc.array(
    fc.oneof({ weight: 2, arbitrary: fc.constantFrom('round of one', 'round of other') }, fc.nat({ max: 9 })),
    { maxLength: 120 },
  )
  fc.assert(
    fc.property(steps, (order) => {
      const stages = Array.from({ length: 10 }, () => 0) // of volumes: 0 asked for … 3 finished
      const sizeOf = (volume: number) => volume + 1
      const sumOf = (volumes: number[]) => volumes.reduce((sum, volume) => sum + sizeOf(volume), 0)
      const atStages = (first: number, last: number) =>
        [...stages.keys()].filter((volume) => stages[volume]! >= first && stages[volume]! <= last)
      const sumNow = () => new Map([['p', sumOf(atStages(1, 3))]])

      const process = () => {
        const promises = createPromises()
        let reportGib = 0
        let round: { promised: ReadonlyMap<string, number>; pending: number[] | null; heardGib: number | null } | null =
          null
        return {
          knownGib: () => reportGib + promises.gibOf('p', sumNow()),
          inRound: () => round !== null,
          advance: () => {
            if (round === null) round = { promised: sumNow(), pending: null, heardGib: null }
            else if (round.pending === null) round.pending = atStages(1, 2)
            else if (round.heardGib === null) round.heardGib = sumOf(atStages(2, 3))
            else {
              reportGib = round.heardGib
              const claim = (volume: number) => ({ claim: String(volume), place: 'p', sizeGib: sizeOf(volume) })
              promises.endRound({ promised: round.promised, heard: ['p'], pending: round.pending.map(claim) })
              round = null
            }
          },
        }
      }
      const [one, other] = [process(), process()]
      for (const step of order) {
        if (step === 'round of one') one.advance()
        else if (step === 'round of other') other.advance()
        else stages[step as number] = Math.min(3, stages[step as number]! + 1)
        const truthGib = sumOf(atStages(1, 3))
        expect(one.knownGib()).toBeGreaterThanOrEqual(truthGib)
        expect(other.knownGib()).toBeGreaterThanOrEqual(truthGib)
      }
      for (const volume of atStages(1, 2)) stages[volume] = 3
      for (const each of [one, other]) {
        while (each.inRound()) each.advance()
        for (let part = 0; part < 4; part++) each.advance()
        expect(each.knownGib()).toBe(sumOf(atStages(1, 3)))
      }
    }),
    { numRuns: 3000 },
  )
})
