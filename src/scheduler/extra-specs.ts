/** What a pool says of one of its capabilities. */
export type Capability = string | number | boolean | null | readonly (string | number | boolean)[]

type Single = string | number | boolean | null

const TRUE_WORDS: ReadonlySet<string> = new Set(['1', 't', 'true', 'on', 'y', 'yes'])

/**
 * Whether a capability is what the value of an extra spec asks for, in the small language of upstream's extra_specs_ops:
 * an operator and a word, or a text that the capability has to be. Of a list, one entry has to match.
 *
 *     = >= <= == !=               numbers; `=` means "at least"
 *     s== s!= s< s<= s> s>=       texts, by their characters
 *     <is> True                   booleans, and words for them
 *     <in> part                   the text contains the part
 *     <or> a <or> b               the text is one of them
 *     <all-in> a b                the text, or the list, contains all of them
 */
export function satisfies(offered: Capability, wanted: string): boolean {
  if (Array.isArray(offered)) {
    return operatorOf(wanted) === '<all-in>'
      ? containsAll(offered.map(String), wanted)
      : offered.some((one: Single) => satisfiesSingle(one, wanted))
  }
  return satisfiesSingle(offered as Single, wanted)
}

function satisfiesSingle(offered: Single, wanted: string): boolean {
  const [operator = '', ...words] = wanted.split(/\s+/).filter((word) => word !== '')
  if (operator !== '<or>' && operator !== '<all-in>' && !Object.hasOwn(OPERATORS, operator)) return offered === wanted
  if (offered === null) return false
  if (operator === '<all-in>') return typeof offered === 'string' && containsAll(offered, wanted)
  if (operator === '<or>') return words.some((word, index) => index % 2 === 0 && word === offered)
  return words[0] !== undefined && OPERATORS[operator]!(offered, words[0])
}

const operatorOf = (wanted: string) => wanted.trim().split(/\s+/, 1)[0]

function containsAll(offered: string | readonly string[], wanted: string): boolean {
  const words = wanted.trim().split(/\s+/).slice(1)
  return words.length > 0 && words.every((word) => offered.includes(word))
}

type Operator = (offered: NonNullable<Single>, word: string) => boolean

const numbers =
  (compare: (a: number, b: number) => boolean): Operator =>
  (offered, word) => {
    const [a, b] = [toNumber(offered), toNumber(word)]
    return a !== null && b !== null && compare(a, b)
  }

const texts =
  (compare: (a: string, b: string) => boolean): Operator =>
  (offered, word) =>
    typeof offered === 'string' && compare(offered, word)

const OPERATORS: Readonly<Record<string, Operator>> = {
  '=': numbers((a, b) => a >= b),
  '==': numbers((a, b) => a === b),
  '!=': numbers((a, b) => a !== b),
  '>=': numbers((a, b) => a >= b),
  '<=': numbers((a, b) => a <= b),
  's==': texts((a, b) => a === b),
  's!=': (offered, word) => offered !== word,
  's<': texts((a, b) => a < b),
  's<=': texts((a, b) => a <= b),
  's>': texts((a, b) => a > b),
  's>=': texts((a, b) => a >= b),
  '<is>': (offered, word) => isTrue(offered) === isTrue(word),
  '<in>': texts((a, b) => a.includes(b)),
}

/** Anything but a word for "true" is false, as for upstream. */
function isTrue(value: NonNullable<Single>): boolean {
  return TRUE_WORDS.has(String(value).trim().toLowerCase())
}

function toNumber(value: NonNullable<Single>): number | null {
  if (typeof value === 'boolean') return Number(value)
  const number =
    typeof value === 'number'
      ? value
      : NUMBER.test(value)
        ? Number(value)
        : INFINITE.test(value)
          ? Infinity
          : Number.NaN
  return Number.isNaN(number) ? null : number
}

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i
const INFINITE = /^\+?inf(inity)?$/i
