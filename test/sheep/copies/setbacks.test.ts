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

it('counts what was being made when another view came, and is not complete before that is over', async () => {
  const copies = new CopiesBench()
  const owner = copies.owner(...VIEWS.slice(0, 2))
  const isOver = owner.making()
  expect(owner.isMakingSinceBefore).toBe(false)
  owner.viewsChanged(VIEWS)
  expect([owner.isMakingSinceBefore, owner.setbacks]).toEqual([true, 0])
  isOver()
  expect([owner.isMakingSinceBefore, owner.setbacks]).toEqual([false, 1])
})

it('counts nothing that was made in one view', async () => {
  const owner = new CopiesBench().owner(...VIEWS)
  owner.making()()
  expect([owner.isMakingSinceBefore, owner.setbacks]).toEqual([false, 0])
})
