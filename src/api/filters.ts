import { z } from 'zod'
import { booleanParameter, readBoolean, text } from './fields.ts'
import { before } from './microversion.ts'
import { WHOLE_SENTENCE } from './validation.ts'

/** The kinds of values that filters of lists take; they arrive as text. */

/** The value of a filter that no row can match. */
export const MATCHES_NOTHING = Symbol('matches nothing')

export const textFilter = text(255).optional()

/** Whether something is counted in quotas, which upstream knows by another name inside. */
export const quotaFilter = booleanParameter('use_quota')

/** No row has a number that is none. */
export const numberFilter = z
  .string()
  .transform((digits) => (/^\d{1,10}$/.test(digits) ? Number(digits) : MATCHES_NOTHING))
  .optional()

/** Before 3.2 everything except "false" meant true; from then on only clear words are taken. */
export function booleanFilter(parameter: string) {
  return before(
    '3.2',
    (word) => (typeof word === 'string' && word.toLowerCase() !== 'false' ? 'true' : word),
    z
      .string()
      .transform((word, context) => {
        const read = readBoolean(word)
        if (read !== null) return read
        const message = `Invalid input received: '${parameter} = ${word}'`
        context.addIssue({ code: 'custom', message, params: WHOLE_SENTENCE })
        return z.NEVER
      })
      .optional(),
  )
}

/** Leaves out what is made for a migration. What Python takes for nothing is the name of an attribute that no row has. */
export const noTargetsFilter = z
  .string()
  .transform((word) => (['False', '0', 'None', ''].includes(word) ? MATCHES_NOTHING : true))
  .optional()

/**
 * Pairs that a row must have: a JSON object, or a Python dictionary of strings as cinderclient prints it. Anything else
 * matches nothing, as upstream.
 */
export const metadataFilter = text(4096)
  .transform((source) => parseDictionary(source) ?? MATCHES_NOTHING)
  .optional()

const TIME = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,6})\d*)?)?)?(?:Z|([+-])(\d\d)(?::?(\d\d))?)?$/
const OPERATORS = ['gt', 'gte', 'eq', 'neq', 'lt', 'lte']

/** Comparisons with times, in UTC when they name no zone: `gt:2024-01-31T00:00:00,lte:2024-02-29`. */
export const timeFilter = text(255)
  .transform((source, context) => {
    const refuse = (message: string) => {
      context.addIssue({ code: 'custom', message, params: WHOLE_SENTENCE })
      return z.NEVER
    }
    const bounds: Record<string, string> = {}
    for (const part of source.split(',')) {
      const [operator = '', ...rest] = part.split(':')
      if (!OPERATORS.includes(operator)) return refuse(`Invalid ${operator} operator`)
      const stamp = toStamp(rest.join(':'))
      if (stamp === null) return refuse(`Invalid ${rest.join(':') || operator} value`)
      bounds[operator] = stamp
    }
    return bounds
  })
  .optional()

/** A time in the form in which the service keeps them: UTC with microseconds and without a zone. */
function toStamp(time: string): string | null {
  const match = TIME.exec(time)
  if (match === null) return null
  const [, day, minute = '00:00', second = '00', fraction = '', sign = '+', zoneHours = '00', zoneMinutes = '00'] =
    match
  const atZoneMs = Date.parse(`${day}T${minute}:${second}Z`)
  const offsetMs = (Number(zoneHours) * 60 + Number(zoneMinutes)) * 60_000
  const utc = new Date(sign === '-' ? atZoneMs + offsetMs : atZoneMs - offsetMs)
  return Number.isNaN(utc.getTime()) ? null : `${utc.toISOString().slice(0, 19)}.${fraction.padEnd(6, '0')}`
}

/** Reads `{'k': 'v'}` with either kind of quotes, backslash escapes and an optional u before a string. */
export function parseDictionary(source: string): Record<string, string> | null {
  const inside = /^\s*\{(.*)\}\s*$/s.exec(source)?.[1]
  if (inside === undefined) return null
  const pairs: [string, string][] = []
  let rest = inside.trim()
  while (rest !== '') {
    const match = PAIR.exec(rest)
    if (match === null) return null
    pairs.push([unquote(match[1]!), unquote(match[2]!)])
    rest = rest.slice(match[0].length)
  }
  return Object.fromEntries(pairs)
}

const STRING = `u?('(?:[^'\\\\]|\\\\.)*'|"(?:[^"\\\\]|\\\\.)*")`
const PAIR = new RegExp(`^${STRING}\\s*:\\s*${STRING}\\s*(?:,\\s*|$)`, 's')

function unquote(quoted: string): string {
  return quoted.slice(1, -1).replace(/\\(.)/gs, '$1')
}
