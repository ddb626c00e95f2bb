import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { WOULD_BLOCK } from '../../src/runtime/disk.ts'
import { openSystemDisk } from '../../src/runtime/system-disk.ts'
import { SeededRandom } from '../sim/random.ts'

const KIB = 1024
const MIB = 1024 * KIB

let root: string
let disk: ReturnType<typeof openSystemDisk>

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'collie-disk-'))
  disk = openSystemDisk(root)
})
afterEach(async () => {
  await disk.close()
  rmSync(root, { recursive: true })
})

const bytesOf = (name: string) => readFileSync(join(root, name))
const random = new SeededRandom(1)

describe('files of the system', () => {
  it('are made only when asked for, readable to their owner only', async () => {
    await expect(disk.open('a')).rejects.toMatchObject({ code: 'ENOENT' })
    const file = await disk.open('a', { create: true })
    await file.write(Buffer.from('hello'), 3)
    await file.close()
    expect(bytesOf('a')).toEqual(Buffer.from('\0\0\0hello'))
    expect(statSync(join(root, 'a')).mode & 0o777).toBe(0o600)
    const again = await disk.open('a', { create: true }) // does not cut what is there
    expect(await again.size()).toBe(8)
    await again.close()
    const emptied = await disk.open('a', { create: true, empty: true })
    expect(await emptied.size()).toBe(0)
    await emptied.close()
  })

  it('read up to their end', async () => {
    const file = await disk.open('a', { create: true })
    await file.write(random.bytes(3 * MIB), 0)
    const target = Buffer.alloc(4 * MIB, 0xee)
    expect(await file.read(target, MIB)).toBe(2 * MIB)
    expect(target.subarray(0, 2 * MIB).equals(bytesOf('a').subarray(MIB))).toBe(true)
    expect(target.subarray(2 * MIB).every((byte) => byte === 0xee)).toBe(true)
    expect(await file.read(target, 3 * MIB)).toBe(0)
    expect(await file.read(Buffer.alloc(0), 0)).toBe(0)
    await file.close()
  })

  it('are cut and grown', async () => {
    const file = await disk.open('a', { create: true })
    await file.write(Buffer.alloc(100, 1), 0)
    await file.truncate(50)
    await file.truncate(60)
    expect(await file.size()).toBe(60)
    expect(bytesOf('a')).toEqual(Buffer.concat([Buffer.alloc(50, 1)], 60))
    await file.close()
  })

  it('are renamed, removed and listed', async () => {
    await disk.makeDirectory('d/e')
    await disk.makeDirectory('d/e')
    for (const name of ['d/x', 'd/y']) await (await disk.open(name, { create: true })).close()
    await disk.rename('d/x', 'd/y')
    expect((await disk.list('d')).sort()).toEqual(['e', 'y'])
    await disk.syncDirectory('d')
    await disk.unlink('d/y')
    await disk.unlink('d/y') // may be repeated after a crash
    expect(await disk.list('d')).toEqual(['e'])
    expect(await disk.list('nothing')).toEqual([])
    await expect(disk.syncDirectory('nothing')).rejects.toMatchObject({ code: 'ENOENT' })
  })

  it('tell how much room there is', async () => {
    const { totalBytes, freeBytes } = await disk.space()
    expect(totalBytes).toBeGreaterThan(freeBytes)
    expect(freeBytes).toBeGreaterThan(0)
  })
})

describe('readNow', () => {
  it('gives the bytes that are in memory, into any part of a buffer', async () => {
    const file = await disk.open('a', { create: true })
    const bytes = random.bytes(64 * KIB)
    await file.write(bytes, 0)
    for (const [position, length] of [
      [0, 1],
      [1, 4095],
      [4096, 8192],
      [60 * KIB + 7, 100],
    ] as const) {
      const whole = Buffer.alloc(length + 20, 0xee)
      const count = file.readNow(whole.subarray(10, 10 + length), position)
      // A file system that cannot answer from memory alone always says so; then nothing may have been written.
      expect([length, WOULD_BLOCK]).toContain(count)
      if (count === length) expect(whole.subarray(10, 10 + length)).toEqual(bytes.subarray(position, position + length))
      expect([...whole.subarray(0, 10), ...whole.subarray(10 + length)]).toEqual(Array(20).fill(0xee))
    }
    await file.close()
  })

  it('leaves to `read` what it cannot give whole', async () => {
    const file = await disk.open('a', { create: true })
    await file.write(Buffer.alloc(100, 1), 0)
    expect(file.readNow(Buffer.alloc(101), 0)).toBe(WOULD_BLOCK)
    expect(file.readNow(Buffer.alloc(1), 100)).toBe(WOULD_BLOCK)
    await file.close()
    expect(file.readNow(Buffer.alloc(1), 0)).toBe(WOULD_BLOCK)
  })
})

