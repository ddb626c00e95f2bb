import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { LiveSheep } from '../../tools/live-sheep.ts'
import {
  attrOid,
  CACHE,
  COW,
  createObj,
  DOG,
  dataOid,
  Foreign,
  INODE_BYTES,
  INVALID_PARMS,
  inodeOid,
  MAP,
  MIB,
  NO_OBJ,
  OBJECT,
  QEMU,
  READONLY,
  readObj,
  SUCCESS,
  TGT,
  TGT_VER,
  u32s,
  VDI_LOCKED,
  vidOf,
  vmstateOid,
  writeObj,
} from './frames.ts'

let live: LiveSheep
let qemu: Foreign
let names = 0
let name: string
let vid: number

beforeAll(async () => {
  live = await LiveSheep.start()
  qemu = await Foreign.connect(live.address, QEMU)
})
afterAll(async () => {
  qemu.connection.close()
  await live.stop()
})
beforeEach(async () => {
  name = `vdi-${++names}`
  vid = await qemu.made(name, 5 * OBJECT + MIB)
})

const bytesOf = async (oid: bigint, offset: number, length: number) => [
  ...new Set((await qemu.readObj(oid, offset, length)).body),
]

async function snapshotOf(from = vid, tag = 'one'): Promise<number> {
  expect(await qemu.write(inodeOid(from), 256, Buffer.concat([Buffer.from(tag)], 256))).toBe(SUCCESS)
  return qemu.made(name, 0, { base: from, snapId: 1 })
}

