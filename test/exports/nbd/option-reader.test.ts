import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { encodeGreeting, OPTION_BYTES_MAX, OptionReader } from '../../../src/exports/nbd/option-reader.ts'
import { ProtocolError } from '../../../src/exports/nbd/protocol.ts'
import { cutAt, hex } from './bytes.ts'

const FLAGS = hex('00000003')
const GO = hex('49484156454f5054 00000007 0000000a', '00000002 6162 0001 0003')
const ABORT = hex('49484156454f5054 00000002 00000000')

test('the greeting offers fixed newstyle and no zeroes', () => {
  expect(encodeGreeting()).toEqual(hex('4e42444d41474943 49484156454f5054 0003'))
})

describe('a client that is cut anywhere', () => {
  const stream = Buffer.concat([FLAGS, GO, ABORT, hex('25609513')])

  test('is understood the same', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(stream.length)), (cuts) => {
        const reader = new OptionReader()
        const seen: unknown[] = []
        for (const chunk of cutAt(stream, cuts)) {
          reader.push(chunk)
          if (seen.length === 0) push(seen, reader.nextClientFlags())
          while (seen.length > 0 && seen.length < 3 && push(seen, reader.nextOption())) {}
        }
        expect(seen).toEqual([
          { noZeroes: true },
          { option: 7, data: hex('00000002 6162 0001 0003') },
          { option: 2, data: hex('') },
        ])
        expect(reader.takeRest()).toEqual(hex('25609513'))
        expect(reader.takeRest()).toHaveLength(0)
      }),
    )
  })

  function push(seen: unknown[], value: unknown): boolean {
    if (value !== undefined) seen.push(value)
    return value !== undefined
  }
})

describe('is refused', () => {
  test.each([
    ['a client flag that was not offered', hex('00000004')],
    ['the magic of another protocol', Buffer.concat([FLAGS, Buffer.from('GET / HTTP/1.1\r\n')])],
    ['an option longer than any real one', Buffer.concat([FLAGS, hex('49484156454f5054 00000007 ffffffff')])],
    ['an option one byte too long', optionOf(OPTION_BYTES_MAX + 1)],
  ])('%s', (_title, bytes) => {
    const reader = new OptionReader()
    reader.push(bytes)
    expect(() => {
      reader.nextClientFlags()
      reader.nextOption()
    }).toThrow(ProtocolError)
  })

  test('nothing up to the limit', () => {
    const reader = new OptionReader()
    reader.push(optionOf(OPTION_BYTES_MAX))
    reader.nextClientFlags()
    expect(reader.nextOption()?.data).toHaveLength(OPTION_BYTES_MAX)
  })
})

function optionOf(lengthBytes: number): Buffer {
  const header = hex('49484156454f5054 00000063 00000000')
  header.writeUInt32BE(lengthBytes, 12)
  return Buffer.concat([FLAGS, header, Buffer.alloc(lengthBytes)])
}
