import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { SeededRandom } from '../sim/random.ts'
import { LiveSheep } from '../tools/live-sheep.ts'
import { frame, type RawRequest, RawSheepClient } from '../tools/raw-sheep-client.ts'
import { fuzzFrames } from './frame-fuzz.ts'

/*
 * Frames byte for byte as clients send them: opcodes, flags and result codes as numbers, offsets as in upstream's headers.
 */
const WRITE = 0x01
const OWN = 0x0a // protocol version of Collie's own opcodes and of upstream's from 0x80 on
const MIB = 1024 * 1024

const SUCCESS = 0x00
const NO_VDI = 0x08
const NO_BASE_VDI = 0x09
const NO_TAG = 0x0e
const VDI_EXIST = 0x04
const INVALID_PARMS = 0x05
const READONLY = 0x1a
const VDI_NOT_EMPTY = 0x92
const NO_SUPPORT = 0x8b
const FENCED = 0xc1

let live: LiveSheep
let client: RawSheepClient
let names = 0
/** A name that no other test has. */
let name: string

beforeAll(async () => {
  live = await LiveSheep.start()
  client = await RawSheepClient.connect(live.address)
})
afterAll(async () => {
  client.close()
  await live.stop()
})
beforeEach(() => {
  name = `vdi-${++names}`
})

const field = (text: string | Buffer, bytes = 256) => Buffer.concat([Buffer.from(text as string)], bytes)

/** NEW_VDI as QEMU sends it: the name in its field, the size at 16, the base at 24, `snap_id` at 32. */
const newVdi = (text: string | Buffer, sizeBytes: number, { base = 0, snapId = 0, shift = 0 } = {}): RawRequest => ({
  opcode: 0x11,
  protoVer: 1,
  flags: WRITE,
  body: field(text),
  fields: [
    [16, 8, sizeBytes],
    [24, 4, base],
    [31, 1, shift],
    [32, 4, snapId],
  ],
})

const nameRequest = (opcode: number, text: string, tag = '', snapId = 0): RawRequest => ({
  opcode,
  protoVer: 1,
  flags: WRITE,
  body: Buffer.concat([field(text), field(tag)]),
  fields: [[32, 4, snapId]],
})

const vidOf = ({ header }: { header: Buffer }) => header.readUInt32LE(24)

async function create(text = name, sizeBytes = 10 * MIB): Promise<number> {
  const answer = await client.request(newVdi(text, sizeBytes))
  expect(answer.result).toBe(SUCCESS)
  return vidOf(answer)
}

const bit = (bitmap: Buffer, vid: number) => (bitmap[vid >>> 3]! >>> (vid & 7)) & 1

describe('NEW_VDI', () => {
  it('makes a VDI and tells its vid, copies and the size of its objects', async () => {
    const answer = await client.request({ ...newVdi(name, 10 * MIB), id: 77 })
    expect(answer).toMatchObject({ opcode: 0x11, id: 77, result: SUCCESS, body: Buffer.alloc(0) })
    expect(vidOf(answer)).toBeGreaterThan(0)
    expect(answer.header.readUInt8(32)).toBe(1)
    expect(answer.header.readUInt8(33)).toBe(22)
    expect((await client.request(newVdi(name, 10 * MIB))).result).toBe(VDI_EXIST)
  })

  it('takes a snapshot of a base with `snap_id`, which goes on under a new vid', async () => {
    const vid = await create()
    const answer = await client.request(newVdi(name, 10 * MIB, { base: vid, snapId: 1 }))
    expect(answer.result).toBe(SUCCESS)
    expect(vidOf(answer)).not.toBe(vid)
    expect(vidOf(await client.request(nameRequest(0x14, name)))).toBe(vidOf(answer))
    expect(vidOf(await client.request(nameRequest(0x14, name, '', 1)))).toBe(vid)
    expect((await client.request(newVdi(name, 10 * MIB, { base: vid, snapId: 1 }))).result).toBe(READONLY)
  })

  it('clones a snapshot, and nothing else', async () => {
    const vid = await create()
    expect((await client.request(newVdi(`${name}-clone`, MIB, { base: vid }))).result).toBe(NO_BASE_VDI)
    await client.request(newVdi(name, 10 * MIB, { base: vid, snapId: 1 }))
    const clone = await client.request(newVdi(`${name}-clone`, MIB, { base: vid }))
    expect(clone.result).toBe(SUCCESS)
    expect(live.sheep.state.get(vidOf(clone))).toMatchObject({ parentVid: vid, sizeBytes: 10 * MIB })
    expect((await client.request(newVdi(`${name}-other`, MIB, { base: 0xfffffe }))).result).toBe(NO_BASE_VDI)
  })

  it.each<[string, RawRequest, number]>([
    ['without a name', newVdi('', MIB), INVALID_PARMS],
    ['without a body', { ...newVdi('x', MIB), flags: 0, body: Buffer.alloc(0) }, INVALID_PARMS],
    ['with an empty body', { ...newVdi('x', MIB), body: Buffer.alloc(0) }, INVALID_PARMS],
    ['with a name that fills its field', newVdi('x'.repeat(256), MIB), INVALID_PARMS],
    ['with a name that is not UTF-8', newVdi(Buffer.from([0x61, 0xff, 0xfe]), MIB), INVALID_PARMS],
    ['above 4 TiB', newVdi('x', 4 * MIB * MIB + 1), INVALID_PARMS],
    ['of an absurd size', { ...newVdi('x', 0), fields: [[16, 8, 2n ** 64n - 1n]] }, INVALID_PARMS],
    ['with objects of another size', newVdi('x', MIB, { shift: 23 }), NO_SUPPORT],
    ['as a snapshot of no VDI', newVdi('x', MIB, { base: 0xfffffe, snapId: 1 }), NO_VDI],
  ])('is refused %s', async (_, request, result) => {
    expect((await client.request(request)).result).toBe(result)
  })

  it('is refused as a snapshot under another name', async () => {
    const vid = await create()
    expect((await client.request(newVdi(`${name}-x`, MIB, { base: vid, snapId: 1 }))).result).toBe(INVALID_PARMS)
    expect(vidOf(await client.request(nameRequest(0x14, name)))).toBe(vid)
  })
})

