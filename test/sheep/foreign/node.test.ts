import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { LiveSheep } from '../../tools/live-sheep.ts'
import {
  attrOid,
  BUFFER_SMALL,
  DOG,
  dataOid,
  Foreign,
  field,
  INVALID_PARMS,
  inodeOid,
  MIB,
  NO_OBJ,
  NO_SUPPORT,
  NO_VDI,
  OBJECT,
  SUCCESS,
  VDI_EXIST,
  VDI_NOT_EMPTY,
  vidOf,
  WRITE,
} from './frames.ts'

/* What `dog` asks a node and the cluster, as its commands do. */
let live: LiveSheep
let dog: Foreign
const PIGGYBACK = 0x10
const NODE_BYTES = 80

beforeAll(async () => {
  live = await LiveSheep.start()
  dog = await Foreign.connect(live.address, DOG)
})
afterAll(async () => {
  dog.connection.close()
  await live.stop()
})

const ask = (opcode: number, dataLength: number, fields: readonly (readonly [number, 1 | 2 | 4 | 8, number])[] = []) =>
  dog.send({ opcode, dataLength, fields })

describe('the cluster', () => {
  it('GET_NODE_LIST: one node, at the address that clients know', async () => {
    const { result, header, body } = await ask(0x82, 491520)
    expect([result, header.readUInt32LE(20), body.length]).toEqual([SUCCESS, 1, NODE_BYTES])
    expect([...body.subarray(36, 40)]).toEqual([127, 0, 0, 1])
    expect(body.readUInt16LE(40)).toBe(7000)
    expect(body.readUInt16LE(64)).toBe(128)
    expect(body.readBigUInt64LE(72)).toBeGreaterThan(0n)
  })

  it('STAT_CLUSTER: the newest epoch alone, then with its nodes, then those before it', async () => {
    const head = await ask(0x87, 48)
    expect(head.body).toHaveLength(48)
    const epoch = head.body.readUInt32LE(16)
    expect(epoch).toBe(live.sheep.state.epoch)
    expect(head.body.readBigUInt64LE(0)).toBeGreaterThan(0n)
    expect(head.body[25]).toBe(1)

    dog.connection.close()
    await live.restart()
    dog = await Foreign.connect(live.address, DOG)
    const entryBytes = 48 + 2 * NODE_BYTES
    const { body } = await ask(0x87, 5 * entryBytes, [[40, 4, 2]])
    expect(body.length).toBe((epoch + 1) * entryBytes)
    expect([body.readUInt32LE(16), body.readUInt32LE(20)]).toEqual([epoch + 1, 1])
    expect([body.readUInt32LE(entryBytes + 16), body.readUInt32LE(entryBytes + 20)]).toEqual([epoch, 1])
    expect(body.readBigUInt64LE(entryBytes)).toBe(0n)
    expect((await ask(0xa2, 491520, [[36, 4, epoch]])).body).toHaveLength(NODE_BYTES + 8)
  })

  it('CLUSTER_INFO: the whole of it, or nothing', async () => {
    const { body } = await ask(0xbe, 491568)
    expect(body).toHaveLength(491568)
    expect([body.readUInt16LE(2), body.readUInt32LE(4), body[18], body[20], body[21]]).toEqual([
      1,
      live.sheep.state.epoch,
      1,
      1,
      22,
    ])
    expect(await ask(0xbe, 1000)).toMatchObject({ result: BUFFER_SMALL, body: Buffer.alloc(0) })
  })

  it('MAKE_FS: nothing to do on an empty store, and never on another', async () => {
    const format = (copies: number) =>
      dog.send({ opcode: 0x84, flags: WRITE, body: field('plain', 6), fields: [[32, 1, copies]] })
    expect((await format(0)).result).toBe(SUCCESS)
    expect((await format(3)).result).toBe(NO_SUPPORT)
    await dog.made('formatted', MIB)
    expect((await format(1)).result).toBe(VDI_NOT_EMPTY)
    expect((await dog.info('formatted')).result).toBe(SUCCESS)
  })

  it.each<[string, number]>([
    ['SHUTDOWN', 0x85],
    ['KILL_NODE', 0x9a],
    ['MD_PLUG', 0xb2],
    ['SET_RECOVERY', 0xcb],
  ])('%s is refused clearly', async (_, opcode) => {
    expect((await dog.send({ opcode, flags: WRITE, body: Buffer.alloc(24) })).result).toBe(NO_SUPPORT)
  })
})

