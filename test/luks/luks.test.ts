import { execFile } from 'node:child_process'
import { type CipherGCMTypes, createCipheriv } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import fc from 'fast-check'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { VolumeData } from '../../src/drivers/driver.ts'
import { decryptSectors, encryptSectors, isSupported, parseCipher } from '../../src/luks/cipher.ts'
import { formatLuks, LuksError, PAYLOAD_OFFSET_BYTES, unlockLuks } from '../../src/luks/luks1.ts'
import { openPlain } from '../../src/luks/plain-data.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { commandExists, requireCommand, skipUnless } from '../tools/require-command.ts'

const PASSPHRASE = 'ab'.repeat(32)
const SIZE_BYTES = PAYLOAD_OFFSET_BYTES + 256 * 1024
const CIPHERS = [
  ['aes-xts-plain64', 256],
  ['aes-xts-plain64', 512],
  ['aes-cbc-essiv:sha256', 256],
] as const

const run = promisify(execFile)

/** A volume that holds `bytes`, and keeps what is written. */
function volumeOf(bytes: Buffer): VolumeData {
  return {
    sizeBytes: bytes.length,
    extents: async (_offset, lengthBytes) => [{ lengthBytes, kind: 'data' }],
    read: async (offset, target) => void bytes.copy(target, 0, offset, offset + target.length),
    write: async (offset, source) => void source.copy(bytes, offset),
    discard: async (offset, lengthBytes) => void bytes.fill(0, offset, offset + lengthBytes),
    flush: async () => {},
    close: async () => {},
  }
}

async function formatted(cipher: string, bits: number): Promise<Buffer> {
  const order = { cipher: parseCipher(cipher, bits)!, keyBytes: bits / 8, passphrase: PASSPHRASE }
  const bytes = Buffer.alloc(SIZE_BYTES)
  ;(await formatLuks(order, systemRandom)).copy(bytes)
  return bytes
}

function scratch(): { image: string; secret: string } {
  const directory = mkdtempSync(path.join(tmpdir(), 'collie-luks-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const secret = path.join(directory, 'passphrase')
  writeFileSync(secret, PASSPHRASE)
  return { image: path.join(directory, 'volume'), secret }
}

/** What else opens such volumes; QEMU alone is required. */
const withCryptsetup = skipUnless(
  !['cryptsetup', 'qemu-img'].every(commandExists) &&
    'cryptsetup is missing: apt-get install cryptsetup-bin qemu-utils',
)
const secretOf = (file: string) => ['--object', `secret,id=key,file=${file}`]

describe.each(CIPHERS)('a volume that is encrypted with %s of %i bits', (cipher, bits) => {
  requireCommand('qemu-img', 'qemu-utils')(
    'is opened by QEMU with the same passphrase, and holds the same bytes',
    async () => {
      const { image, secret } = scratch()
      const bytes = await formatted(cipher, bits)
      const plain = await openPlain(volumeOf(bytes), PASSPHRASE)
      const content = systemRandom.bytes(plain.sizeBytes)
      await plain.write(0, content)
      writeFileSync(image, bytes)
      const from = `driver=luks,key-secret=key,file.filename=${image}`
      await run('qemu-img', ['convert', ...secretOf(secret), '--image-opts', from, '-O', 'raw', `${image}.raw`])
      expect(readFileSync(`${image}.raw`).equals(content)).toBe(true)
    },
  )

  withCryptsetup('is opened by cryptsetup, as os-brick does it', async () => {
    const { image, secret } = scratch()
    writeFileSync(image, await formatted(cipher, bits))
    await run('cryptsetup', ['luksOpen', '--test-passphrase', `--key-file=${secret}`, image])
    const { stdout } = await run('cryptsetup', ['luksDump', image])
    expect(stdout).toMatch(/Version:\s+1\n/)
    expect(stdout).toMatch(/Payload offset:\s+4096\n/)
  })

  withCryptsetup('that os-brick has made is opened here', async () => {
    const { image, secret } = scratch()
    writeFileSync(image, Buffer.alloc(SIZE_BYTES))
    const keys = ['--cipher', cipher, '--key-size', String(bits), `--key-file=${secret}`]
    const quick = ['--pbkdf-force-iterations', '1000']
    await run('cryptsetup', ['--batch-mode', 'luksFormat', '--type', 'luks1', ...keys, ...quick, image])
    const content = systemRandom.bytes(SIZE_BYTES - PAYLOAD_OFFSET_BYTES)
    writeFileSync(`${image}.raw`, content)
    const to = `driver=luks,key-secret=key,file.filename=${image}`
    await run('qemu-img', [
      'convert',
      '-n',
      ...secretOf(secret),
      '-f',
      'raw',
      `${image}.raw`,
      '--target-image-opts',
      to,
    ])
    const plain = await openPlain(volumeOf(readFileSync(image)), PASSPHRASE)
    const read = Buffer.alloc(content.length)
    await plain.read(0, read)
    expect(read.equals(content)).toBe(true)
  })
})

describe('a header', () => {
  it('does not open with another passphrase, nor when any of it is damaged', async () => {
    const bytes = await formatted('aes-xts-plain64', 256)
    await expect(unlockLuks(bytes, `${PASSPHRASE}0`)).rejects.toThrow('no key slot of it opens')
    for (const at of [0, 7, 112, 140, 220, 4096, 4096 + 127_999]) {
      const damaged = Buffer.from(bytes)
      damaged[at]! ^= 1
      await expect(unlockLuks(damaged, PASSPHRASE), `byte ${at}`).rejects.toBeInstanceOf(LuksError)
    }
  })

  it('that is none, or asks for too much, is refused', async () => {
    await expect(unlockLuks(Buffer.alloc(SIZE_BYTES), PASSPHRASE)).rejects.toThrow('does not begin with a LUKS header')
    await expect(unlockLuks(Buffer.alloc(10), PASSPHRASE)).rejects.toThrow('does not begin with a LUKS header')
    const greedy = await formatted('aes-xts-plain64', 256)
    greedy.writeUInt32BE(2 ** 31, 212)
    await expect(unlockLuks(greedy, PASSPHRASE)).rejects.toThrow('rounds of PBKDF2')
  })

  it('has a master key of its own each time', async () => {
    const [one, other] = [await formatted('aes-xts-plain64', 256), await formatted('aes-xts-plain64', 256)]
    expect((await unlockLuks(one, PASSPHRASE)).key).not.toEqual((await unlockLuks(other, PASSPHRASE)).key)
  })
})

describe('ciphers', () => {
  it('are those that the header can name and Node has', () => {
    expect(parseCipher('aes-xts-plain64', 256)).toEqual({ name: 'aes', mode: 'xts-plain64' })
    for (const [text, bits] of [
      ['aes-xts-plain64', 128],
      ['aes-xts-essiv:sha256', 256],
      ['serpent-xts-plain64', 256],
      ['aes-ecb', 256],
      ['aes', 256],
      ['', 256],
    ] as const)
      expect(parseCipher(text, bits), text).toBeNull()
  })

  it('give back what they were given, and depend on the number of the sector', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(['xts-plain64', 32], ['xts-plain', 64], ['cbc-plain', 16], ['cbc-essiv:sha256', 24]),
        fc.nat(2 ** 40),
        fc.uint8Array({ minLength: 1024, maxLength: 1024 }),
        ([mode, keyBytes], sector, bytes) => {
          const cipher = { name: 'aes', mode: String(mode) }
          expect(isSupported(cipher, Number(keyBytes))).toBe(true)
          const key = systemRandom.bytes(Number(keyBytes))
          const text = Buffer.from(bytes)
          encryptSectors(cipher, key, sector, text)
          expect(text.equals(bytes)).toBe(false)
          const elsewhere = Buffer.from(bytes)
          encryptSectors(cipher, key, sector + 1, elsewhere)
          expect(elsewhere.equals(text)).toBe(false)
          decryptSectors(cipher, key, sector, text)
          expect(text.equals(bytes)).toBe(true)
        },
      ),
      { numRuns: 50 },
    )
  })
})

