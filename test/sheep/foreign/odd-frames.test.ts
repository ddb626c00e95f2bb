import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { LiveSheep } from '../../tools/live-sheep.ts'
import type { RawRequest } from '../../tools/raw-sheep-client.ts'
import {
  ADMIN,
  attrOid,
  CACHE,
  DOG,
  dataOid,
  Foreign,
  field,
  INVALID_PARMS,
  inodeOid,
  MAP,
  NO_OBJ,
  NO_SUPPORT,
  NO_TAG,
  NO_VDI,
  OBJECT,
  QEMU,
  SUCCESS,
  TGT_VER,
  u32s,
  VDI_LOCKED,
  vidOf,
  vmstateOid,
  WRITE,
} from './frames.ts'

/*
 * Frames that no client of today sends, but that anybody who reads the protocol may: what is wrong is refused by its name and
 * changes nothing, and what is right works for a client that is none of the three.
 */

let live: LiveSheep
let client: Foreign
let name: string
let vid: number
let names = 0

beforeAll(async () => {
  live = await LiveSheep.start()
  client = await Foreign.connect(live.address, DOG)
})
afterAll(async () => {
  client.connection.close()
  expect((await live.sheep.audit()).problems).toEqual([])
  await live.stop()
})
beforeEach(async () => {
  name = `vdi-${++names}`
  vid = await client.made(name, 8 * OBJECT)
})

const u64 = (value: bigint) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(value)
  return bytes
}

async function connected<T>(protoVer: number, use: (other: Foreign) => Promise<T>): Promise<T> {
  const other = await Foreign.connect(live.address, protoVer)
  try {
    return await use(other)
  } finally {
    other.connection.close()
  }
}

describe('a body of the wrong length', () => {
  const oid = () => [[16, 8, dataOid(vid, 0)]] as const

  it('is missed when a write announces one and has not got the flag WRITE', async () => {
    await client.allocate(vid, 0, 7)
    for (const opcode of [0x01, 0x03]) {
      const { result } = await client.send({ opcode, flags: CACHE, dataLength: 512, fields: oid() })
      expect(result, `opcode ${opcode}`).toBe(INVALID_PARMS)
    }
    const header = await client.send({ opcode: 0x03, dataLength: 4664, fields: [[16, 8, inodeOid(vid)]] })
    expect(header.result).toBe(INVALID_PARMS)
    expect((await client.readObj(dataOid(vid, 0), 0, 1)).body[0]).toBe(7)
  })

  it.each([
    [0x11, 'NEW_VDI', [0, 5, 255, 257, 512]],
    [0x12, 'LOCK_VDI', [0, 5, 255, 300, 513]],
    [0x14, 'GET_VDI_INFO', [0, 5, 255, 300, 513]],
    [0x17, 'DEL_VDI', [0, 5, 255, 300, 513]],
  ])('is no name: %i %s', async (opcode, _called, lengths) => {
    for (const length of lengths) {
      const body = Buffer.concat([Buffer.from(name)], length)
      const { result } = await client.send({ opcode, flags: WRITE, body })
      expect(result, `${length} bytes`).toBe(INVALID_PARMS)
    }
    expect(vidOf(await client.info(name))).toBe(vid)
  })

  it('is no attribute', async () => {
    for (const length of [0, 784, 66319, 66321]) {
      const { result } = await client.send({ opcode: 0x89, flags: WRITE | 0x100, body: Buffer.alloc(length, 'a') })
      expect(result, `${length} bytes`).toBe(INVALID_PARMS)
    }
  })
})

describe('a name', () => {
  it('of 256 bytes has no NUL and no VDI', async () => {
    const long = Buffer.alloc(256, 'n')
    expect((await client.send({ opcode: 0x11, flags: WRITE, body: long, fields: [[16, 8, OBJECT]] })).result).toBe(
      INVALID_PARMS,
    )
    expect((await client.send({ opcode: 0x14, flags: WRITE, body: long })).result).toBe(NO_VDI)
  })

  it('ends at its first NUL, whatever follows', async () => {
    const body = Buffer.concat([Buffer.from(`${name}\0garbage`)], 256)
    expect(vidOf(await client.send({ opcode: 0x14, flags: WRITE, body }))).toBe(vid)
  })

  it('that is empty or no UTF-8 is refused', async () => {
    for (const body of [Buffer.alloc(256), Buffer.concat([Buffer.from([0xc3, 0x28])], 256)]) {
      expect((await client.send({ opcode: 0x11, flags: WRITE, body, fields: [[16, 8, OBJECT]] })).result).toBe(
        INVALID_PARMS,
      )
    }
  })
})