describe('data objects', () => {
  it('are there only once they were created, and hold zeros where nothing was written', async () => {
    const oid = dataOid(vid, 2)
    expect((await qemu.readObj(oid, 0, 512)).result).toBe(NO_OBJ)
    expect(await qemu.write(oid, 0, Buffer.alloc(512, 1))).toBe(NO_OBJ)
    expect(await qemu.create(oid, 8000, Buffer.alloc(1000, 7))).toBe(SUCCESS)
    expect(await bytesOf(oid, 8000, 1000)).toEqual([7])
    expect(await bytesOf(oid, 0, 8000)).toEqual([0])
    expect(await bytesOf(oid, 9000, OBJECT - 9000)).toEqual([0])
    expect(await qemu.write(oid, 8999, Buffer.alloc(2, 8))).toBe(SUCCESS)
    expect(await bytesOf(oid, 8998, 1)).toEqual([7])
    expect(await bytesOf(oid, 8999, 2)).toEqual([8])
  })

  it('are in the map as soon as they are there, and created twice they keep what they had', async () => {
    expect(await qemu.entries(vid, 0, 6)).toEqual([0, 0, 0, 0, 0, 0])
    await qemu.create(dataOid(vid, 1), 0, Buffer.alloc(4096, 1))
    expect(await qemu.entries(vid, 0, 3)).toEqual([0, vid, 0])
    expect(await qemu.create(dataOid(vid, 1), 4096, Buffer.alloc(4096, 2))).toBe(SUCCESS)
    expect(await bytesOf(dataOid(vid, 1), 0, 4096)).toEqual([1])
    expect(await bytesOf(dataOid(vid, 1), 4096, 4096)).toEqual([2])
  })

  it('of the end of a VDI are written as a whole and keep what is within it', async () => {
    expect(await qemu.create(dataOid(vid, 5), 0, Buffer.alloc(OBJECT, 5))).toBe(SUCCESS)
    expect(await bytesOf(dataOid(vid, 5), 0, MIB)).toEqual([5])
    expect(await bytesOf(dataOid(vid, 5), MIB, 3 * MIB)).toEqual([0])
    expect(await qemu.create(dataOid(vid, 6), 0, Buffer.alloc(512, 5))).toBe(INVALID_PARMS)
    expect(await qemu.create(dataOid(vid, 5), MIB, Buffer.alloc(512, 5))).toBe(INVALID_PARMS)
  })

  it('are allocated without bytes by `dog vdi create -P`', async () => {
    expect(await qemu.create(dataOid(vid, 5), 0, Buffer.alloc(0))).toBe(SUCCESS)
    expect(await qemu.setEntries(vid, 5, vid)).toBe(SUCCESS)
    expect(await bytesOf(dataOid(vid, 5), 0, OBJECT)).toEqual([0])
  })

  it('take over what the snapshot has, whatever the client says about it', async () => {
    await qemu.allocate(vid, 0, 1, 2 * MIB)
    const working = await snapshotOf()
    expect(await qemu.entries(working, 0, 1)).toEqual([vid])
    expect(await qemu.write(dataOid(working, 0), 0, Buffer.alloc(512, 2))).toBe(NO_OBJ)
    expect(await qemu.create(dataOid(working, 0), 512, Buffer.alloc(512, 2), CACHE | COW, dataOid(vid, 0))).toBe(
      SUCCESS,
    )
    expect(await bytesOf(dataOid(working, 0), 0, 512)).toEqual([1])
    expect(await bytesOf(dataOid(working, 0), 512, 512)).toEqual([2])
    expect(await bytesOf(dataOid(working, 0), 1024, 2 * MIB - 1024)).toEqual([1])
    expect(await bytesOf(dataOid(vid, 0), 0, 2 * MIB)).toEqual([1])
    expect(await qemu.entries(working, 0, 1)).toEqual([working])
  })

  it('of a snapshot are READONLY, and stay readable when it is deleted while others need them', async () => {
    await qemu.allocate(vid, 0, 1)
    const working = await snapshotOf()
    expect(await qemu.write(dataOid(vid, 0), 0, Buffer.alloc(512, 2))).toBe(READONLY)
    expect(await qemu.create(dataOid(vid, 1), 0, Buffer.alloc(512, 2))).toBe(READONLY)
    expect(await qemu.setEntries(vid, 1, vid)).toBe(READONLY)
    expect((await qemu.remove(name, 'one')).result).toBe(SUCCESS)
    await live.sheep.reclaimed()
    expect(await qemu.entries(working, 0, 1)).toEqual([vid])
    expect(await bytesOf(dataOid(vid, 0), 0, 4096)).toEqual([1])
  })

  it.each<[string, bigint, number, number]>([
    ['an offset beyond the object', dataOid(1, 0), OBJECT, 512],
    ['a length beyond the object', dataOid(1, 0), OBJECT - 511, 512],
    ['an index beyond all VDIs', dataOid(1, 2 ** 20), 0, 512],
    ['a B-tree node', 0x1000_0000_0000_0000n, 0, 512],
    ['a ledger', 0x0800_0000_0000_0000n, 0, 512],
    ['bits that mean nothing', 0x0700_0000_0000_0000n, 0, 512],
    ['an attribute, written as an object', attrOid(1, 1), 0, 512],
  ])('are refused with %s', async (_, oid, offset, length) => {
    const own = oid | (BigInt(vid) << 32n)
    expect(await qemu.create(own, offset, Buffer.alloc(length))).toBe(INVALID_PARMS)
    expect(await qemu.write(own, offset, Buffer.alloc(length))).toBe(INVALID_PARMS)
    expect([INVALID_PARMS, NO_OBJ]).toContain((await qemu.readObj(own, offset, length)).result)
  })

  it('of no VDI are not there', async () => {
    expect(await qemu.create(dataOid(0xabcdef, 0), 0, Buffer.alloc(512))).toBe(NO_OBJ)
    expect((await qemu.readObj(dataOid(0xabcdef, 0), 0, 512)).result).toBe(NO_OBJ)
    expect((await qemu.readObj(inodeOid(0xabcdef), 0, 512)).result).toBe(NO_OBJ)
  })

  it('of a VDI under an attachment are not for clients without a right', async () => {
    await qemu.allocate(vid, 0, 1)
    await live.sheep.putExport({ attachmentId: name, nameHash: name.padEnd(64, '0'), vid, readOnly: false })
    expect(await qemu.write(dataOid(vid, 0), 0, Buffer.alloc(512, 2))).toBe(VDI_LOCKED)
    expect(await qemu.setEntries(vid, 0, 0)).toBe(VDI_LOCKED)
    expect((await qemu.lock(name)).result).toBe(VDI_LOCKED)
    await live.sheep.removeExport(name)
    expect(await qemu.write(dataOid(vid, 0), 0, Buffer.alloc(512, 2))).toBe(SUCCESS)
  })
})

