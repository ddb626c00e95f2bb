import { describe, expect, it } from 'vitest'

describe('what `expect` says of bytes', () => {
  it('is what it says of their values, also within others', () => {
    expect(Buffer.from('abc')).toEqual(Buffer.from('abc'))
    expect(Buffer.from('abc')).not.toEqual(Buffer.from('abd'))
    expect(Buffer.from('abc')).not.toEqual(Buffer.from('ab'))
    expect([{ bytes: Buffer.alloc(4096, 1) }]).toEqual([{ bytes: Buffer.alloc(4096, 1) }])
    expect([{ bytes: Buffer.alloc(4096, 1) }]).not.toEqual([{ bytes: Buffer.alloc(4096, 2) }])
  })

  it('tells their kinds apart where that is asked', () => {
    expect(new Uint8Array([1])).not.toStrictEqual(Buffer.from([1]))
  })

  it('takes no time to speak of for much of them', () => {
    const [one, other] = [Buffer.alloc(16 * 1024 * 1024, 1), Buffer.alloc(16 * 1024 * 1024, 1)]
    const before = process.cpuUsage()
    expect(one).toEqual(other)
    const { user, system } = process.cpuUsage(before)
    expect(user + system).toBeLessThan(1_000_000) // one by one it is twenty seconds
  })
})