describe('a size', () => {
  it.each([2n ** 42n + 512n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n])('of %i bytes is too large', async (size) => {
    const { result } = await client.send({
      opcode: 0x11,
      flags: WRITE,
      body: field(`${name}-large`),
      fields: [[16, 8, size]],
    })
    expect(result).toBe(INVALID_PARMS)
    expect(await client.write(inodeOid(vid), 536, u64(size))).toBe(INVALID_PARMS)
  })

  it('of machine state that is beyond all numbers is refused', async () => {
    expect(await client.write(inodeOid(vid), 544, u64(2n ** 64n - 1n))).toBe(INVALID_PARMS)
    expect(await client.write(inodeOid(vid), 544, u64(2n ** 53n + 1n))).toBe(INVALID_PARMS)
    expect((await client.readObj(inodeOid(vid), 544, 8)).body.readBigUInt64LE()).toBe(0n)
  })
})

describe('a tag', () => {
  it('is what stands before the NUL, also when an earlier one was longer', async () => {
    expect(await client.write(inodeOid(vid), 256, Buffer.from('the-first-idea\0'))).toBe(SUCCESS)
    expect(await client.write(inodeOid(vid), 256, Buffer.from('other\0'))).toBe(SUCCESS)
    await client.made(name, 0, { base: vid, snapId: 1 })
    expect(vidOf(await client.info(name, 'other'))).toBe(vid)
  })
})

describe('an object id', () => {
  it('with a bit too many names nothing', async () => {
    await client.allocate(vid, 0, 7)
    const odd = [
      inodeOid(vid) | 1n,
      inodeOid(vid) | (1n << 62n),
      inodeOid(vid) | (1n << 56n),
      dataOid(vid, 0) | (1n << 57n),
      dataOid(vid, 0) | (1n << 59n),
      vmstateOid(vid, 0) | (1n << 61n),
      attrOid(vid, 0) | (1n << 60n),
    ]
    for (const oid of odd) {
      const at = oid.toString(16)
      expect([NO_OBJ, INVALID_PARMS], at).toContain((await client.readObj(oid, 0, 512)).result)
      expect([NO_OBJ, INVALID_PARMS], at).toContain(await client.write(oid, 0, Buffer.alloc(512)))
      const exist = await client.send({ opcode: 0xbd, protoVer: ADMIN, fields: [[16, 8, oid]] })
      expect(exist.result, at).toBe(NO_OBJ)
      const hash = await client.send({ opcode: 0xb4, protoVer: ADMIN, fields: [[16, 8, oid]] })
      expect(hash.result, at).toBe(NO_OBJ)
    }
  })

  it('is read and written within its object only', async () => {
    await client.allocate(vid, 0, 7)
    const beyond: [bigint, number, number][] = [
      [dataOid(vid, 0), OBJECT, 1],
      [dataOid(vid, 0), OBJECT - 1, 2],
      [dataOid(vid, 0), 0xffff_ffff, 512],
      [inodeOid(vid), 12587576, 1],
      [inodeOid(vid), 0xffff_fff0, 64],
    ]
    for (const [oid, offset, length] of beyond) {
      expect((await client.readObj(oid, offset, length)).result, `${offset}`).toBe(INVALID_PARMS)
      expect(await client.write(oid, offset, Buffer.alloc(length)), `${offset}`).toBe(INVALID_PARMS)
    }
    expect((await client.readObj(dataOid(vid, 0), OBJECT, 0)).result).toBe(SUCCESS)
  })
})

describe('NEW_VDI', () => {
  it('as a snapshot of what is not there makes none', async () => {
    for (const base of [0, 0xfffffe, 0x1000000 + vid, 0xffffffff]) {
      const { result } = await client.newVdi(name, OBJECT, { base, snapId: 1 })
      expect([NO_VDI, INVALID_PARMS], `base ${base}`).toContain(result)
    }
    expect((await client.info(name, '', 1)).result).toBe(NO_TAG)
  })
})

