import { describe, expect, it } from 'vitest'
import { breachesOf, type Told } from './group-history.ts'

const configured = (id: string, ...members: string[]): Told => ({ kind: 'configured', id, members })
const delivered = (sender: string, message: string): Told => ({ kind: 'delivered', sender, message })
const breaches = (histories: Record<string, Told[]>) => breachesOf(new Map(Object.entries(histories)))

describe('the check of histories', () => {
  it('finds nothing in those that keep the contract', () => {
    const both = [configured('1', 'a', 'b'), delivered('a', 'x'), delivered('b', 'y')]
    expect(breaches({ a: both, b: both })).toEqual([])
    expect(
      breaches({ a: [...both, delivered('a', 'alone'), configured('2', 'a')], b: [...both, configured('3', 'b')] }),
    ).toEqual([])
  })

  it.each<[string, Record<string, Told[]>, RegExp]>([
    ['a message before any configuration', { a: [delivered('a', 'x')] }, /before any configuration/],
    ['a configuration without the member', { a: [configured('1', 'b')] }, /without itself/],
    ['a configuration that is two', { a: [configured('1', 'a', 'b')], b: [configured('1', 'b')] }, /is both/],
    ['a configuration that comes again', { a: [configured('1', 'a'), configured('1', 'a')] }, /configuration 1 twice/],
    ['a message that comes again', { a: [configured('1', 'a'), delivered('a', 'x'), delivered('a', 'x')] }, /x twice/],
    ['a sender that is no member', { a: [configured('1', 'a'), delivered('b', 'x')] }, /b, which is not in 1/],
    [
      'others told otherwise on the same way',
      {
        a: [configured('1', 'a', 'b'), delivered('a', 'x'), configured('2', 'a', 'b')],
        b: [configured('1', 'a', 'b'), configured('2', 'a', 'b')],
      },
      /on its way from 1 to 2/,
    ],
    [
      'two orders',
      {
        a: [configured('1', 'a', 'b'), delivered('a', 'x'), delivered('b', 'y')],
        b: [configured('1', 'a', 'b'), delivered('b', 'y'), delivered('a', 'x')],
      },
      /before .* after it/,
    ],
    [
      'something after the end',
      { a: [configured('1', 'a'), { kind: 'lost', reason: 'died' }, delivered('a', 'x')] },
      /after its end/,
    ],
  ])('finds %s', (_name, histories, breach) => {
    expect(breaches(histories)).toEqual([expect.stringMatching(breach)])
  })
})
