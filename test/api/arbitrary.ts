import fc from 'fast-check'
import { z } from 'zod'

interface Json {
  type?: string | string[]
  anyOf?: Json[]
  allOf?: Json[]
  enum?: unknown[]
  const?: unknown
  items?: Json
  properties?: Record<string, Json>
  required?: string[]
  additionalProperties?: Json | boolean
  pattern?: string
  format?: string
  maxLength?: number
}

/** Values that have upset parsers before. */
export const hostile: fc.Arbitrary<unknown> = fc.oneof(
  fc.jsonValue({ maxDepth: 3 }),
  fc.constantFrom(null, '', '\0', 'é'.repeat(300), '9'.repeat(400), -1, 0, 1e308, 2 ** 53, [], {}, true),
  fc.constantFrom(
    1.5,
    -0.1,
    2 ** 31,
    2 ** 63,
    'NaN',
    'Infinity',
    '1.5',
    'x'.repeat(256),
    'a\u0007b\u001b[31m',
    '\u202e',
  ),
  fc.constantFrom('__proto__', 'constructor', "'; drop table volumes; --", '\ud800', '1e3', '0x10', ' 1'),
)

/** How many values in a hundred are wrong on purpose. */
const WRONG_PERCENT = 4

/**
 * Bodies from the schemas themselves: right often enough that they get past validation, wrong somewhere often enough
 * that every refusal is met. `knownIds` names things that exist, once the test has made them.
 */
export function bodiesOf(schema: z.ZodType, knownIds: () => string[]): fc.Arbitrary<unknown> {
  const known = fc.nat().map((index) => knownIds()[index % knownIds().length]!)
  const ids = fc.oneof({ weight: 3, arbitrary: known }, { weight: 1, arbitrary: fc.uuid() })
  return valuesOf(z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as Json)

  function valuesOf(json: Json): fc.Arbitrary<unknown> {
    return fc.oneof(
      { weight: 100 - WRONG_PERCENT, arbitrary: rightValuesOf(json) },
      { weight: WRONG_PERCENT, arbitrary: hostile },
    )
  }

  function rightValuesOf(json: Json): fc.Arbitrary<unknown> {
    if (json.const !== undefined) return fc.constant(json.const)
    if (json.enum !== undefined) return fc.constantFrom(...json.enum)
    if (json.anyOf !== undefined) return fc.oneof(...json.anyOf.map(rightValuesOf))
    if (json.allOf !== undefined) return rightValuesOf(Object.assign({}, ...json.allOf))
    switch (Array.isArray(json.type) ? json.type[0] : json.type) {
      case 'object':
        return objectsOf(json)
      case 'array':
        return fc.array(valuesOf(json.items ?? {}), { maxLength: 3 })
      case 'integer':
      case 'number':
        return fc.oneof(
          { weight: 4, arbitrary: fc.integer({ min: 1, max: 20 }) },
          { weight: 1, arbitrary: fc.integer() },
        )
      case 'boolean':
        return fc.boolean()
      case 'null':
        return fc.constant(null)
      case 'string':
        return stringsOf(json)
      default:
        return fc.jsonValue({ maxDepth: 2 })
    }
  }

  function stringsOf({ format, pattern, maxLength = 40 }: Json): fc.Arbitrary<string> {
    if (format === 'uuid' || format === 'guid' || pattern?.includes('[0-9a-fA-F]{8}')) return ids
    if (pattern === '^\\d{1,10}$') return fc.nat(2_000).map(String)
    return fc.oneof(fc.string({ maxLength }), fc.constantFrom('true', 'error', 'available', 'nova', '__DEFAULT__'))
  }

  /** Optional keys are there one time in six, so that two that exclude each other also come alone. */
  function objectsOf({ properties = {}, required = [], additionalProperties }: Json): fc.Arbitrary<unknown> {
    const fields = Object.entries(properties).map(([name, json]) => {
      const values = valuesOf(json).map((value) => ({ [name]: value }))
      if (required.includes(name)) return values
      return fc.oneof({ weight: 1, arbitrary: values }, { weight: 5, arbitrary: fc.constant({}) })
    })
    const own = fc.tuple(...fields).map((parts) => Object.assign({}, ...parts))
    const free = typeof additionalProperties === 'object' ? additionalProperties : null
    const extra =
      free === null
        ? fc.oneof({ weight: 9, arbitrary: fc.constant({}) }, { weight: 1, arbitrary: fc.constant({ surplus: 1 }) })
        : fc.dictionary(fc.stringMatching(/^[a-zA-Z0-9_:. /-]{1,12}$/), valuesOf(free), { maxKeys: 4 })
    return fc.tuple(own, extra).map(([known, more]) => ({ ...more, ...known }))
  }
}