describe('GET_VDI_INFO and DEL_VDI', () => {
  it('find by name, by tag and by number', async () => {
    const vid = await create()
    const tag: RawRequest = { opcode: 0xdc, protoVer: OWN, flags: WRITE, body: field('one'), fields: [[16, 4, vid]] }
    const taken = await client.request(tag)
    expect(taken.result).toBe(SUCCESS)
    const working = taken.header.readUInt32LE(32)
    expect(vidOf(await client.request(nameRequest(0x14, name)))).toBe(working)
    expect(vidOf(await client.request(nameRequest(0x14, name, 'one')))).toBe(vid)
    expect((await client.request(nameRequest(0x14, name, 'two'))).result).toBe(NO_TAG)
    expect((await client.request(nameRequest(0x14, name, '', 9))).result).toBe(NO_TAG)
    expect((await client.request(nameRequest(0x14, 'nothing'))).result).toBe(NO_VDI)

    const deleted = await client.request(nameRequest(0x17, name, 'one'))
    expect([deleted.result, vidOf(deleted)]).toEqual([SUCCESS, vid])
    expect((await client.request(nameRequest(0x17, name, 'one'))).result).toBe(NO_TAG)
    expect((await client.request(nameRequest(0x17, name))).result).toBe(SUCCESS)
    expect((await client.request(nameRequest(0x17, name))).result).toBe(NO_VDI)
  })

  it('take a name alone, as old clients send it', async () => {
    const vid = await create()
    const short = { ...nameRequest(0x14, name), body: Buffer.concat([Buffer.from(name)], 256) }
    expect(vidOf(await client.request(short))).toBe(vid)
  })

  it('does not delete what is open', async () => {
    const vid = await create()
    const opened = await client.request({ opcode: 0xd0, protoVer: OWN, fields: [[16, 4, vid]] })
    expect((await client.request(nameRequest(0x17, name))).result).toBe(VDI_NOT_EMPTY)
    await client.request({ opcode: 0xd1, protoVer: OWN, fields: [[20, 4, opened.header.readUInt32LE(20)]] })
    expect((await client.request(nameRequest(0x17, name))).result).toBe(SUCCESS)
  })
})

describe('READ_VDIS and READ_DEL_VDIS', () => {
  it('answer one bit for each vid', async () => {
    const vid = await create()
    const before = await client.request({ opcode: 0x15, protoVer: 1, dataLength: 2 * MIB })
    expect(before.body.length).toBe(2 * MIB)
    expect(bit(before.body, vid)).toBe(1)
    const count = before.body.reduce((sum, byte) => sum + byte.toString(2).replaceAll('0', '').length, 0)
    expect(count).toBe(live.sheep.state.vdis.size)
    await client.request(newVdi(name, 10 * MIB, { base: vid, snapId: 1 }))
    await client.request(newVdi(`${name}-clone`, MIB, { base: vid }))
    await client.request(nameRequest(0x17, name, '', 1))
    const deleted = await client.request({ opcode: 0xc9, protoVer: OWN, dataLength: 2 * MIB })
    expect(deleted.result).toBe(SUCCESS)
    expect(bit(deleted.body, vid)).toBe(1)
  })

  it('are refused when the buffer has another size', async () => {
    for (const dataLength of [0, 2 * MIB - 1, 2 * MIB + 1]) {
      expect((await client.request({ opcode: 0x15, protoVer: 1, dataLength })).result).toBe(INVALID_PARMS)
    }
  })
})

