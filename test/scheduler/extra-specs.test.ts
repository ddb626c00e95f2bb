import fc from 'fast-check'
import { expect, it } from 'vitest'
import { type Capability, satisfies } from '../../src/scheduler/extra-specs.ts'

/** The cases of upstream's test_capabilities_filter, by operator: capability, wanted, whether it is satisfied. */
const CASES: [Capability, string, boolean][] = [
  ['1', '1', true],
  ['', '1', false],
  ['3', '1', false],
  ['222', '2', false],
  [true, 'True', false], // upstream compares with the text, which a boolean never is
  ['123', '= 123', true],
  ['124', '= 123', true],
  ['34', '= 234', false],
  ['34', '=', false],
  [124, '= 123', true],
  ['123', '== 123', true],
  ['34', '== 234', false],
  ['123', '!= 123', false],
  ['124', '!= 123', true],
  ['234', '>= 234', true],
  ['234', '>= 235', false],
  ['1.5', '<= 1.5', true],
  ['1.5', '<= 1.4', false],
  ['text', '>= 1', false],
  ['inf', '>= 10', true],
  ['0x10', '== 16', false],
  ['123', 's== 123', true],
  ['1234', 's== 123', false],
  ['1234', 's!= 123', true],
  ['123', 's!= 123', false],
  ['1000', 's>= 234', false],
  ['234', 's>= 1000', true],
  ['2', 's< 12', false],
  ['12', 's< 2', true],
  ['12', 's<= 2', true],
  ['3', 's<= 2', false],
  ['2', 's> 12', true],
  ['12', 's> 2', false],
  [5, 's< 6', false],
  ['12311321', '<in> 11', true],
  ['12310321', '<in> 11', false],
  ['hbox', '<is> False', true],
  [true, '<is> True', true],
  [true, '<is> yes', true],
  [false, '<is> True', false],
  ['on', '<is> 1', true],
  ['12', '<or> 11 <or> 12', true],
  ['13', '<or> 11 <or> 12', false],
  ['11', '<or> 11', true],
  ['<or>', '<or> 11 <or> 12', false],
  ['aes mmx sse', '<all-in> aes mmx', true],
  ['aes sse', '<all-in> aes mmx', false],
  [['aes', 'mmx'], '<all-in> mmx aes', true],
  [['aes'], '<all-in> mmx aes', false],
  [['iSCSI', 'iscsi'], 'iscsi', true],
  [['iSCSI', 'iscsi'], '<or> FC <or> iscsi', true],
  [['iSCSI'], 'nbd', false],
  [null, '<is> False', false],
  [null, '', false],
  ['', '', true],
]

it.each(CASES)('%j is %j: %s', (offered, wanted, expected) => {
  expect(satisfies(offered, wanted)).toBe(expected)
})

/** What upstream's `match` does, read off its text, for texts and numbers. */
function asUpstream(value: string | number, wanted: string): boolean {
  const [op, ...words] = wanted.split(' ').filter((word) => word !== '')
  const word = words[0]
  const number = Number(value)
  switch (op) {
    case '=':
    case '>=':
      return word !== undefined && number >= Number(word)
    case '<=':
      return word !== undefined && number <= Number(word)
    case '==':
      return word !== undefined && number === Number(word)
    case '!=':
      return word !== undefined && number !== Number(word)
    case 's==':
      return word !== undefined && value === word
    case 's<':
      return word !== undefined && typeof value === 'string' && value < word
    case '<in>':
      return word !== undefined && typeof value === 'string' && value.includes(word)
    case '<or>':
      return words.filter((_, index) => index % 2 === 0).includes(String(value)) && typeof value === 'string'
    default:
      return value === wanted
  }
}

it('agrees with a plain reading of upstream on any numbers', () => {
  const operator = fc.constantFrom('=', '>=', '<=', '==', '!=', 's==', 's<', '<in>', '<or>')
  const number = fc.integer({ min: 0, max: 30 })
  fc.assert(
    fc.property(
      fc.oneof(number, number.map(String)),
      operator,
      fc.array(number, { maxLength: 3 }),
      (value, op, words) => {
        const wanted = [op, ...words.map(String)].join(' ')
        expect(satisfies(value, wanted)).toBe(asUpstream(value, wanted))
      },
    ),
    { numRuns: 2000 },
  )
})
