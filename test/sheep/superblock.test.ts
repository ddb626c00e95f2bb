import { crc32 } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import type { Disk } from '../../src/runtime/disk.ts'
import { EntryLog } from '../../src/sheep/entry-log.ts'
import { Superblock } from '../../src/sheep/superblock.ts'
import { SimClock } from '../sim/clock.ts'
import { SimDisk } from '../sim/disk.ts'
import { SeededRandom } from '../sim/random.ts'

const STORE = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex')
const MARK = {
  generation: 6,
  sequence: 2 ** 33,
  synced: 7,
  cache: 9,
  logNumber: 3,
  logBytes: 258,
  copyLogNumber: 5,
  copyLogBytes: 2 ** 32 + 6,
}

function newDisk() {
  const random = new SeededRandom(1)
  const clock = new SimClock(random)
  const sim = new SimDisk(random, clock)
  const disk: Disk = sim.mount()
  const run = <T>(work: Promise<T>) => clock.run(work)
  const patch = async (path: string, position: number, bytes: Buffer) => {
    const file = await disk.open(path)
    await file.write(bytes, position)
  }
  return { sim, disk, run, patch: (...args: Parameters<typeof patch>) => run(patch(...args)) }
}

describe('the superblock', () => {
  it('is written in turn to two slots, with these bytes', async () => {
    const { disk, run } = newDisk()
    const superblock = await run(Superblock.create(disk, STORE))
    await run(superblock.write(MARK))
    const file = await run(disk.open('superblock'))
    const bytes = Buffer.alloc(8192)
    await run(file.read(bytes, 0))
    const fields = `43537562 03000000 ${STORE.toString('hex')} 0300000000000000 0600000000000000 0000000002000000 0300000000000000 0201000000000000 0700000000000000 09000000`
    const head = Buffer.concat([Buffer.from(fields.replaceAll(' ', ''), 'hex')], 76)
    expect(bytes.toString('hex', 4096, 4096 + 76)).toBe(head.toString('hex'))
    expect(bytes.readUInt32LE(4096 + 76)).toBe(crc32(head)) // where format 2 has it
    expect(bytes.toString('hex', 4096 + 80, 4096 + 96)).toBe('05000000000000000600000001000000')
    expect(bytes.readUInt32LE(4096 + 96)).toBe(crc32(bytes.subarray(4096, 4096 + 96)))
    expect(bytes.readUInt32LE(24)).toBe(2) // the writing before
  })

  it('is read from the slot that was written last, and from the other when that one is damaged', async () => {
    for (let bit = 0; bit < 100 * 8; bit++) {
      const { disk, run, patch } = newDisk()
      const superblock = await run(Superblock.create(disk, STORE))
      await run(superblock.write({ ...MARK, generation: 5 }))
      await run(superblock.write(MARK))
      expect((await run(Superblock.open(disk)))?.content).toMatchObject({ storeId: STORE, ...MARK })
      const file = await run(disk.open('superblock'))
      const byte = Buffer.alloc(1)
      await run(file.read(byte, bit >>> 3))
      byte[0]! ^= 1 << (bit & 7)
      await patch('superblock', bit >>> 3, byte)
      expect((await run(Superblock.open(disk)))?.content).toMatchObject({ generation: 5 })
    }
  })

  it('is refused when both slots are damaged, or when it is of another format', async () => {
    const { disk, run, patch } = newDisk()
    await run(Superblock.create(disk, STORE))
    const other = Buffer.alloc(80)
    other.writeUInt32LE(0x62755343, 0)
    other.writeUInt32LE(4, 4)
    other.writeUInt32LE(crc32(other.subarray(0, 76)), 76)
    await patch('superblock', 0, other)
    await expect(run(Superblock.open(disk))).rejects.toThrow(/format 4; this version reads up to format 3/)
    await patch('superblock', 0, Buffer.alloc(8192))
    await expect(run(Superblock.open(disk))).rejects.toThrow(/both superblocks are damaged/)
  })

  it('is read as format 2 wrote it, which knew nothing of copies', async () => {
    const { disk, run, patch } = newDisk()
    await run(Superblock.create(disk, STORE))
    const slot = Buffer.alloc(4096)
    const fields = `43537562 02000000 ${STORE.toString('hex')} 0900000000000000 0600000000000000 0000000002000000 0300000000000000 0201000000000000 0700000000000000 09000000`
    Buffer.from(fields.replaceAll(' ', ''), 'hex').copy(slot)
    slot.writeUInt32LE(crc32(slot.subarray(0, 76)), 76)
    await patch('superblock', 4096, slot)
    const content = (await run(Superblock.open(disk)))?.content
    expect(content).toEqual({ storeId: STORE, ...MARK, count: 9, copyLogNumber: 0, copyLogBytes: 0 })
  })

  it('is absent from an empty directory', async () => {
    const { disk, run } = newDisk()
    expect(await run(Superblock.open(disk))).toBeNull()
  })
})

