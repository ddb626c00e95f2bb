import { expect, it } from 'vitest'
import { CopiesBench, view } from './copies-bench.ts'

const X = { first: 3, count: 1 }
const VIEWS = [view(1, 'ABC'), view(2, 'AB'), view(3, 'ABC')]

/** A copy at C that lacks what was written while C was away, and an owner that has not opened the object yet. */
async function lackingAtC() {
  const copies = new CopiesBench()
  await copies.run(copies.write(copies.owner(VIEWS[0]!), X, 'x', false))
  const without = VIEWS.slice(0, 2)
  await copies.run(copies.write(copies.owner(...without), X, 'y'))
  await copies.read(copies.owner(...without), X) // so that the write is under way no more
  return { copies, owner: copies.owner(...VIEWS) }
}

it('counts an object that turns out to lack something after all were said to be whole', async () => {
  const { copies, owner } = await lackingAtC()
  owner.wasComplete(3)
  expect(await copies.read(owner, X)).toBe('y')
  expect(owner.setbacks).toBe(1)
  await copies.recover(owner)
  expect(await copies.read(owner, X)).toBe('y')
  expect(owner.setbacks).toBe(1)
})

it.each([0, 2])('counts none that lacks something before (complete in epoch %i)', async (epoch) => {
  const { copies, owner } = await lackingAtC()
  owner.wasComplete(epoch)
  expect(await copies.read(owner, X)).toBe('y')
  expect(owner.setbacks).toBe(0)
})