describe('questions about the node', () => {
  it('GET_CLUSTER_DEFAULT tells copies and the size of objects', async () => {
    const { result, header } = await client.request({ opcode: 0x18, protoVer: 1 })
    expect([result, header.readUInt8(20), header.readUInt8(21), header.readUInt8(22)]).toEqual([SUCCESS, 1, 0, 22])
  })

  it('STAT_SHEEP tells the size of the disk and what is free', async () => {
    const { result, header } = await client.request({ opcode: 0x86, protoVer: OWN })
    const [size, free] = [header.readBigUInt64LE(32), header.readBigUInt64LE(40)]
    expect(result).toBe(SUCCESS)
    expect(free).toBeGreaterThan(0n)
    expect(free).toBeLessThanOrEqual(size)
  })

  it('answer what is not known with INVALID_PARMS, and go on', async () => {
    const unknown = [0x00, 0x06, 0x10, 0x19, 0x7f, 0x80, 0x8f, 0xa3, 0xa6, 0xaf, 0xce, 0xcf, 0xf8, 0xff]
    for (const opcode of unknown) {
      const answer = await client.request({ opcode, protoVer: opcode < 0x80 ? 1 : OWN, id: opcode })
      expect(answer).toMatchObject({ opcode, id: opcode, result: INVALID_PARMS, body: Buffer.alloc(0) })
    }
  })
})

describe('sessions over a connection', () => {
  const open = async (on: RawSheepClient, vid: number) =>
    (await on.request({ opcode: 0xd0, protoVer: OWN, fields: [[16, 4, vid]] })).header.readUInt32LE(20)

  const read = (session: number, offset: number | bigint, length: number, dataLength = length): RawRequest => ({
    opcode: 0xd2,
    protoVer: OWN,
    dataLength,
    fields: [
      [20, 4, session],
      [24, 8, offset],
      [32, 4, length],
    ],
  })

  it('move bytes', async () => {
    const session = await open(client, await create())
    const write: RawRequest = { opcode: 0xd3, protoVer: OWN, flags: WRITE, body: Buffer.from('hello') }
    const fields = [
      [20, 4, session],
      [24, 8, 4 * MIB - 2],
    ] as const
    expect((await client.request({ ...write, fields })).result).toBe(SUCCESS)
    expect((await client.request(read(session, 4 * MIB - 3, 7))).body.toString('latin1')).toBe('\0hello\0')
  })

  it('do not read more than the client offers to take, nor beyond the end', async () => {
    const session = await open(client, await create())
    expect((await client.request(read(session, 0, 0xffffffff, 0))).result).toBe(INVALID_PARMS)
    expect((await client.request(read(session, 0, 8, 4))).result).toBe(INVALID_PARMS)
    expect((await client.request(read(session, 10 * MIB, 1))).result).toBe(INVALID_PARMS)
    expect((await client.request(read(session, 2n ** 64n - 1n, 8))).result).toBe(INVALID_PARMS)
  })

  it('belong to it: another connection cannot use them, and they end with it', async () => {
    const vid = await create()
    const other = await RawSheepClient.connect(live.address)
    const session = await open(other, vid)
    expect((await client.request(read(session, 0, 8))).result).toBe(FENCED)
    await client.request({ opcode: 0xd1, protoVer: OWN, fields: [[20, 4, session]] })
    expect((await other.request(read(session, 0, 8))).result).toBe(SUCCESS)
    other.close()
    const gone = async () => (await client.request(nameRequest(0x17, name))).result
    await expect.poll(gone).toBe(SUCCESS)
  })

  it('are answered with FENCED when there is none', async () => {
    for (const opcode of [0xd2, 0xd4, 0xd5, 0xd6, 0xd7]) {
      expect((await client.request({ opcode, protoVer: OWN, fields: [[20, 4, 0xfffff]] })).result).toBe(FENCED)
    }
  })
})

describe('PUT_EXPORT', () => {
  const put = (body: string): RawRequest => ({ opcode: 0xd8, protoVer: OWN, flags: WRITE, body: Buffer.from(body) })

  it.each(['', 'x', 'null', '[]', '7', '{}', '{"attachmentId":"a","nameHash":"x","vid":1,"readOnly":true}'])(
    'refuses %j',
    async (body) => {
      expect((await client.request(put(body))).result).toBe(INVALID_PARMS)
    },
  )

  it('refuses a right to a VDI that is not there', async () => {
    const right = { attachmentId: 'a', nameHash: 'ab'.repeat(32), vid: 0xfffffe, readOnly: false }
    expect((await client.request(put(JSON.stringify(right)))).result).toBe(NO_VDI)
  })
})

describe('bytes of any kind', () => {
  it('are answered or end their connection, and harm nobody else', async () => {
    const vid = await create()
    await fuzzFrames(live, new SeededRandom(1), 1500)
    expect(vidOf(await client.request(nameRequest(0x14, name)))).toBe(vid)
    expect((await live.sheep.audit()).problems).toEqual([])
  })

  it('cut anywhere are the same frames', async () => {
    const bytes = Buffer.concat([frame(newVdi(name, MIB)), frame(nameRequest(0x14, name)), frame({ opcode: 0x18 })])
    const slow = await RawSheepClient.connect(live.address)
    for (let at = 0; at < bytes.length; at += 37) slow.send(bytes.subarray(at, at + 37))
    const answers = [await slow.receive(), await slow.receive(), await slow.receive()]
    expect(answers.map(({ opcode, result }) => [opcode, result]).sort()).toEqual([
      [0x11, SUCCESS],
      [0x14, expect.any(Number)], // may have been looked up before the VDI was there
      [0x18, SUCCESS],
    ])
    slow.close()
  })
})