describe('the ordered log at rest', () => {
  const entry = (index: number, text: string) => ({ index, bytes: Buffer.from(text) })

  async function newLog() {
    const bench = newDisk()
    const { log } = await bench.run(EntryLog.open(bench.disk, { logNumber: 0, logBytes: 0 }))
    return { ...bench, log }
  }

  it('has a line for each entry', async () => {
    const { disk, run, log } = await newLog()
    await run(log.append([entry(1, '{"a":1}'), entry(2, '{}')]))
    const text = Buffer.alloc(100)
    const length = await run((await run(disk.open('log.0'))).read(text, 0))
    const line = (rest: string) => `${crc32(rest).toString(16).padStart(8, '0')} ${rest}\n`
    expect(text.toString('utf8', 0, length)).toBe(line('1 {"a":1}') + line('2 {}'))
    expect(log.position).toEqual({ logNumber: 0, logBytes: length })
  })

  it('passes over entries that it has', async () => {
    const { disk, run, log } = await newLog()
    await run(log.append([entry(1, 'a'), entry(2, 'b')]))
    await run(log.append([entry(2, 'b'), entry(3, 'c')]))
    const { entries } = await run(EntryLog.open(disk, log.position))
    expect(entries.map(({ index, bytes }) => `${index}${bytes}`)).toEqual(['1a', '2b', '3c'])
  })

  it('holds what the superblock names, to the byte: what lies behind does not count', async () => {
    const { disk, run, log } = await newLog()
    await run(log.append([entry(1, 'a')]))
    const { position } = log
    await run(log.append([entry(2, 'b')]))
    const reopened = await run(EntryLog.open(disk, position))
    expect(reopened.entries).toHaveLength(1)
    expect(reopened.log.lastIndex).toBe(1)
    await run(reopened.log.append([entry(2, 'c')]))
    const again = await run(EntryLog.open(disk, reopened.log.position))
    expect(again.entries.map(({ index, bytes }) => `${index}${bytes}`)).toEqual(['1a', '2c'])
  })

  it('is refused when any bit of it is another, or when a part of it is missing', async () => {
    const { disk, run, patch, log } = await newLog()
    await run(log.append([entry(1, 'first'), entry(2, 'second')]))
    const text = Buffer.alloc(log.position.logBytes)
    await run((await run(disk.open('log.0'))).read(text, 0))
    for (let bit = 0; bit < text.length * 8; bit++) {
      const flipped = Buffer.from(text)
      flipped[bit >>> 3]! ^= 1 << (bit & 7)
      await patch('log.0', 0, flipped)
      await expect(run(EntryLog.open(disk, log.position))).rejects.toMatchObject({ code: 'CorruptBlock' })
    }
    await patch('log.0', 0, text)
    expect((await run(EntryLog.open(disk, log.position))).entries).toHaveLength(2)
    const { logBytes } = log.position
    await expect(run(EntryLog.open(disk, { logNumber: 0, logBytes: logBytes + 1 }))).rejects.toThrow(/damaged/)
    await run(disk.unlink('log.0'))
    await expect(run(EntryLog.open(disk, { logNumber: 0, logBytes }))).rejects.toThrow(/damaged/)
  })

  it('goes on in another file after compaction, and either file holds for the superblock that names it', async () => {
    const { disk, run, log } = await newLog()
    await run(log.append([entry(1, 'a'), entry(2, 'b'), entry(3, 'c')]))
    const before = log.position
    await run(log.compact(3, [Buffer.from('abc')]))
    expect(log.position.logNumber).toBe(1)
    expect((await run(EntryLog.open(disk, before))).entries).toHaveLength(3) // the crash came before the superblock
    await run(log.compact(3, [Buffer.from('abc')]))
    await run(log.append([entry(3, 'c'), entry(4, 'd')]))
    const { entries } = await run(EntryLog.open(disk, log.position))
    expect(entries.map(({ index, bytes }) => `${index}${bytes}`)).toEqual(['3abc', '4d'])
    expect(await run(disk.list('.'))).not.toContain('log.0')
  })
})