describe('openNow', () => {
  it('opens what is there, if the kernel can do it without waiting', async () => {
    const file = await disk.open('a', { create: true })
    await file.write(Buffer.from('hello'), 0)
    await file.close()
    const again = disk.openNow('a')
    // Kernels before 5.12 cannot say so, and some file systems never do.
    if (again) {
      again.writeNow([Buffer.from('y')], 4)
      const target = Buffer.alloc(5)
      expect(await again.read(target, 0)).toBe(5)
      expect(target.toString()).toBe('helly')
      await again.close()
    }
    expect(disk.openNow('b')).toBeNull()
    expect(disk.openNow('a/b')).toBeNull()
  })
})

describe('createMany', () => {
  it('makes files, and empties those that are there', async () => {
    const old = await disk.open('f1', { create: true })
    await old.write(Buffer.alloc(100, 1), 0)
    await old.close()
    const names = Array.from({ length: 20 }, (_, i) => `f${i}`)
    const files = await disk.createMany(names)
    for (const [i, file] of files.entries()) await file.write(Buffer.of(i), 0)
    for (const [i, name] of names.entries()) expect(bytesOf(name)).toEqual(Buffer.of(i))
    expect(statSync(join(root, 'f0')).mode & 0o777).toBe(0o600)
    for (const file of files) await file.close()
    expect(await disk.createMany([])).toEqual([])
  })

  it('leaves no file open when one of them cannot be made', async () => {
    const openFiles = () => readdirSync('/proc/self/fd').length
    await disk.createMany([])
    await expect(disk.createMany(['a', 'nothing/b'])).rejects.toMatchObject({ code: 'ENOENT', syscall: 'open' })
    const before = openFiles()
    await expect(disk.createMany(['a', 'nothing/b'])).rejects.toMatchObject({ code: 'ENOENT' })
    expect(openFiles()).toBe(before)
    const [file] = await disk.createMany(['a'])
    await file!.close()
  })
})

describe('writeMany', () => {
  it('writes to each file what it was given, also when the caller goes on with the buffer', async () => {
    const [a, b] = await disk.createMany(['a', 'b'])
    const bytes = random.bytes(3 * MIB)
    const given = Buffer.from(bytes)
    const written = disk.writeMany([
      { to: a!, position: 5, bytes: given.subarray(0, MIB) },
      { to: b!, position: 0, bytes: given.subarray(MIB) },
      { to: a!, position: 0, bytes: Buffer.from('start') },
    ])
    given.fill(0)
    await written
    expect(bytesOf('a').equals(Buffer.concat([Buffer.from('start'), bytes.subarray(0, MIB)]))).toBe(true)
    expect(bytesOf('b').equals(bytes.subarray(MIB))).toBe(true)
    // Less than before, from the same memory; and at the same time.
    await Promise.all([1, 2, 3].map((i) => disk.writeMany([{ to: b!, position: i * 4, bytes: Buffer.alloc(4, i) }])))
    expect(bytesOf('b').subarray(4, 16)).toEqual(Buffer.from([1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]))
    await disk.writeMany([])
    await a!.close()
    await expect(disk.writeMany([{ to: a!, position: 0, bytes: Buffer.alloc(1) }])).rejects.toThrow(/"fd"/)
    await b!.close()
  })
})

describe('writeNow', () => {
  it('writes buffers one after the other, in any number', async () => {
    const file = await disk.open('a', { create: true })
    for (const count of [0, 1, 2, 1023, 1024, 1025, 3000]) {
      const sources = Array.from({ length: count }, () => random.bytes(random.below(40)))
      await file.truncate(0)
      file.writeNow(sources, 11)
      const expected = Buffer.concat([Buffer.alloc(11), ...sources])
      expect(bytesOf('a').equals(expected.length > 11 ? expected : Buffer.alloc(0))).toBe(true)
    }
    await file.close()
  })

  it('can be read at once, both ways', async () => {
    const file = await disk.open('a', { create: true })
    const sources = [random.bytes(4096), random.bytes(8192)]
    file.writeNow(sources, 4096)
    const target = Buffer.alloc(12288)
    expect(await file.read(target, 4096)).toBe(12288)
    expect(target).toEqual(Buffer.concat(sources))
    await file.close()
  })

  it('says what is wrong', async () => {
    const file = await disk.open('a', { create: true })
    await file.close()
    expect(() => file.writeNow([Buffer.alloc(1)], 0)).toThrow(/"fd"/)
  })
})

