import { z } from 'zod'

/**
 * The kinds of values that bodies and queries are made of, with Cinder's bounds (api/validation/parameter_types.py).
 * Messages are the end of the sentence that route.ts begins with the name of the field.
 */

const DB_INT_MAX = 2_147_483_647

/** Mark of a reason that is a sentence of its own, in upstream's words; route.ts puts no field before it. */
export const WHOLE_SENTENCE = { wholeSentence: true }

/** Text that a database can hold: no NUL, which PostgreSQL refuses, and no half of a surrogate pair, which UTF-8 has not. */
export function text(maxLength: number): z.ZodString {
  return z
    .string({ error: 'is not a string' })
    .max(maxLength, { error: `is longer than ${maxLength} characters` })
    .refine((value) => !value.includes('\0'), { error: 'contains a NUL character' })
    .refine((value) => !/\p{Surrogate}/u.test(value), { error: 'is not valid Unicode' })
}

export const name = text(255).trim().nullable()
export const description = text(255).trim().nullable()

export const guid = z.guid({ error: 'is not a UUID' })

/** Whole GiB; a string of digits is taken too, as old clients send it. */
export const sizeGib = z
  .union(
    [
      z.int(),
      z
        .string()
        .regex(/^\d{1,10}$/)
        .transform(Number),
    ],
    { error: 'is not a whole number' },
  )
  .refine((size) => size >= 1 && size <= DB_INT_MAX, { error: `is not between 1 and ${DB_INT_MAX}` })

const TRUE_WORDS = ['true', '1', 'on', 'yes', 'y', 't']
const FALSE_WORDS = ['false', '0', 'off', 'no', 'n', 'f']

/** A boolean, or one of the words that OpenStack takes for one. */
export const flag = z.union(
  [
    z.boolean(),
    z
      .string()
      .refine((word) => [...TRUE_WORDS, ...FALSE_WORDS].includes(word.toLowerCase()))
      .transform((word) => TRUE_WORDS.includes(word.toLowerCase())),
  ],
  { error: 'is not a boolean' },
)

/** A boolean of a query, which upstream refuses in words of its own. */
export function booleanParameter(parameter: string) {
  return z
    .string()
    .transform((word, context) => {
      const read = flag.safeParse(word)
      if (read.success) return read.data
      const message = `Value '${word.slice(0, 100)}' for '${parameter}' is not a boolean.`
      context.addIssue({ code: 'custom', message, params: WHOLE_SENTENCE })
      return z.NEVER
    })
    .optional()
}

const METADATA_KEYS_MAX = 128

/** Keys and values of user metadata. The bound on their number is ours, so that one volume cannot fill a page. */
export const metadata = z
  .record(
    z.string().regex(/^[a-zA-Z0-9\-_:. /]{1,255}$/, {
      error: 'has a key with characters other than letters, digits, spaces and -_:./, or of more than 255 characters',
    }),
    text(255),
    { error: 'is not an object of strings' },
  )
  .refine((pairs) => Object.keys(pairs).length <= METADATA_KEYS_MAX, {
    error: `has more than ${METADATA_KEYS_MAX} keys`,
  })

/** One link of the `links` of a resource or a list. */
export const Link = z.object({ rel: z.string(), href: z.string() })