describe('the inode', () => {
  it('has its fields where upstream has them', async () => {
    await qemu.allocate(vid, 3, 1)
    const working = await snapshotOf()
    const { body } = await qemu.readObj(inodeOid(vid), 0, INODE_BYTES)
    expect(body).toHaveLength(INODE_BYTES)
    expect(body.toString('utf8', 0, name.length + 1)).toBe(`${name}\0`)
    expect(body.toString('utf8', 256, 260)).toBe('one\0')
    const seconds = Number(body.readBigUInt64LE(512) >> 32n)
    expect(Math.abs(seconds - Date.now() / 1000)).toBeLessThan(3600)
    expect(body.readBigUInt64LE(520)).toBeGreaterThan(0n)
    expect(Number(body.readBigUInt64LE(536))).toBe(5 * OBJECT + MIB)
    expect([...body.subarray(552, 556)]).toEqual([0, 0, 1, 22])
    expect([body.readUInt32LE(556), body.readUInt32LE(560), body.readUInt32LE(564)]).toEqual([1, vid, 0])
    expect(body.readUInt32LE(MAP + 12)).toBe(vid)

    const { body: next } = await qemu.readObj(inodeOid(working), 0, MAP)
    expect(next.readBigUInt64LE(520)).toBe(0n)
    expect(next.toString('utf8', 256, 257)).toBe('\0')
    expect([next.readUInt32LE(556), next.readUInt32LE(560), next.readUInt32LE(564)]).toEqual([2, working, vid])
  })

  it('is the same in any pieces', async () => {
    await qemu.allocate(vid, 1, 1)
    await qemu.allocate(vid, 5, 1)
    const { body: whole } = await qemu.readObj(inodeOid(vid), 0, INODE_BYTES)
    for (const [offset, length] of [
      [0, 1],
      [100, 600],
      [MAP - 3, 9],
      [MAP + 5, 30],
      [4, 4198968 - 4],
      [4198960, 100],
      [INODE_BYTES - 5, 5],
    ] as const) {
      const { body } = await qemu.readObj(inodeOid(vid), offset, length)
      expect([offset, body.equals(whole.subarray(offset, offset + length))]).toEqual([offset, true])
    }
    expect((await qemu.readObj(inodeOid(vid), INODE_BYTES - 5, 6)).result).toBe(INVALID_PARMS)
  })

  it('takes the tag of the next snapshot, which keeps it over a restart', async () => {
    expect(await qemu.write(inodeOid(vid), 256, Buffer.concat([Buffer.from('later')], 256))).toBe(SUCCESS)
    expect((await qemu.info(name, 'later')).result).not.toBe(SUCCESS)
    qemu.connection.close()
    await live.restart()
    qemu = await Foreign.connect(live.address, QEMU)
    const working = await qemu.made(name, 0, { base: vid, snapId: 1 })
    expect(vidOf(await qemu.info(name, 'later'))).toBe(vid)
    expect(vidOf(await qemu.info(name))).toBe(working)
  })

  it('takes a header whole: tag, machine state, a larger size', async () => {
    const { body } = await qemu.readObj(inodeOid(vid), 0, MAP)
    body.write('vm', 256)
    body.writeBigUInt64LE(2n ** 60n + 1n, 528)
    body.writeBigUInt64LE(BigInt(8 * OBJECT), 536)
    body.writeBigUInt64LE(123456n, 544)
    expect(await qemu.write(inodeOid(vid), 0, body)).toBe(SUCCESS)
    expect((await qemu.readObj(inodeOid(vid), 0, MAP)).body).toEqual(body)
    expect(live.sheep.state.get(vid).sizeBytes).toBe(8 * OBJECT)
    const working = await qemu.made(name, 0, { base: vid, snapId: 1 })
    const { body: kept } = await qemu.readObj(inodeOid(vid), 528, 24)
    expect(kept).toEqual(body.subarray(528, 552))
    expect((await qemu.readObj(inodeOid(working), 528, 8)).body).toEqual(Buffer.alloc(8))
    expect(await qemu.write(inodeOid(vid), 0, body)).toBe(READONLY)
  })

  it.each<[string, number, number]>([
    ['name', 0, 0x78],
    ['time of creation', 512, 1],
    ['time of a snapshot', 520, 1],
    ['copies', 554, 3],
    ['size of objects', 555, 23],
    ['policy', 552, 1],
    ['id', 560, 1],
    ['parent', 564, 1],
    ['unused part', 700, 1],
  ])('refuses another %s, and changes nothing', async (_, at, byte) => {
    const { body } = await qemu.readObj(inodeOid(vid), 0, MAP)
    const changed = Buffer.from(body)
    changed[at]! ^= byte
    changed.write('tag', 256)
    expect(await qemu.write(inodeOid(vid), 0, changed)).toBe(INVALID_PARMS)
    expect((await qemu.readObj(inodeOid(vid), 0, MAP)).body).toEqual(body)
  })

  it('refuses to shrink, tags that are no text, and ranges that nobody writes', async () => {
    const { body } = await qemu.readObj(inodeOid(vid), 0, MAP)
    body.writeBigUInt64LE(BigInt(OBJECT), 536)
    expect(await qemu.write(inodeOid(vid), 0, body)).toBe(INVALID_PARMS)
    expect(await qemu.write(inodeOid(vid), 256, Buffer.alloc(256, 0xff))).toBe(INVALID_PARMS)
    expect(await qemu.write(inodeOid(vid), 256, Buffer.alloc(256, 'x'))).toBe(INVALID_PARMS)
    expect(await qemu.write(inodeOid(vid), MAP + 2, Buffer.alloc(4))).toBe(INVALID_PARMS)
    expect(await qemu.write(inodeOid(vid), MAP, Buffer.alloc(6))).toBe(INVALID_PARMS)
    expect(await qemu.write(inodeOid(vid), 4198968, Buffer.alloc(8))).toBe(INVALID_PARMS)
    expect(await qemu.create(inodeOid(vid), 0, Buffer.alloc(MAP))).toBe(INVALID_PARMS)
  })

  it('of a deleted VDI is zeros, or not there', async () => {
    await qemu.allocate(vid, 0, 1)
    const working = await snapshotOf()
    expect((await qemu.remove(name, 'one')).result).toBe(SUCCESS)
    await live.sheep.reclaimed()
    expect(live.sheep.state.vdis.get(vid)?.deleting).toBe(true)
    expect((await qemu.readObj(inodeOid(vid), 0, MAP)).body).toEqual(Buffer.alloc(MAP))
    expect(await qemu.entries(vid, 0, 1)).toEqual([0])
    expect((await qemu.remove(name)).result).toBe(SUCCESS)
    await live.sheep.reclaimed()
    expect((await qemu.readObj(inodeOid(working), 0, MAP)).result).toBe(NO_OBJ)
  })
})

