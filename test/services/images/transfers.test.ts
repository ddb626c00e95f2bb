import { expect, it } from 'vitest'
import { createTransfers, type Transfer } from '../../../src/services/images/transfers.ts'
import { ManualClock } from '../../tools/manual-clock.ts'

function transfer(): Transfer & { disposed: number } {
  const made = {
    disposed: 0,
    dispose: async () => {
      made.disposed++
    },
  }
  return made
}

it('a transfer goes on with its unit only, and ends with the last attempt', async () => {
  const transfers = createTransfers(new ManualClock(), 1)
  expect(transfers.take('a')).toBeNull()
  expect(transfers.begin()).toBe(true)
  expect(transfers.begin()).toBe(false)
  const made = transfer()
  await transfers.putBack('a', made)
  expect(transfers.take('b')).toBeNull()
  expect(transfers.take('a')).toBe(made)
  expect(transfers.take('a')).toBeNull()
  await transfers.drop(made)
  expect(made.disposed).toBe(1)
  expect(transfers.begin()).toBe(true)
})

it('one that nobody takes again is disposed of, and makes room', async () => {
  const clock = new ManualClock()
  const transfers = createTransfers(clock, 1)
  transfers.begin()
  const made = transfer()
  await transfers.putBack('a', made)
  clock.advance(29_000)
  expect(made.disposed).toBe(0)
  clock.advance(2000)
  expect(made.disposed).toBe(1)
  expect(transfers.take('a')).toBeNull()
  expect(transfers.begin()).toBe(true)
})

it('of two attempts that overlap, the later one keeps its transfer; after the end none stays', async () => {
  const transfers = createTransfers(new ManualClock(), 2)
  const [early, late] = [transfer(), transfer()]
  transfers.begin()
  transfers.begin()
  await transfers.putBack('a', late)
  await transfers.putBack('a', early)
  expect([early.disposed, late.disposed]).toEqual([1, 0])
  await transfers.close()
  expect(late.disposed).toBe(1)
  transfers.begin()
  const tooLate = transfer()
  await transfers.putBack('b', tooLate)
  expect(tooLate.disposed).toBe(1)
})
