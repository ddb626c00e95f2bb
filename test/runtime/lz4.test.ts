import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { bundledLz4, type Lz4, systemLz4 } from '../../src/runtime/lz4.ts'

const KIB = 1024
const made = [
  ['of this program', bundledLz4],
  ...(systemLz4 === null ? [] : [['of the system', systemLz4] as const]),
] as const

const text = Buffer.from('what is written twice is written once, '.repeat(2000))
const mixed = Buffer.concat([randomBytes(64 * KIB), Buffer.alloc(64 * KIB), text])

async function packed(lz4: Lz4, bytes: Buffer): Promise<Buffer> {
  const target = Buffer.alloc(bytes.length)
  return target.subarray(0, (await lz4.compress(bytes, target))!)
}

describe.each(made)('LZ4 %s', (_name, lz4) => {
  it.each(made)('is read by that %s', async (_other, other) => {
    for (const bytes of [text, mixed, Buffer.alloc(4096)]) {
      const stored = await packed(lz4, bytes)
      expect(stored.length).toBeLessThan(bytes.length * 0.9)
      const target = Buffer.alloc(bytes.length + 1, 0xee)
      expect(await other.uncompress(stored, target)).toBe(bytes.length)
      expect(target.subarray(0, bytes.length).equals(bytes)).toBe(true)
      expect(target.at(-1)).toBe(0xee)
    }
  })

  it('writes nothing behind the memory that it has, and says that this is not enough', async () => {
    const stored = await packed(lz4, mixed)
    const memory = Buffer.alloc(mixed.length, 0xee)
    expect(await lz4.compress(mixed, memory.subarray(0, stored.length - 1))).toBeNull()
    expect(await lz4.uncompress(stored, memory.subarray(0, mixed.length - 1))).toBeNull()
    expect(memory.at(-1)).toBe(0xee)
    expect(await lz4.compress(randomBytes(4096), Buffer.alloc(4096))).toBeNull()
  })

  it('takes nothing that is no such block', async () => {
    const stored = await packed(lz4, text)
    const target = Buffer.alloc(text.length)
    const long = Buffer.from(stored)
    long.writeUInt32LE(0xffff_ffff)
    for (const bytes of [Buffer.alloc(0), Buffer.alloc(3), stored.subarray(0, 4), stored.subarray(0, -9), long]) {
      expect(await lz4.uncompress(bytes, target)).toBeNull()
    }
    // A match that begins before the first byte.
    expect(await lz4.uncompress(Buffer.from([16, 0, 0, 0, 0x10, 0x61, 0xff, 0xff, 0x00]), target)).toBeNull()
  })
})
