import { z } from 'zod'
import { ServiceError } from '../errors.ts'
import { WholeFloat } from './json.ts'

/**
 * Parses what a client sent, and refuses it in the words of upstream's validator, a JSON schema in Python: clients show
 * them, and some look for them. What a schema of ours says of a value is the end of a sentence that begins with that
 * value, `is not of type 'string'`; a reason with WHOLE_SENTENCE stands alone.
 */

/** Mark of a reason that is a sentence of its own; nothing is put before it. */
export const WHOLE_SENTENCE = { wholeSentence: true }

/** Mark of a reason that begins with the name of the field, and says nothing of its value. */
export const FIELD_SENTENCE = { fieldSentence: true }

/** How a reason speaks of what was checked. */
export interface Words {
  /** What the value itself is called, null for a whole body. */
  root: string | null
  /** What is said of keys that nobody knows. */
  unknown(keys: readonly string[]): string
}

/** Parses a body or a query; throws InvalidInput that names the first field that is wrong, and the reason. */
export function check<S extends z.ZodType>(schema: S, value: unknown, words: Words): z.output<S> {
  const result = schema.safeParse(value, { error: inUpstreamsWords })
  if (result.success) return result.data
  throw new ServiceError('InvalidInput', { reason: reasonOf(schema, result.error.issues, value, words) })
}

export function unknownProperties(keys: readonly string[]): string {
  const quoted = [...keys].sort().map(repr).join(', ')
  return `Additional properties are not allowed (${quoted} ${keys.length > 1 ? 'were' : 'was'} unexpected)`
}

/** For fields whose schema says nothing itself. */
const inUpstreamsWords: z.core.$ZodErrorMap = (issue) => {
  switch (issue.code) {
    case 'invalid_type':
      return `is not of type '${TYPE_NAMES[issue.expected] ?? issue.expected}'`
    case 'invalid_value':
      return `is not one of ${repr(issue.values)}`
    case 'too_big':
      return issue.origin === 'string' ? 'is too long' : `is greater than the maximum of ${issue.maximum}`
    case 'too_small':
      if (issue.origin === 'string') return issue.minimum === 1 ? 'should be non-empty' : 'is too short'
      return `is less than the minimum of ${issue.minimum}`
    case 'invalid_format':
      return issue.pattern === undefined ? `is not a '${issue.format}'` : `does not match '${issue.pattern}'`
    case 'unrecognized_keys':
      return undefined // reasonOf names them
    default:
      return 'is not valid under any of the given schemas'
  }
}

const TYPE_NAMES: Readonly<Record<string, string>> = { int: 'integer', record: 'object', union: 'object' }

function reasonOf(schema: z.ZodType, issues: readonly z.core.$ZodIssue[], sent: unknown, words: Words): string {
  const issue = issues[0]!
  if (issue.code === 'custom' && issue.params?.wholeSentence === true) return issue.message
  if (issue.code === 'custom' && issue.params?.fieldSentence === true) {
    return `${shorten(String(issue.path.at(-1)), 100)} ${issue.message}`
  }
  if (issue.code === 'unrecognized_keys') {
    const reason = shorten(words.unknown(issue.keys.map((key) => shorten(key, 100))))
    return about(issue.path, sent, words, reason)
  }
  if (issue.code === 'invalid_key') {
    const parent = issue.path.slice(0, -1)
    const keys = issues.flatMap((other) => (other.code === 'invalid_key' ? [String(other.path.at(-1))] : []))
    const names = shorten(keys.sort().map(repr).join(', '))
    const verb = keys.length > 1 ? 'do' : 'does'
    return about(parent, sent, words, `${names} ${verb} ${issue.issues[0]?.message ?? issue.message}`)
  }
  const value = valueAt(sent, issue.path)
  if (value === undefined && issue.code !== 'custom') {
    return about(issue.path.slice(0, -1), sent, words, `${repr(issue.path.at(-1))} is a required property`)
  }
  const orNull = issue.message.startsWith('is not of type') && takesNull(schema, issue.path) ? ", 'null'" : ''
  return about(issue.path, sent, words, `${subjectOf(value, issue.message)} ${issue.message}${orNull}`)
}

/** A reason with the name and the value of the field before it; of a whole body only the reason. */
function about(path: readonly PropertyKey[], sent: unknown, { root }: Words, reason: string): string {
  const field = path.findLast((part) => typeof part === 'string') ?? root
  if (field === null) return reason
  return `Invalid input for field/attribute ${shorten(field, 100)}. Value: ${shorten(str(valueAt(sent, path)))}. ${reason}`
}

/** The value before a reason; texts of digits count as numbers where a bound is broken. */
function subjectOf(value: unknown, reason: string): string {
  return shorten(/^is (less|greater) than/.test(reason) ? str(value) : repr(value))
}

function valueAt(sent: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (at, key) => (typeof at === 'object' && at !== null ? (at as Record<PropertyKey, unknown>)[key] : undefined),
    sent,
  )
}

/** Whether null may stand where the path leads. */
function takesNull(schema: unknown, [next, ...rest]: readonly PropertyKey[]): boolean {
  if (schema instanceof z.ZodNullable && next === undefined) return true
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodNullable || schema instanceof z.ZodDefault) {
    return takesNull(schema.def.innerType, next === undefined ? [] : [next, ...rest])
  }
  if (schema instanceof z.ZodPipe) {
    const inside = schema.def.in instanceof z.ZodTransform ? schema.def.out : schema.def.in
    return takesNull(inside, next === undefined ? [] : [next, ...rest])
  }
  if (schema instanceof z.ZodObject && next !== undefined) return takesNull(schema.shape[String(next)], rest)
  if (schema instanceof z.ZodRecord && next !== undefined) return takesNull(schema.valueType, rest)
  return false
}

/** A JSON value as Python prints it: upstream's words quote it so. */
export function str(value: unknown): string {
  return typeof value === 'string' ? value : repr(value)
}

export function repr(value: unknown): string {
  if (value === null || value === undefined) return 'None'
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  if (value instanceof WholeFloat) return /^-?\d+$/.test(String(value)) ? `${value}.0` : String(value)
  if (Array.isArray(value)) return `[${value.map(repr).join(', ')}]`
  if (typeof value === 'object') {
    const pairs = Object.entries(value).map(([key, member]) => `${repr(key)}: ${repr(member)}`)
    return `{${pairs.join(', ')}}`
  }
  if (typeof value !== 'string') return String(value)
  const quote = value.includes("'") && !value.includes('"') ? '"' : "'"
  return `${quote}${value.replace(quote === "'" ? /[\\'\p{Cc}]/gu : /[\\\p{Cc}]/gu, escaped)}${quote}`
}

export function tuple(values: readonly unknown[]): string {
  return `(${values.map(repr).join(', ')})`
}

const ESCAPES: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t', '\\': '\\\\', "'": "\\'" }

function escaped(character: string): string {
  return ESCAPES[character] ?? `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`
}

/** What a client sent is repeated to it, but not at any length. */
export function shorten(value: string, length = 400): string {
  return value.length > length ? `${value.slice(0, length)}…` : value
}