describe('the node', () => {
  it('STAT_RECOVERY, GET_RECOVERY: nothing to recover', async () => {
    for (const opcode of [0x97, 0xca]) {
      const { result, body } = await ask(opcode, 24)
      expect([result, body]).toEqual([SUCCESS, Buffer.alloc(24)])
    }
  })

  it('MD_INFO: its disk', async () => {
    const { body } = await ask(0xb1, 263688)
    expect(body).toHaveLength(263688)
    expect(body.readUInt32LE(263680)).toBe(1)
    expect(body.readBigUInt64LE(8)).toBeGreaterThan(0n)
    expect(body.toString('utf8', 24, 30)).toBe('sheep\0')
  })

  it('STAT: what it was asked so far', async () => {
    const counters = async () => {
      const { body } = await ask(0xb8, 120)
      return Array.from({ length: 15 }, (_, i) => Number(body.readBigUInt64LE(8 * i)))
    }
    const before = await counters()
    const vid = await dog.made('counted', OBJECT)
    await dog.create(dataOid(vid, 0), 0, Buffer.alloc(4096))
    await dog.readObj(dataOid(vid, 0), 0, 512)
    await dog.send({ opcode: 0x16, fields: [[16, 8, inodeOid(vid)]] })
    const after = await counters()
    const grown = after.map((value, i) => value - before[i]!)
    expect(grown).toEqual([0, 0, 3, 0, 4096, 512, 0, 0, 0, 1, 1, 1, 0, 0, 0])
  })

  it('GET_LOGLEVEL and SET_LOGLEVEL, by the numbers of syslog', async () => {
    const set = (level: number) => {
      const body = Buffer.alloc(4)
      body.writeInt32LE(level)
      return dog.send({ opcode: 0xba, flags: WRITE, body })
    }
    const before = (await ask(0xb9, 4)).body.readInt32LE()
    expect((await set(3)).result).toBe(SUCCESS)
    expect((await ask(0xb9, 4)).body.readInt32LE()).toBe(3)
    expect((await set(8)).result).toBe(INVALID_PARMS)
    expect((await set(-1)).result).toBe(INVALID_PARMS)
    await set(before)
  })

  it('EXIST, OIDS_EXIST and GET_HASH, for `dog vdi check`', async () => {
    const vid = await dog.made('checked', 2 * OBJECT)
    await dog.allocate(vid, 1, 5)
    const there = [dataOid(vid, 1), inodeOid(vid)]
    const missing = [dataOid(vid, 0), inodeOid(0xabcdef)]
    const exists = (oid: bigint) => dog.send({ opcode: 0xbd, fields: [[16, 8, oid]] })
    for (const oid of there) expect((await exists(oid)).result).toBe(SUCCESS)
    for (const oid of missing) expect((await exists(oid)).result).toBe(NO_OBJ)
    const body = Buffer.concat([...there, ...missing].map((oid) => Buffer.from(oidBytes(oid))))
    const answer = await dog.send({ opcode: 0xc6, flags: WRITE | PIGGYBACK, body })
    expect(answer.body).toEqual(Buffer.concat(missing.map(oidBytes)))

    const hash = async (oid: bigint) => dog.send({ opcode: 0xb4, fields: [[16, 8, oid]] })
    const content = Buffer.alloc(OBJECT)
    content.fill(5, 0, 4096)
    const digest = (await hash(dataOid(vid, 1))).header.subarray(24, 44)
    expect(digest.toString('hex')).toBe(createHash('sha1').update(content).digest('hex'))
    expect((await hash(inodeOid(vid))).result).toBe(SUCCESS)
    for (const oid of missing) expect((await hash(oid)).result).toBe(NO_OBJ)
  })
})

describe('GET_VDI_ATTR', () => {
  const attribute = (name: string, key: string, value: string, { tag = '', length = value.length } = {}) => {
    const body = Buffer.alloc(66320)
    body.write(name, 0)
    body.write(tag, 256)
    body.writeUInt32LE(length, 524)
    body.write(key, 528)
    body.write(value, 784)
    return body
  }
  const send = (body: Buffer, flags: number) => dog.send({ opcode: 0x89, flags: WRITE | flags, body })
  const [CREATE, EXCLUSIVE, DELETE] = [0x100, 0x200, 0x400]

  it('sets, finds and removes; the value is read as an object', async () => {
    await dog.made('attributed', MIB)
    const body = attribute('attributed', 'colour', 'red')
    expect((await send(body, 0)).result).toBe(NO_OBJ)
    expect((await send(body, CREATE)).result).toBe(SUCCESS)
    expect((await send(body, CREATE | EXCLUSIVE)).result).toBe(VDI_EXIST)
    const found = await send(body, 0)
    const oid = attrOid(vidOf(found), found.header.readUInt32LE(28))
    const { body: object } = await dog.readObj(oid, 0, 66320)
    expect(object.readBigUInt64LE(512)).toBeGreaterThan(0n)
    object.fill(0, 512, 520)
    expect(object.equals(body)).toBe(true)
    expect((await dog.readObj(oid, 784, 3)).body.toString()).toBe('red')
    expect((await send(body, DELETE)).result).toBe(SUCCESS)
    expect((await send(body, DELETE)).result).toBe(NO_OBJ)
    expect((await dog.readObj(oid, 0, 66320)).result).toBe(NO_OBJ)
  })

  it('is refused when it cannot be', async () => {
    await dog.made('odd', MIB)
    expect((await send(attribute('nothing', 'k', 'v'), CREATE)).result).toBe(NO_VDI)
    expect((await send(attribute('odd', 'k', 'v').subarray(0, 100), CREATE)).result).toBe(INVALID_PARMS)
    expect((await send(attribute('odd', '', 'v'), CREATE)).result).toBe(INVALID_PARMS)
    expect((await send(attribute('odd', 'k'.repeat(256), 'v'), CREATE)).result).toBe(INVALID_PARMS)
    expect((await send(attribute('odd', 'k', 'v', { length: 65537 }), CREATE)).result).toBe(INVALID_PARMS)
  })
})

function oidBytes(oid: bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(oid)
  return bytes
}
