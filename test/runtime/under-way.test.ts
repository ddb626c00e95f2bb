import { expect, it } from 'vitest'
import { UnderWay } from '../../src/runtime/under-way.ts'
import { SeededRandom } from '../sim/random.ts'

it('is a Map whose keys it chooses', () => {
  for (let seed = 1; seed <= 4; seed++) {
    const random = new SeededRandom(seed)
    const underWay = new UnderWay<string>()
    const map = new Map<number, string>()
    const former: number[] = []
    for (let step = 0; step < 2000; step++) {
      const dice = random.next()
      if (dice < 0.5 || map.size === 0) {
        const number = underWay.add(`${step}`)
        expect(map.has(number)).toBe(false)
        map.set(number, `${step}`)
      } else if (dice < 0.999) {
        const number = random.pick([...map.keys()])
        underWay.delete(number)
        map.delete(number)
        former.push(number)
      } else {
        underWay.clear()
        former.push(...map.keys())
        map.clear()
      }
      expect(underWay.size).toBe(map.size)
      expect(underWay.values()).toEqual([...map.values()])
      const some = random.pick([...map.keys(), ...former.slice(-10)])
      expect(underWay.get(some)).toBe(map.get(some))
      if (!map.has(some)) underWay.delete(some)
    }
  }
})

it('gives a number again only after 4095 others of its place', () => {
  const underWay = new UnderWay<string>()
  const numbers = Array.from({ length: 4097 }, () => {
    const number = underWay.add('x')
    underWay.delete(number)
    return number
  })
  expect(new Set(numbers).size).toBe(4096)
  expect(numbers.every((number) => number >= 0 && number < 2 ** 32)).toBe(true)
  expect(numbers[4096]).toBe(numbers[0])
})