describe('copyMany', () => {
  it('copies ranges between files in order, however long', async () => {
    const [from, to] = [await disk.open('from', { create: true }), await disk.open('to', { create: true })]
    const bytes = random.bytes(5 * MIB)
    await from.write(bytes, 0)
    await disk.copyMany([
      { from, fromPosition: 7, to, toPosition: 0, length: 3 * MIB + 1 },
      { from, fromPosition: 0, to, toPosition: 100, length: 50 }, // over what was copied before
    ])
    const expected = Buffer.from(bytes.subarray(7, 7 + 3 * MIB + 1))
    bytes.copy(expected, 100, 0, 50)
    expect(bytesOf('to').equals(expected)).toBe(true)
    await Promise.all(
      [1, 2, 3].map((i) => disk.copyMany([{ from, fromPosition: i, to, toPosition: i * MIB, length: MIB }])),
    )
    for (const i of [1, 2, 3]) {
      expect(
        bytesOf('to')
          .subarray(i * MIB, (i + 1) * MIB)
          .equals(bytes.subarray(i, i + MIB)),
      ).toBe(true)
    }
    await disk.copyMany([])
    await from.close()
    await to.close()
  })

  it('rejects when the source ends early or a file is closed, and works again after that', async () => {
    const [from, to] = [await disk.open('from', { create: true }), await disk.open('to', { create: true })]
    await from.write(Buffer.alloc(100, 1), 0)
    const copy = { from, fromPosition: 0, to, toPosition: 0, length: 101 }
    await expect(disk.copyMany([copy])).rejects.toThrow(/ended early/)
    await disk.copyMany([{ ...copy, length: 100 }])
    expect(bytesOf('to')).toEqual(Buffer.alloc(100, 1))
    await from.close()
    await expect(disk.copyMany([copy])).rejects.toThrow(/"fd"/)
    await to.close()
  })
})

describe('syncMany', () => {
  it('takes any number of files', async () => {
    const files = await Promise.all(Array.from({ length: 513 }, (_, i) => disk.open(`f${i}`, { create: true })))
    for (const file of files) file.writeNow([Buffer.alloc(100, 1)], 0)
    for (const count of [0, 1, 2, 3, 4, 20, 512, 513]) await disk.syncMany(files.slice(0, count))
    for (const file of files) await file.close()
  })

  it('goes on while any number of files are written back', async () => {
    const files = await Promise.all(Array.from({ length: 600 }, (_, i) => disk.open(`f${i}`, { create: true })))
    for (const file of files) file.writeNow([Buffer.alloc(4096, 1)], 0)
    disk.startWriteback(files)
    await disk.syncMany(files)
    disk.startWriteback(files)
    for (const file of files) await file.close()
  })

  it('takes any number of directories, with files or without', async () => {
    const names = Array.from({ length: 65 }, (_, i) => `d${i}`)
    for (const name of names) await disk.makeDirectory(name)
    const file = await disk.open('d0/f', { create: true })
    for (const count of [1, 3, 4, 20, 64, 65]) await disk.syncMany([], names.slice(0, count))
    await disk.syncMany([file], names)
    await file.close()
    await expect(disk.syncMany([], ['nothing'])).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(disk.syncMany([], ['nothing', ...names])).rejects.toMatchObject({ code: 'ENOENT' })
  })

  it('rejects when a file is closed, few or many', async () => {
    for (const count of [2, 20, 513]) {
      const files = await Promise.all(Array.from({ length: count }, (_, i) => disk.open(`f${i}`, { create: true })))
      for (const file of files) await file.close()
      await expect(disk.syncMany(files)).rejects.toMatchObject({ code: 'EBADF' })
    }
  })
})

describe('punchMany', () => {
  it('makes ranges read as zeros, leaves the rest and the size, and gives the space back', async () => {
    const file = await disk.open('a', { create: true })
    await file.write(Buffer.alloc(4 * MIB, 1), 0)
    await file.sync()
    const before = statSync(join(root, 'a')).blocks
    await disk.punchMany([1, 2].map((n) => ({ file, position: n * MIB, length: MIB })))
    await file.sync()
    const bytes = bytesOf('a')
    expect(bytes.length).toBe(4 * MIB)
    expect(bytes.subarray(0, MIB).every((byte) => byte === 1)).toBe(true)
    expect(bytes.subarray(3 * MIB).every((byte) => byte === 1)).toBe(true)
    if (statSync(join(root, 'a')).blocks < before) {
      expect(bytes.subarray(MIB, 3 * MIB).every((byte) => byte === 0)).toBe(true)
    }
    await file.close()
  })
})

describe('the lock', () => {
  it('is one holder’s at a time, and free again when that releases it', async () => {
    const held = await disk.lock('lock')
    expect(held).not.toBeNull()
    expect(await disk.lock('lock')).toBeNull()
    await held!.release()
    const again = await disk.lock('lock')
    expect(again).not.toBeNull()
    await again!.release()
  })

  it('keeps other processes out, and ends with its process, however that ends', async () => {
    const program = `
      const { openSystemDisk } = await import(${JSON.stringify(new URL('../../src/runtime/system-disk.ts', import.meta.url).href)})
      const lock = await openSystemDisk(${JSON.stringify(root)}).lock('lock')
      process.stdout.write(lock ? 'held' : 'refused')
      setInterval(() => {}, 1000)
    `
    const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      const answer = await new Promise<string>((resolve) => child.stdout.once('data', (text) => resolve(String(text))))
      expect(answer).toBe('held')
      expect(await disk.lock('lock')).toBeNull()
    } finally {
      child.kill('SIGKILL')
      await new Promise((resolve) => child.once('exit', resolve))
    }
    const lock = await disk.lock('lock')
    expect(lock).not.toBeNull()
    await lock!.release()
  })
})
