import { expect, test } from 'vitest'
import { createTokenStore, SESSIONS_MAX } from '../../src/identity/tokens.ts'
import { SimClock } from '../sim/clock.ts'
import { SeededRandom } from '../sim/random.ts'

test('the number of sessions is bounded: the oldest gives way, the newest stay', () => {
  const random = new SeededRandom(7)
  const store = createTokenStore({ clock: new SimClock(random).mount(), random })
  const issue = () => store.issue({ methods: ['password'], scoped: true, parent: null }).token
  const [oldest, second] = [issue(), issue()]
  for (let count = 2; count < SESSIONS_MAX; count++) issue()
  expect(store.find(oldest)).not.toBe(null)
  const newest = issue()
  expect(store.find(oldest)).toBe(null)
  expect(store.find(second)).not.toBe(null)
  expect(store.find(newest)).not.toBe(null)
})

test('a token is found by all of its characters only', () => {
  const random = new SeededRandom(8)
  const store = createTokenStore({ clock: new SimClock(random).mount(), random })
  const { token } = store.issue({ methods: ['password'], scoped: true, parent: null })
  expect(store.find(token.slice(0, -1))).toBe(null)
  expect(store.find('')).toBe(null)
  expect(store.revoke('')).toBe(false)
  expect(store.revoke(token)).toBe(true)
})
