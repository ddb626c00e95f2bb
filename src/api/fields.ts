import { z } from 'zod'
import { repr, shorten, tuple, WHOLE_SENTENCE } from './validation.ts'

/**
 * The kinds of values that bodies and queries are made of, with Cinder's bounds (api/validation/parameter_types.py).
 * What is said of a wrong value is the end of a sentence that begins with it (validation.ts).
 */

const DB_INT_MAX = 2_147_483_647

/** What upstream says where several forms are taken and none of them fits. */
export const NO_SCHEMA = 'is not valid under any of the given schemas'

/** Text that a database can hold: no NUL, which PostgreSQL refuses, and no half of a surrogate pair, which UTF-8 has not. */
const storable = z
  .string()
  .refine((value) => !value.includes('\0'), { error: 'contains a NUL character' })
  .refine((value) => !/\p{Surrogate}/u.test(value), { error: 'is not valid Unicode' })

export function text(maxLength: number): z.ZodString {
  return storable.max(maxLength)
}

export const name = text(255).trim().nullable()

/** One line of text that can be printed, or nothing. */
export const description = text(255)
  .regex(/^[^\p{C}\p{Zl}\p{Zp}]*$/u, { error: 'does not match the regex of printable characters' })
  .trim()
  .nullable()

/** Name and description of a volume: any text, of which what stands around it does not count. */
export const volumeName = trimmedText('name')
export const volumeDescription = trimmedText('description')

function trimmedText(attribute: string) {
  return storable
    .trim()
    .refine((value) => value.length <= 255, {
      error: ({ input }) =>
        `Invalid input received: ${attribute} has ${(input as string).length} characters, more than 255.`,
      params: WHOLE_SENTENCE,
    })
    .nullable()
}

/** What upstream takes for the form of a UUID: 32 hexadecimal digits, however they are grouped. */
const UUID = /^(urn:)?(uuid:)?\{*([0-9a-f]-*){32}\}*$/i

/** The id of an object; one that is written otherwise than by us names none. */
export const guid = z.string().regex(UUID, { error: "is not a 'uuid'" })

/** Of ids that may be null upstream says less. */
export const guidOrNull = z.string({ error: NO_SCHEMA }).regex(UUID, { error: NO_SCHEMA }).nullable()
export const optionalGuid = guidOrNull.optional()

/** A whole number in decimal notation, as text too: old clients send it so. */
export function wholeNumber({ min, pattern }: { min: number; pattern: RegExp }) {
  const tooLarge = `is greater than the maximum of ${DB_INT_MAX}`
  return z
    .union(
      [
        z.int({ error: ({ code }) => (code === 'too_big' ? tooLarge : undefined) }),
        z.string().regex(pattern).transform(Number),
      ],
      {
        error: ({ input }) => {
          if (typeof input === 'string') return `does not match '${pattern.source}'`
          return Number.isInteger(input) ? tooLarge : "is not of type 'integer', 'string'"
        },
      },
    )
    .refine((value) => value >= min, { error: `is less than the minimum of ${min}` })
    .refine((value) => value <= DB_INT_MAX, { error: tooLarge })
}

/** Whole GiB. */
export const sizeGib = wholeNumber({ min: 1, pattern: /^[0-9]+$/ })

const TRUE_WORDS = ['True', 'TRUE', 'true', '1', 'ON', 'On', 'on', 'YES', 'Yes', 'yes', 'y', 't']
const FALSE_WORDS = ['False', 'FALSE', 'false', '0', 'OFF', 'Off', 'off', 'NO', 'No', 'no', 'n', 'f']

/** A boolean, or one of the words that OpenStack takes for one. */
export const flag = booleanOr({
  error: ({ input }) =>
    typeof input === 'string'
      ? `is not one of ${repr([true, ...TRUE_WORDS, false, ...FALSE_WORDS])}`
      : "is not of type 'boolean', 'string'",
})

export const optionalFlag = booleanOr({ error: NO_SCHEMA }).nullish()

function booleanOr(params: { error: string | z.core.$ZodErrorMap }) {
  const word = z.enum([...TRUE_WORDS, ...FALSE_WORDS]).transform((word) => TRUE_WORDS.includes(word))
  return z.union([z.boolean(), word], params)
}

/** What a word of a query means, in any case of letters; null when it means neither. */
export function readBoolean(word: string): boolean | null {
  const plain = word.trim().toLowerCase()
  return TRUE_WORDS.includes(plain) ? true : FALSE_WORDS.includes(plain) ? false : null
}

/** A boolean of a query, which upstream refuses in words of its own. */
export function booleanParameter(parameter: string) {
  return z
    .string()
    .transform((word, context) => {
      const read = readBoolean(word)
      if (read !== null) return read
      const message = `Value '${shorten(word)}' for '${parameter}' is not a boolean.`
      context.addIssue({ code: 'custom', message, params: WHOLE_SENTENCE })
      return z.NEVER
    })
    .optional()
}

/** A status that an administrator may write, in any case of letters. */
export function statusOf<const Words extends readonly string[]>(what: string, words: Words, shown = tuple(words)) {
  return text(255).transform((word, context): Words[number] => {
    const status = words.find((known) => known === word.toLowerCase())
    if (status !== undefined) return status
    const message = `${what} status: ${word} is invalid, valid statuses are: ${shown}.`
    context.addIssue({ code: 'custom', message, params: WHOLE_SENTENCE })
    return z.NEVER
  })
}

const PAIRS_MAX = 128

/** Pairs of text. The bound on their number is ours, so that one object cannot fill a page. */
export function pairsOf<Value extends z.ZodType>(key: RegExp, value: Value) {
  const pattern = key.source.replaceAll('\\', '')
  return z
    .record(z.string().regex(key, { error: `not match any of the regexes: '${pattern}'` }), value)
    .refine((pairs) => Object.keys(pairs).length <= PAIRS_MAX, { error: 'has too many properties' })
}

export function exactlyOne<Pairs extends ReturnType<typeof pairsOf>>(pairs: Pairs) {
  return pairs
    .refine((given) => Object.keys(given).length >= 1, { error: 'should be non-empty', abort: true })
    .refine((given) => Object.keys(given).length <= 1, { error: 'has too many properties' })
}

export const METADATA_KEY = /^[a-zA-Z0-9\-_:. /]{1,255}$/

/** Keys and values of user metadata. */
export const metadata = pairsOf(METADATA_KEY, text(255))

/** One link of the `links` of a resource or a list. */
export const Link = z.object({ rel: z.string(), href: z.string() })