describe('the block map, as clients write it', () => {
  it('gives back an object when its single entry becomes 0', async () => {
    await qemu.allocate(vid, 1, 1)
    await qemu.allocate(vid, 5, 1)
    expect(await qemu.setEntries(vid, 1, 0)).toBe(SUCCESS)
    expect(await qemu.setEntries(vid, 1, 0)).toBe(SUCCESS)
    expect((await qemu.readObj(dataOid(vid, 1), 0, 512)).result).toBe(NO_OBJ)
    expect(await qemu.entries(vid, 1, 1)).toEqual([0])
    await qemu.create(dataOid(vid, 1), 4096, Buffer.alloc(512, 2))
    expect(await bytesOf(dataOid(vid, 1), 0, 4096)).toEqual([0])
  })

  it('is not wiped by a range of zeros: the VDI that it is written to may not be the one that goes', async () => {
    await qemu.allocate(vid, 0, 1)
    await qemu.allocate(vid, 1, 2)
    expect(await qemu.setEntries(vid, 0, 0, 0, 0)).toBe(SUCCESS)
    expect(await qemu.entries(vid, 0, 2)).toEqual([vid, vid])
    const working = await snapshotOf()
    expect(await qemu.setEntries(vid, 0, 0, 0)).toBe(SUCCESS)
    const other = await Foreign.connect(live.address, QEMU)
    expect(await other.setEntries(vid, 0, 0)).toBe(SUCCESS)
    other.connection.close()
    expect(await bytesOf(dataOid(vid, 0), 0, 4096)).toEqual([1])
    expect(await qemu.entries(working, 0, 2)).toEqual([vid, vid])
  })

  /** Ends the connection, and resolves when the sheep has seen it. */
  async function end(client: Foreign): Promise<void> {
    const before = live.connections
    client.connection.close()
    await vi.waitFor(() => expect(live.connections).toBe(before - 1), { timeout: 30_000, interval: 5 })
  }

  it('is not wiped by a single zero of `snapshot -d`: no number, and a lock when its connection ends', async () => {
    await qemu.allocate(vid, 0, 1)
    const holder = await Foreign.connect(live.address, QEMU)
    expect((await holder.lock(name)).result).toBe(SUCCESS)
    const zero = { ...writeObj(inodeOid(vid), MAP, u32s(0), CACHE), id: 0 }
    const other = await Foreign.connect(live.address, QEMU)
    expect((await other.send(zero)).result).toBe(SUCCESS)
    await end(other)
    expect(await holder.release(vid)).toBe(SUCCESS)
    holder.connection.close()
    expect(await qemu.entries(vid, 0, 1)).toEqual([vid])
    expect(await bytesOf(dataOid(vid, 0), 0, 4096)).toEqual([1])
  })

  it('is a discard when it comes from dog, or where nobody has a lock', async () => {
    for (const version of [DOG, QEMU]) {
      await qemu.allocate(vid, 0, 1)
      const client = await Foreign.connect(live.address, version)
      const zero = { ...writeObj(inodeOid(vid), MAP, u32s(0), CACHE), id: 0 }
      expect((await client.send(zero)).result).toBe(SUCCESS)
      expect(await qemu.entries(vid, 0, 1)).toEqual([0])
      client.connection.close()
    }
  })

  it('is a discard as the only request of a connection, if the lock was given back before it ended', async () => {
    await qemu.allocate(vid, 0, 1)
    const holder = await Foreign.connect(live.address, QEMU)
    expect((await holder.lock(name)).result).toBe(SUCCESS)
    const io = await Foreign.connect(live.address, QEMU)
    expect((await io.send({ ...writeObj(inodeOid(vid), MAP, u32s(0), CACHE), id: 0 })).result).toBe(SUCCESS)
    expect(await holder.release(vid)).toBe(SUCCESS)
    holder.connection.close()
    io.connection.close()
    await vi.waitFor(async () => expect(await qemu.entries(vid, 0, 1)).toEqual([0]), { timeout: 30_000, interval: 5 })
  })

  it('is a discard as the first request of a connection too, if the next one bears a number', async () => {
    await qemu.allocate(vid, 0, 1)
    const again = await Foreign.connect(live.address, QEMU)
    const [zeroed, created, read] = await again.sendAll([
      writeObj(inodeOid(vid), MAP, u32s(0), CACHE),
      createObj(dataOid(vid, 0), 0, Buffer.alloc(4096, 2), CACHE, 0n),
      readObj(dataOid(vid, 0), 0, 8192),
    ])
    expect([zeroed!.result, created!.result, read!.result]).toEqual([SUCCESS, SUCCESS, SUCCESS])
    expect([...new Set((await again.readObj(dataOid(vid, 0), 0, 4096)).body)]).toEqual([2])
    expect([...new Set((await again.readObj(dataOid(vid, 0), 4096, 4096)).body)]).toEqual([0])
    again.connection.close()
  })

  it('tells a writer that discards of the snapshot that was taken meanwhile', async () => {
    await qemu.allocate(vid, 0, 1)
    const working = await snapshotOf()
    expect(await qemu.setEntries(vid, 0, 0)).toBe(READONLY)
    expect(await qemu.setEntries(working, 0, 0)).toBe(SUCCESS)
    expect(await qemu.entries(vid, 0, 1)).toEqual([vid])
    expect(await qemu.entries(working, 0, 1)).toEqual([0])
  })

  it('confirms what is so and refuses what is not', async () => {
    await qemu.allocate(vid, 0, 1)
    await qemu.allocate(vid, 1, 1)
    const working = await snapshotOf()
    await qemu.allocate(working, 1, 2)
    expect(await qemu.setEntries(working, 0, vid)).toBe(SUCCESS)
    expect(await qemu.setEntries(working, 0, vid, working, 0)).toBe(SUCCESS)
    expect(await qemu.setEntries(working, 0, 0, working)).toBe(SUCCESS)
    expect(await qemu.setEntries(working, 0, working)).toBe(INVALID_PARMS)
    expect(await qemu.setEntries(working, 2, working)).toBe(INVALID_PARMS)
    expect(await qemu.setEntries(working, 1, vid)).toBe(INVALID_PARMS)
    expect(await qemu.setEntries(working, 2, vid)).toBe(INVALID_PARMS)
    expect(await qemu.setEntries(working, 0, 0xabcdef)).toBe(INVALID_PARMS)
    expect(await qemu.setEntries(working, 0, vid, 0xabcdef)).toBe(INVALID_PARMS)
    expect(await qemu.entries(working, 0, 3)).toEqual([vid, working, 0])
  })

  it('a discarded object does not come back by a client that is out of date', async () => {
    await qemu.allocate(vid, 0, 1)
    const working = await snapshotOf()
    expect(await qemu.setEntries(working, 0, 0)).toBe(SUCCESS)
    expect(await qemu.setEntries(working, 0, vid)).toBe(INVALID_PARMS)
    expect(await qemu.entries(working, 0, 1)).toEqual([0])
  })
})

