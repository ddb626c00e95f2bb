import { describe, expect, it } from 'vitest'
import { readWords, writeWords } from '../../src/sheep/words.ts'

describe('words in files', () => {
  it('are little-endian, whatever the host is', () => {
    const bytes = Buffer.alloc(12, 0xee)
    writeWords(bytes, new Uint32Array([0x01020304, 0xfffefdfc]))
    expect(bytes.toString('hex')).toBe('04030201fcfdfeffeeeeeeee')
  })

  it('are read from any position in memory, and leave the bytes as they are', () => {
    const bytes = Buffer.from('ee04030201fcfdfeffee', 'hex').subarray(1)
    expect([...readWords(bytes, 2)]).toEqual([0x01020304, 0xfffefdfc])
    expect(bytes.toString('hex')).toBe('04030201fcfdfeffee')
  })

  it('of a part of an array are that part', () => {
    const bytes = Buffer.alloc(4)
    writeWords(bytes, new Uint32Array([1, 2, 3]).subarray(1, 2))
    expect(bytes.toString('hex')).toBe('02000000')
  })
})
