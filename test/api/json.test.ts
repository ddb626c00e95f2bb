import fc from 'fast-check'
import { expect, test } from 'vitest'
import { JSON_DEPTH_MAX, parseBody, parseJson, WholeFloat } from '../../src/api/json.ts'

test('parses whatever JSON.stringify prints, up to the depth that is allowed', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 10 }), (value) => {
      fc.pre(!JSON.stringify(value).includes('__proto__')) // see below
      const text = JSON.stringify(value)
      expect(JSON.parse(JSON.stringify(parseJson(text)))).toEqual(JSON.parse(text))
    }),
  )
})

test('whole numbers that are written as floats are told from those that are not, and are the same in JSON', () => {
  const parsed = parseJson('{"a":[2.0,-1e1,2,1.5,0.0],"b":"2.0 \\" 3.0","c":"2.0"}') as { a: unknown[] }
  expect(parsed.a.map((number) => number instanceof WholeFloat)).toEqual([true, true, false, false, true])
  expect(JSON.parse(JSON.stringify(parsed))).toEqual({ a: [2, -10, 2, 1.5, 0], b: '2.0 " 3.0', c: '2.0' })
  expect(() => parseJson('{"a": 2.}')).toThrow('Malformed request body')
})

test('an empty body is null', () => {
  expect(parseJson('')).toBe(null)
  expect(parseJson(' \n')).toBe(null)
})

test('depth counts brackets outside of strings only', () => {
  const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth)
  expect(parseJson(nested(JSON_DEPTH_MAX))).toBeInstanceOf(Array)
  expect(() => parseJson(nested(JSON_DEPTH_MAX + 1))).toThrow('nested more than 32 levels deep')
  expect(() => parseJson(nested(50_000))).toThrow('nested more than 32 levels deep')
  const text = `${'['.repeat(100)}"\\`
  expect(parseJson(JSON.stringify({ text }))).toEqual({ text })
})

test('what is not JSON is refused as a body, not as a failure of ours', () => {
  fc.assert(
    fc.property(fc.string(), (source) => {
      try {
        parseJson(source)
      } catch (error) {
        expect(error).toMatchObject({ code: 'InvalidInput' })
      }
    }),
  )
  expect(() => parseJson('{"a":')).toThrow(/^Malformed request body$/)
})

test('a key cannot reach the prototype, and is not lost without a word', () => {
  for (const body of [
    '{"__proto__": {"admin": true}, "a": 1}',
    '{"a": [{"__proto__": 1}]}',
    '{"\\u005f_proto__": null}',
  ]) {
    expect(() => parseJson(body)).toThrow("Malformed request body: '__proto__' cannot be the name of anything")
  }
  expect(parseJson('{"a": "__proto__"}')).toEqual({ a: '__proto__' })
})

test('bytes that are not UTF-8 are no body', () => {
  const quoted = (...bytes: number[]) => Buffer.from([0x22, ...bytes, 0x22])
  expect(parseBody(quoted(0xc3, 0xa9))).toBe('é')
  for (const bytes of [[0xff], [0xc3], [0xe9], [0xed, 0xa0, 0x80], [0xc0, 0xaf]]) {
    expect(() => parseBody(quoted(...bytes))).toThrow(/^Malformed request body$/)
  }
  expect(() => parseBody(Buffer.from('\ufeff{}'))).toThrow(/^Malformed request body$/)
})