describe('tgt', () => {
  it('is shown objects of zeros in place of holes, and writes there as anywhere', async () => {
    const tgt = await Foreign.connect(live.address, TGT_VER)
    await qemu.allocate(vid, 1, 1)
    const entries = await tgt.entries(vid, 0, 7, TGT | CACHE)
    const hole = entries[0]!
    expect(hole).toBeGreaterThan(0)
    expect(entries).toEqual([hole, vid, hole, hole, hole, hole, 0])
    expect(live.sheep.state.vdis.has(hole)).toBe(false)
    const zeros = await tgt.readObj(dataOid(hole, 2), 1000, 5000, TGT)
    expect([zeros.result, zeros.body]).toEqual([SUCCESS, Buffer.alloc(5000)])

    const write = Buffer.alloc(512, 3)
    expect(await tgt.create(dataOid(vid, 2), 512, write, TGT | CACHE | COW, dataOid(hole, 2))).toBe(SUCCESS)
    expect(await tgt.setEntries(vid, 2, vid)).toBe(SUCCESS)
    expect(await tgt.setEntries(vid, 0, hole, vid, vid, hole)).toBe(SUCCESS)
    expect(await tgt.setEntries(vid, 4, hole)).toBe(SUCCESS)
    expect(await qemu.entries(vid, 0, 5)).toEqual([0, vid, vid, 0, 0])
    expect(await tgt.create(dataOid(hole, 2), 0, write)).toBe(NO_OBJ)
    tgt.connection.close()
  })

  it('finds out with one byte whether its inode is still good', async () => {
    expect(await qemu.readObj(inodeOid(vid), 0, 1, TGT)).toMatchObject({ result: SUCCESS, body: Buffer.from('v') })
    // NO_OBJ would make it ask for ever.
    expect((await qemu.readObj(inodeOid(0xabcdef), 0, 1, TGT)).result).not.toBe(NO_OBJ)
  })
})