it('sectors that are encrypted together with XTS are what OpenSSL makes of one at a time', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(32, 64),
      fc.nat(2 ** 40),
      fc.integer({ min: 1, max: 1030 }),
      (keyBytes, first, count) => {
        const key = systemRandom.bytes(keyBytes)
        const bytes = systemRandom.bytes(count * 512)
        const expected = Buffer.concat(
          Array.from({ length: count }, (_, sector) => {
            const number = Buffer.alloc(16)
            number.writeBigUInt64LE(BigInt(first + sector))
            // The overloads want names of authenticated ciphers apart, which this is not.
            const one = createCipheriv(`aes-${keyBytes * 4}-xts` as CipherGCMTypes, key, number)
            return one.update(bytes.subarray(sector * 512, (sector + 1) * 512))
          }),
        )
        const unaligned = Buffer.concat([Buffer.alloc(3), bytes]).subarray(3)
        encryptSectors({ name: 'aes', mode: 'xts-plain64' }, key, first, unaligned)
        expect(unaligned.equals(expected)).toBe(true)
        decryptSectors({ name: 'aes', mode: 'xts-plain64' }, key, first, unaligned)
        expect(unaligned.equals(bytes)).toBe(true)
      },
    ),
    { numRuns: 20 },
  )
})

it('what is seen of an encrypted volume behaves as bytes do, of any alignment', async () => {
  const bytes = await formatted('aes-xts-plain64', 256)
  const plain = await openPlain(volumeOf(bytes), PASSPHRASE)
  expect(plain.sizeBytes).toBe(SIZE_BYTES - PAYLOAD_OFFSET_BYTES)
  await plain.discard(0, plain.sizeBytes)
  const expected = Buffer.alloc(plain.sizeBytes)
  const range = fc.tuple(fc.nat(plain.sizeBytes - 1), fc.integer({ min: 1, max: 3000 }))
  await fc.assert(
    fc.asyncProperty(range, fc.boolean(), async ([offset, length], isDiscard) => {
      const part = expected.subarray(offset, offset + length)
      if (isDiscard) part.fill(0)
      else systemRandom.bytes(part.length).copy(part)
      if (isDiscard) await plain.discard(offset, part.length)
      else await plain.write(offset, part)
      const around = Buffer.alloc(Math.min(5000, plain.sizeBytes - offset))
      await plain.read(offset, around)
      expect(around.equals(expected.subarray(offset, offset + around.length))).toBe(true)
    }),
    { numRuns: 60 },
  )
  const all = Buffer.alloc(plain.sizeBytes)
  await plain.read(0, all)
  expect(all.equals(expected)).toBe(true)
})
