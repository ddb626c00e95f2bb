import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createPromises } from '../../src/services/promises.ts'
import { ManualClock } from '../tools/manual-clock.ts'

const clock = new ManualClock()

describe('room that was promised', () => {
  it('counts until the first round that begins after it was settled', () => {
    const promises = createPromises(clock)
    promises.add('v1', 'b#p', 5)
    promises.endRound(promises.beginRound(), [])
    expect(promises.gibOf('b#p')).toBe(5)
    promises.settle('v1')
    expect(promises.gibOf('b#p')).toBe(5)
    const round = promises.beginRound()
    promises.add('v2', 'b#p', 2)
    promises.settle('v2')
    promises.endRound(round, [])
    expect(promises.gibOf('b#p')).toBe(2)
    expect(promises.gibOf('b#p', 'v2')).toBe(0)
    expect(promises.gibOf('elsewhere', 'v2')).toBe(0)
  })

  it('moves with a volume that goes to another pool, and ends when it is not made', () => {
    const promises = createPromises(clock)
    promises.add('v1', 'b#p', 5)
    promises.add('v1', 'c#p', 5)
    expect([promises.gibOf('b#p'), promises.gibOf('c#p')]).toEqual([0, 5])
    promises.drop('v1')
    expect(promises.gibOf('c#p')).toBe(0)
  })

  it('is forgotten when nobody ever says what became of it', () => {
    const promises = createPromises(clock)
    promises.add('v1', 'b#p', 5)
    for (let round = 0; round < 100; round++) promises.endRound(promises.beginRound(), [])
    expect(promises.gibOf('b#p')).toBe(5)
    clock.advance(5 * 60_000)
    promises.endRound(promises.beginRound(), [])
    expect(promises.gibOf('b#p')).toBe(0)
  })
})

/**
 * Volumes go their way (reserved, row committed, made by the backend, row final) while rounds go theirs (begin, read the
 * rows, hear the backend, end), in any order. The sum of what was reported and promised is never less than what volumes
 * take, and is exactly that after two rounds in which nothing happened.
 */
it('with the last report is never less than the truth, and exactly that after two quiet rounds', () => {
  const steps = fc.array(fc.oneof({ weight: 2, arbitrary: fc.constant('round') }, fc.nat({ max: 9 })), {
    maxLength: 120,
  })
  fc.assert(
    fc.property(steps, (order) => {
      const promises = createPromises(clock)
      const stages = Array.from({ length: 10 }, () => 0) // of volumes: 0 asked for … 4 finished
      const sizeOf = (volume: number) => volume + 1
      const sumOf = (volumes: number[]) => volumes.reduce((sum, volume) => sum + sizeOf(volume), 0)
      const atStages = (first: number, last: number) =>
        [...stages.keys()].filter((volume) => stages[volume]! >= first && stages[volume]! <= last)
      let reportGib = 0
      let round: { number: number; pending: number[] | null; heardGib: number | null } | null = null

      const advanceVolume = (volume: number) => {
        if (stages[volume] === 4) return
        stages[volume]!++
        if (stages[volume] === 1) promises.add(String(volume), 'p', sizeOf(volume))
        if (stages[volume] === 2) promises.settle(String(volume)) // committed
      }
      const advanceRound = () => {
        if (round === null) round = { number: promises.beginRound(), pending: null, heardGib: null }
        else if (round.pending === null) round.pending = atStages(2, 3)
        else if (round.heardGib === null)
          round.heardGib = sumOf(atStages(3, 4)) // 3: the backend has it
        else {
          reportGib = round.heardGib
          const pending = round.pending.map((volume) => ({
            claim: String(volume),
            place: 'p',
            sizeGib: sizeOf(volume),
          }))
          promises.endRound(round.number, pending)
          round = null
        }
      }
      for (const step of order) {
        if (step === 'round') advanceRound()
        else advanceVolume(step as number)
        expect(reportGib + promises.gibOf('p')).toBeGreaterThanOrEqual(sumOf(atStages(1, 4)))
      }
      for (const volume of atStages(1, 3)) while (stages[volume]! < 4) advanceVolume(volume)
      while (round !== null) advanceRound()
      for (let advance = 0; advance < 8; advance++) advanceRound()
      expect(reportGib + promises.gibOf('p')).toBe(sumOf(atStages(1, 4)))
    }),
    { numRuns: 3000 },
  )
})