describe('machine state', () => {
  it('goes with the snapshot that is taken after it was written, and away with it', async () => {
    const before = (await live.sheep.stats()).objects
    expect((await qemu.readObj(vmstateOid(vid, 0), 0, 512)).result).toBe(NO_OBJ)
    expect(await qemu.create(vmstateOid(vid, 0), 0, Buffer.alloc(5000, 1))).toBe(SUCCESS)
    expect(await qemu.write(vmstateOid(vid, 0), 5000, Buffer.alloc(5000, 2))).toBe(SUCCESS)
    expect(await qemu.create(vmstateOid(vid, 1), 0, Buffer.alloc(100, 3))).toBe(SUCCESS)
    expect(await qemu.write(vmstateOid(vid, 2), 0, Buffer.alloc(100, 3))).toBe(NO_OBJ)
    const working = await snapshotOf()
    expect(await bytesOf(vmstateOid(vid, 0), 0, 5000)).toEqual([1])
    expect(await bytesOf(vmstateOid(vid, 0), 5000, 5000)).toEqual([2])
    expect(await bytesOf(vmstateOid(vid, 0), 10000, 5000)).toEqual([0])
    expect((await qemu.readObj(vmstateOid(working, 0), 0, 512)).result).toBe(NO_OBJ)
    expect(await qemu.write(vmstateOid(vid, 0), 0, Buffer.alloc(512))).toBe(READONLY)

    // Saved again over what an attempt before has left.
    expect(await qemu.create(vmstateOid(working, 0), 0, Buffer.alloc(8192, 4))).toBe(SUCCESS)
    expect(await qemu.create(vmstateOid(working, 0), 0, Buffer.alloc(100, 5))).toBe(SUCCESS)
    expect(await bytesOf(vmstateOid(working, 0), 100, 9000)).toEqual([0])

    expect((await live.sheep.audit()).problems).toEqual([])
    await qemu.remove(name, 'one')
    await qemu.remove(name)
    await live.sheep.reclaimed()
    expect((await live.sheep.stats()).objects).toBe(before)
    expect((await live.sheep.audit()).problems).toEqual([])
  })
})

describe('FLUSH_VDI', () => {
  it('is answered with SUCCESS, and what was written before is durable', async () => {
    await qemu.allocate(vid, 0, 1)
    const flush = { opcode: 0x16, flags: CACHE, fields: [[16, 8, inodeOid(vid)]] as const }
    expect((await qemu.send(flush)).result).toBe(SUCCESS)
    const dog = await Foreign.connect(live.address, DOG)
    expect((await dog.send(flush)).result).toBe(SUCCESS)
    dog.connection.close()
  })
})
