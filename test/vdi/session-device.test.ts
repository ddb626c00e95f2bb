import { randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { VdiClient } from '../../src/vdi/client.ts'
import type { Device, Done } from '../../src/vdi/device.ts'
import { hashExportName } from '../../src/vdi/export-name.ts'
import { LiveSheep } from '../tools/live-sheep.ts'

const MIB = 1024 * 1024
const GIB = 1024 * MIB
const BLOCK = 4096

const finished = (run: (done: Done) => void) =>
  new Promise<void>((resolve, reject) => run((error) => (error ? reject(error) : resolve())))

const write = (device: Device, offset: number, source: Buffer, fua = false) =>
  finished((done) => device.write(offset, source, { fua }, done))

async function read(device: Device, offset: number, length: number): Promise<Buffer> {
  const target = Buffer.alloc(length, 0xee)
  await finished((done) => device.read(offset, target, done))
  return target
}

describe.each(['call', 'dial'] as const)('a device of a session, by %s', (how) => {
  let live: LiveSheep
  let vdis: VdiClient
  let count = 0

  beforeAll(async () => {
    live = await LiveSheep.start()
    vdis = new VdiClient(live[how]())
  })
  afterAll(async () => {
    vdis.close()
    await live.stop()
  })

  async function open(sizeBytes = 64 * MIB): Promise<Device> {
    return vdis.open(await vdis.create(`vdi-${++count}`, sizeBytes), { readOnly: false })
  }

  /** A VDI under an export right, with a device opened by that. */
  async function openExport(readOnly: boolean) {
    const name = `vdi-${++count}`
    const vid = await vdis.create(name, 64 * MIB)
    const nameHash = hashExportName(name)
    await vdis.putExport({ attachmentId: name, nameHash, vid, readOnly })
    return { name, vid, nameHash, device: await vdis.openExport(nameHash, readOnly) }
  }

  it('knows its size and its right', async () => {
    const device = await open(3 * MIB)
    expect([device.sizeBytes, device.readOnly]).toEqual([3 * MIB, false])
    const { device: exported } = await openExport(true)
    expect([exported.sizeBytes, exported.readOnly]).toEqual([64 * MIB, true])
  })

  it('takes checksums along, in all parts of a write', async () => {
    const device = await open()
    const bytes = randomBytes(20 * MIB)
    const crcs = Uint32Array.from({ length: bytes.length / BLOCK }, (_, i) =>
      crc32(bytes.subarray(i * BLOCK, (i + 1) * BLOCK)),
    )
    await finished((done) => device.write(MIB + BLOCK, bytes, { fua: false, crcs }, done))
    expect((await read(device, MIB + BLOCK, bytes.length)).equals(bytes)).toBe(true)
  })

  it('moves more than fits into a request, at any alignment', async () => {
    const device = await open()
    const bytes = randomBytes(20 * MIB + 1234)
    await write(device, 4 * MIB - 77, bytes, true)
    expect((await read(device, 4 * MIB - 77, bytes.length)).equals(bytes)).toBe(true)
    expect(await read(device, 4 * MIB - 78, 2)).toEqual(Buffer.from([0, bytes[0]!]))
  })

  it('answers a request of no length, whatever it is', async () => {
    const device = await open()
    await write(device, 100, Buffer.alloc(0))
    await read(device, 100, 0)
    await finished((done) => device.discard(100, 0, done))
    for (const mayDiscard of [true, false]) {
      await finished((done) => device.zero(100, 0, { fua: false, mayDiscard }, done))
    }
    expect(await device.extents(100, 0)).toEqual([])
  })

  it('discards and zeroes ranges of any length', async () => {
    const device = await open(9 * GIB)
    for (const offset of [0, 5 * GIB, 9 * GIB - BLOCK]) await write(device, offset, Buffer.alloc(BLOCK, 1))
    await finished((done) => device.discard(0, 9 * GIB, done))
    expect(await device.extents(0, 9 * GIB)).toEqual([{ kind: 'hole', lengthBytes: 9 * GIB }])
    for (const offset of [0, 5 * GIB]) await write(device, offset, Buffer.alloc(BLOCK, 1))
    await finished((done) => device.zero(1, 9 * GIB - 1, { fua: true, mayDiscard: true }, done))
    expect(await read(device, 0, 2)).toEqual(Buffer.from([1, 0]))
    expect(await read(device, 5 * GIB, BLOCK)).toEqual(Buffer.alloc(BLOCK))
  })

  it('keeps space allocated when it must', async () => {
    const device = await open()
    await finished((done) => device.zero(BLOCK, 17 * MIB, { fua: false, mayDiscard: false }, done))
    const extents = await device.extents(0, 64 * MIB)
    expect(extents.slice(0, 2)).toEqual([
      { kind: 'hole', lengthBytes: BLOCK },
      { kind: 'data', lengthBytes: 17 * MIB },
    ])
    expect((await read(device, 0, 18 * MIB)).every((byte) => byte === 0)).toBe(true)
  })

  it('tells extents beyond what one answer holds', async () => {
    const device = await open()
    const blocks = 5000
    await Promise.all(
      Array.from({ length: blocks / 2 }, (_, i) => write(device, 2 * i * BLOCK, Buffer.alloc(BLOCK, 1))),
    )
    const extents = await device.extents(0, 64 * MIB)
    expect(extents).toHaveLength(blocks)
    expect(extents[0]).toEqual({ kind: 'data', lengthBytes: BLOCK })
    expect(extents.at(-1)).toEqual({ kind: 'hole', lengthBytes: 64 * MIB - (blocks - 1) * BLOCK })
    expect(extents.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)).toBe(64 * MIB)
  })

  it('refuses what lies beyond its end', async () => {
    const device = await open(MIB)
    const refused = { code: 'InvalidParameters' }
    await expect(write(device, MIB - 1, Buffer.alloc(2))).rejects.toMatchObject(refused)
    await expect(read(device, MIB, 1)).rejects.toMatchObject(refused)
    await expect(finished((done) => device.discard(0, MIB + 1, done))).rejects.toMatchObject(refused)
    await expect(device.extents(0, MIB + 1)).rejects.toMatchObject(refused)
    await expect(write(device, 0, Buffer.alloc(9 * MIB))).rejects.toMatchObject(refused)
  })

  it('is as long as its VDI is now, and a request beyond the end changes nothing', async () => {
    const device = await open(8 * MIB)
    const vid = await vdis.lookup(`vdi-${count}`)
    await expect(write(device, 0, Buffer.alloc(9 * MIB, 1))).rejects.toMatchObject({ code: 'InvalidParameters' })
    expect((await read(device, 0, 8 * MIB)).equals(Buffer.alloc(8 * MIB))).toBe(true)

    const reach: [string, (end: number) => Promise<unknown>][] = [
      ['write', (end) => write(device, end - 9 * MIB, Buffer.alloc(9 * MIB, 1))],
      ['read', (end) => read(device, end - 10 * MIB, 10 * MIB)],
      ['discard', (end) => finished((done) => device.discard(end - MIB, MIB, done))],
      ['zero', (end) => finished((done) => device.zero(end - MIB, MIB, { fua: true, mayDiscard: true }, done))],
      ['allocate', (end) => finished((done) => device.zero(end - MIB, MIB, { fua: true, mayDiscard: false }, done))],
      ['extents', (end) => device.extents(end - MIB, MIB)],
    ]
    let size = 8 * MIB
    for (const [name, run] of reach) {
      size += 4 * MIB
      await expect(run(size), name).rejects.toMatchObject({ code: 'InvalidParameters' })
      await vdis.resize(vid, size)
      await run(size)
      expect(device.sizeBytes, name).toBe(size)
    }
    expect((await vdis.open(vid, { readOnly: true })).sizeBytes).toBe(size)
  })

  it('stops telling extents when there are enough', async () => {
    const device = await open()
    for (const block of [1, 3, 5]) await write(device, block * BLOCK, Buffer.alloc(BLOCK, 1))
    expect(await device.extents(0, 64 * MIB, 3)).toEqual([
      { kind: 'hole', lengthBytes: BLOCK },
      { kind: 'data', lengthBytes: BLOCK },
      { kind: 'hole', lengthBytes: BLOCK },
    ])
  })

  it('refuses changes under a read-only right', async () => {
    const { device } = await openExport(true)
    const refused = { code: 'ReadOnly' }
    await expect(write(device, 0, Buffer.alloc(512))).rejects.toMatchObject(refused)
    await expect(finished((done) => device.discard(0, 512, done))).rejects.toMatchObject(refused)
    await expect(finished((done) => device.zero(0, 512, { fua: false, mayDiscard: true }, done))).rejects.toMatchObject(
      refused,
    )
    await finished((done) => device.flush(done))
    expect(await read(device, 0, 512)).toEqual(Buffer.alloc(512))
  })

  it('ends what is under way before its right counts as taken back, and answers Fenced from then on', async () => {
    const { name, vid, device } = await openExport(false)
    const order: string[] = []
    const writes = Array.from({ length: 20 }, (_, i) =>
      write(device, i * BLOCK, Buffer.alloc(BLOCK, 7), true).then(() => order.push('written')),
    )
    const removed = vdis.removeExport(name).then(() => order.push('removed'))
    await Promise.all([...writes, removed])
    expect(order.at(-1)).toBe('removed')
    for (const request of [
      write(device, 0, Buffer.alloc(BLOCK, 9)),
      read(device, 0, BLOCK),
      finished((done) => device.flush(done)),
      finished((done) => device.discard(0, BLOCK, done)),
      device.extents(0, BLOCK),
    ]) {
      await expect(request).rejects.toMatchObject({ code: 'Fenced' })
    }
    await device.close()
    const after = await vdis.open(vid, { readOnly: false })
    expect(await read(after, 0, 20 * BLOCK)).toEqual(Buffer.alloc(20 * BLOCK, 7))
  })

  it('is refused without a right on a VDI under an attachment, but for reading', async () => {
    const { vid, device } = await openExport(false)
    await write(device, 0, Buffer.from('hello'))
    await expect(vdis.open(vid, { readOnly: false })).rejects.toMatchObject({ code: 'VdiLocked' })
    const reader = await vdis.open(vid, { readOnly: true })
    expect((await read(reader, 0, 5)).toString()).toBe('hello')
  })

  it('answers Fenced once it is closed', async () => {
    const device = await open()
    await write(device, 0, Buffer.alloc(512, 1))
    await device.close()
    await expect(write(device, 0, Buffer.alloc(512, 2))).rejects.toMatchObject({ code: 'Fenced' })
    await device.close()
  })

  it('holds what was written over a restart of the node', async () => {
    const device = await open()
    const bytes = randomBytes(100_000)
    await write(device, 5 * MIB - 50_000, bytes)
    await finished((done) => device.flush(done))
    const name = `vdi-${count}`
    await live.restart()
    await expect(write(device, 0, bytes)).rejects.toMatchObject({ code: 'Fenced' })
    const again = await vdis.open(await vdis.lookup(name), { readOnly: true })
    expect((await read(again, 5 * MIB - 50_000, bytes.length)).equals(bytes)).toBe(true)
  })
})
