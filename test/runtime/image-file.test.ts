import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createTarget, openSource } from '../../src/runtime/image-file.ts'

const MIB = 1024 * 1024

let directory: string
beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'collie-image-'))
})
afterEach(() => rmSync(directory, { recursive: true }))

const at = (name: string) => path.join(directory, name)

describe('a source', () => {
  it('is read at any place, and knows its holes', async () => {
    writeFileSync(at('sparse'), '')
    truncateSync(at('sparse'), 64 * MIB)
    const file = openSync(at('sparse'), 'r+')
    writeSync(file, 'data', 32 * MIB)
    closeSync(file)

    const source = await openSource(at('sparse'))
    expect(source.sizeBytes).toBe(64 * MIB)
    expect(source.nextData(0)).toBe(32 * MIB)
    expect(source.nextData(32 * MIB + 3)).toBe(32 * MIB + 3)
    expect(source.nextData(60 * MIB)).toBeNull()
    const target = Buffer.alloc(8)
    expect(await source.read(32 * MIB - 4, target)).toBe(8)
    expect(target.toString()).toBe('\0\0\0\0data')
    expect(await source.read(64 * MIB - 3, target)).toBe(3)
    await source.close()
  })

  it('of a device that cannot seek has no size, and is read as it comes', async () => {
    const source = await openSource('/dev/zero')
    expect(source.sizeBytes).toBeNull()
    expect(source.nextData(MIB)).toBe(MIB)
    expect(await source.read(MIB, Buffer.alloc(10))).toBe(10)
    await source.close()
  })

  it('that is not there, or a directory, is refused', async () => {
    await expect(openSource(at('absent'))).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(openSource(directory)).rejects.toMatchObject({ code: 'EISDIR' })
  })
})

describe('a target', () => {
  it('is in its place when it is whole, and not before', async () => {
    const target = await createTarget(at('image'), { replace: false })
    await target.setSize(MIB)
    await target.write(MIB - 4, Buffer.from('last'))
    expect(existsSync(at('image'))).toBe(false)
    await target.commit()
    await target.discard()
    expect(readFileSync(at('image'))).toEqual(Buffer.concat([Buffer.alloc(MIB - 4), Buffer.from('last')]))
    expect(readdirSync(directory)).toEqual(['image'])
  })

  it('that is given up leaves nothing, nor does it change what is there', async () => {
    writeFileSync(at('image'), 'old')
    const target = await createTarget(at('image'), { replace: true })
    await target.write(0, Buffer.from('new'))
    await target.discard()
    expect(readFileSync(at('image'), 'utf8')).toBe('old')
    expect(readdirSync(directory)).toEqual(['image'])
  })

  it('replaces no file that came meanwhile, unless it may', async () => {
    const target = await createTarget(at('image'), { replace: false })
    await target.write(0, Buffer.from('new'))
    writeFileSync(at('image'), 'theirs')
    await expect(target.commit()).rejects.toMatchObject({ code: 'EEXIST' })
    await target.discard()
    expect(readFileSync(at('image'), 'utf8')).toBe('theirs')
    await expect(createTarget(at('image'), { replace: false })).rejects.toMatchObject({ code: 'EEXIST' })
    await expect(createTarget(directory, { replace: true })).rejects.toMatchObject({ code: 'EEXIST' })
    expect(readdirSync(directory)).toEqual(['image'])
  })
})