describe('a lock', () => {
  const lockOf = (type: number): RawRequest => ({
    opcode: 0x12,
    flags: WRITE,
    body: Buffer.concat([field(name)], 512),
    fields: [[36, 4, type]],
  })

  it('is of the two types that there are', async () => {
    expect((await client.send(lockOf(2))).result).toBe(INVALID_PARMS)
    expect((await client.send(lockOf(0xffff_ffff))).result).toBe(INVALID_PARMS)
    expect(await client.create(dataOid(vid, 0), 0, Buffer.alloc(512, 1))).toBe(SUCCESS)
  })

  it.each([QEMU, TGT_VER, DOG])('lets who took it write, in whatever version it speaks: %i', async (version) => {
    await connected(version, async (holder) => {
      expect((await holder.lock(name)).result).toBe(SUCCESS)
      expect(await holder.create(dataOid(vid, 0), 0, Buffer.alloc(4096, version + 1))).toBe(SUCCESS)
      expect(await holder.write(inodeOid(vid), MAP, u32s(vid))).toBe(SUCCESS)
      expect((await holder.readObj(dataOid(vid, 0), 0, 1)).body[0]).toBe(version + 1)
      const otherVersion = version === DOG ? TGT_VER : DOG
      await connected(otherVersion, async (neighbour) => {
        expect(await neighbour.write(dataOid(vid, 0), 0, Buffer.alloc(4096, 9))).toBe(VDI_LOCKED)
      })
      expect(await holder.release(vid)).toBe(SUCCESS)
    })
    expect(await client.write(dataOid(vid, 0), 0, Buffer.alloc(4096, 9))).toBe(SUCCESS)
  })

  it('lets a client of one version write over a connection that it makes later', async () => {
    await connected(DOG, async (asking) => {
      expect((await asking.lock(name)).result).toBe(SUCCESS)
      await connected(DOG, async (writing) => {
        expect(await writing.create(dataOid(vid, 0), 0, Buffer.alloc(4096, 3))).toBe(SUCCESS)
      })
      expect(await asking.release(vid)).toBe(SUCCESS)
    })
  })
})

describe('a discard', () => {
  it('of a client that numbers nothing is one when it comes on the connection that has written', async () => {
    await connected(QEMU, async (writer) => {
      const sent = (request: RawRequest) => writer.send({ ...request, id: 0 })
      expect((await sent({ opcode: 0x12, flags: WRITE, body: Buffer.concat([field(name)], 512) })).result).toBe(SUCCESS)
      const create = { opcode: 0x01, flags: WRITE | CACHE, body: Buffer.alloc(4096, 5) }
      expect((await sent({ ...create, fields: [[16, 8, dataOid(vid, 2)]] })).result).toBe(SUCCESS)
      const zero = { opcode: 0x03, flags: WRITE | CACHE, body: Buffer.alloc(4) }
      const entry = [
        [16, 8, inodeOid(vid)],
        [40, 4, MAP + 8],
      ] as const
      expect((await sent({ ...zero, fields: entry })).result).toBe(SUCCESS)
      expect((await sent({ opcode: 0x02, dataLength: 4, fields: entry })).body.readUInt32LE()).toBe(0)
    })
  })
})

describe('DEL_VDI', () => {
  it('takes a VDI away from those who write to it without a lock', async () => {
    await connected(DOG, async (other) => {
      await other.allocate(vid, 0, 1)
      expect((await client.remove(name)).result).toBe(SUCCESS)
      expect(await other.write(dataOid(vid, 0), 0, Buffer.alloc(512, 2))).toBe(NO_OBJ)
      expect((await client.info(name)).result).toBe(NO_VDI)
    })
  })
})

describe('what other nodes would be needed for', () => {
  it.each([
    [0x8a, 'FORCE_RECOVER'],
    [0x94, 'CLEANUP'],
    [0xa8, 'ENABLE_RECOVER'],
    [0xa9, 'DISABLE_RECOVER'],
    [0xb5, 'REWEIGHT'],
    [0xbf, 'ALTER_CLUSTER_COPY'],
    [0xc0, 'ALTER_VDI_COPY'],
  ])('is refused as not supported, and not as unknown: %i %s', async (opcode) => {
    expect((await client.send({ opcode })).result).toBe(NO_SUPPORT)
  })
})
