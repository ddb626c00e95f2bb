import { createHash } from 'node:crypto'
import { statfsSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Collie, printLogOfFailures } from '../tools/collie.ts'
import { Dog } from '../tools/dog.ts'
import { firstDifference } from '../tools/first-difference.ts'
import { leaveNothing } from '../tools/leave-nothing.ts'
import { SheepConversation, SheepRefusal } from '../tools/sheep-conversation.ts'
import {
  dataOid,
  FLAG,
  firstVidOf,
  fnv1a,
  INODE_BYTES,
  INODE_CLIENT_BYTES,
  INODE_HEADER_BYTES,
  Inode,
  inodeOid,
  mapOffset,
  OBJECT_BYTES,
  RESULT,
  textField,
  vmstateOid,
} from '../tools/sheep-layouts.ts'

/**
 * What the `dog` of upstream 1.0 sends, against a running node, with its answers checked field by field. What a test leaves
 * is deleted after it.
 */

const MIB = 1024 * 1024

let collie: Collie
let dog: Dog
beforeAll(async () => {
  collie = await Collie.create()
  await collie.start()
  dog = new Dog(collie.info.addresses.sheep!)
})
afterAll(() => collie.dispose())
printLogOfFailures(() => collie)
leaveNothing(() => collie)

/** Bytes that differ from place to place, and from seed to seed. */
function pattern(seed: number, lengthBytes: number): Buffer {
  const words = new Uint32Array(Math.ceil(lengthBytes / 4))
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i + 1, 0x9e3779b1) ^ Math.imul(seed, 0x85ebca6b)
  return Buffer.from(words.buffer, 0, lengthBytes)
}

const sha1 = (bytes: Buffer) => createHash('sha1').update(bytes).digest('hex')

/** The result that refused it. */
async function refusal(command: Promise<unknown>): Promise<number> {
  const error = await command.then(
    () => null,
    (reason: unknown) => reason,
  )
  if (!(error instanceof SheepRefusal)) throw error ?? new Error('it was not refused')
  return error.result
}

/** Talks to the node in frames of one's own. */
async function talk<T>(to: (sheep: SheepConversation) => Promise<T>): Promise<T> {
  const sheep = await SheepConversation.connect(collie.info.addresses.sheep!)
  try {
    return await to(sheep)
  } finally {
    sheep.close()
  }
}

const readRaw = (oid: bigint, lengthBytes: number, offset = 0) =>
  talk((sheep) => sheep.readObject({ oid, offset }, lengthBytes))

/** Now, as an inode holds it. */
const seconds = (time: bigint) => Number(time >> 32n)
const nanoseconds = (time: bigint) => Number(time & 0xffff_ffffn)

describe('vdi create, list, delete', () => {
  it('makes a thin VDI under the vid that its name hashes to, with every field of its inode in place', async () => {
    const before = Math.floor(Date.now() / 1000)
    expect(await dog.create('test', 100 * MIB)).toBe(0x7c2b25)
    const inode = await dog.inode('test')
    expect(inode.bytes).toHaveLength(INODE_BYTES)
    const { name, tag, sizeBytes, copies, copyPolicy, storePolicy, blockSizeShift, snapId, vid, parentVid } = inode
    expect({ name, tag, sizeBytes, copies, copyPolicy, storePolicy, blockSizeShift, snapId, vid, parentVid }).toEqual({
      ...{ name: 'test', tag: '', sizeBytes: 100 * MIB, copies: 1, copyPolicy: 0, storePolicy: 0, blockSizeShift: 22 },
      ...{ snapId: 1, vid: 0x7c2b25, parentVid: 0 },
    })
    expect([inode.snapshotTime, inode.vmClockNsec, inode.vmStateBytes]).toEqual([0n, 0n, 0])
    expect(seconds(inode.createTime)).toBeGreaterThanOrEqual(before)
    expect(seconds(inode.createTime)).toBeLessThanOrEqual(Math.ceil(Date.now() / 1000))
    expect(nanoseconds(inode.createTime)).toBeLessThan(1e9)
    expect(inode.allocated()).toEqual([])
  })

  it('refuses a name that is taken, and does not know one that is not', async () => {
    await dog.create('taken', MIB)
    expect(await refusal(dog.create('taken', MIB))).toBe(RESULT.VDI_EXIST)
    expect(await refusal(dog.read('free', 0, 1))).toBe(RESULT.NO_VDI)
    expect(await refusal(dog.delete('free'))).toBe(RESULT.NO_VDI)
    await dog.delete('taken')
    expect(await refusal(dog.read('taken', 0, 1))).toBe(RESULT.NO_VDI)
  })

  it('allocates all objects beforehand', async () => {
    await dog.create('thick', 10 * MIB, { preallocate: true })
    const inode = await dog.inode('thick')
    const { vid } = inode
    expect(inode.allocated().map((index) => inode.ownerOf(index))).toEqual([vid, vid, vid])
    expect(firstDifference(await dog.read('thick', 0, 10 * MIB), Buffer.alloc(10 * MIB))).toBeNull()
    expect(firstDifference(await readRaw(dataOid(vid, 2), OBJECT_BYTES), Buffer.alloc(OBJECT_BYTES))).toBeNull()
  })

  it('lists working VDIs and snapshots, and none that is deleted', async () => {
    const names = ['alpha', 'beta', 'gamma']
    for (const name of names) await dog.create(name, 8 * MIB)
    await dog.write('beta', 4 * MIB, pattern(1, MIB))
    await dog.snapshot('beta', 'one')
    await dog.delete('gamma')
    const found = (await dog.list()).map(({ name, tag, snapshotTime }) => ({
      name,
      tag,
      isSnapshot: snapshotTime !== 0n,
    }))
    expect(found).toHaveLength(3)
    expect(found).toEqual(
      expect.arrayContaining([
        { name: 'alpha', tag: '', isSnapshot: false },
        { name: 'beta', tag: 'one', isSnapshot: true },
        { name: 'beta', tag: '', isSnapshot: false },
      ]),
    )
    const mapOf = async (tag: string) => (await dog.inode('beta', tag)).allocated()
    expect([await mapOf('one'), await mapOf('')]).toEqual([[1], [1]])
  })

  it('puts names that hash alike into one run of vids, in which each is found when the first is gone', async () => {
    const [first, second] = collidingNames()
    const vid = await dog.create(first, MIB)
    expect(await dog.create(second, MIB)).toBe(vid + 1)
    await dog.delete(first)
    expect((await dog.inode(second)).vid).toBe(vid + 1)
  })

  it('gives all space back when the client forgot to clear the map first', async () => {
    await dog.create('careless', 16 * MIB)
    await dog.write('careless', 0, pattern(2, 12 * MIB))
    await talk((sheep) => sheep.ask({ opcode: 0x17, body: textField('careless') }))
    expect(await refusal(dog.inode('careless'))).toBe(RESULT.NO_VDI)
    await dog.create('careless', 16 * MIB)
    expect(firstDifference(await dog.read('careless', 0, 12 * MIB), Buffer.alloc(12 * MIB))).toBeNull()
  })
})

describe('vdi read and write', () => {
  it('keeps what is written, across objects and at any alignment', async () => {
    await dog.create('io', 20 * MIB)
    const data = pattern(3, 9 * MIB + 513)
    await dog.write('io', 3 * MIB - 1, data)
    const all = Buffer.alloc(20 * MIB)
    data.copy(all, 3 * MIB - 1)
    expect(firstDifference(await dog.read('io', 0, 20 * MIB), all)).toBeNull()
    await dog.write('io', 5 * MIB + 7, pattern(4, 4099))
    pattern(4, 4099).copy(all, 5 * MIB + 7)
    expect(firstDifference(await dog.read('io', 0, 20 * MIB), all)).toBeNull()
    expect((await dog.inode('io')).allocated()).toEqual([0, 1, 2, 3])
  })

  it('answers for an object that is not there, and for a range that it does not have', async () => {
    const vid = await dog.create('edges', 20 * MIB)
    await dog.write('edges', 0, pattern(5, 4096))
    expect(await refusal(readRaw(dataOid(vid, 3), 512))).toBe(RESULT.NO_OBJ)
    const absent = { oid: dataOid(vid, 3), offset: 0 }
    expect(await refusal(talk((sheep) => sheep.writeObject(absent, Buffer.alloc(512))))).toBe(RESULT.NO_OBJ)
    expect(await refusal(readRaw(inodeOid(0xabcdef), INODE_HEADER_BYTES))).toBe(RESULT.NO_OBJ)
    await expect(readRaw(dataOid(vid, 0), 1024, OBJECT_BYTES - 512)).rejects.toThrow(SheepRefusal)
    await expect(readRaw(inodeOid(vid), 8, INODE_BYTES - 4)).rejects.toThrow(SheepRefusal)
    expect(firstDifference(await readRaw(inodeOid(vid), 4, INODE_BYTES - 4), Buffer.alloc(4))).toBeNull()
  })

  it('takes the creation of an object twice, as a client sends it that has lost its connection', async () => {
    const vid = await dog.create('resent', 8 * MIB)
    await talk(async (sheep) => {
      const range = { oid: dataOid(vid, 1), offset: 4096, flags: FLAG.CACHE, protoVer: 0 }
      await sheep.createObject(range, pattern(6, 4096))
      await sheep.createObject(range, pattern(6, 4096))
    })
    expect(
      firstDifference(
        await readRaw(dataOid(vid, 1), 12288),
        Buffer.concat([Buffer.alloc(4096), pattern(6, 4096), Buffer.alloc(4096)]),
      ),
    ).toBeNull()
  })

  it('frees what a client takes out of the map, and nothing else', async () => {
    const vid = await dog.create('holes', 16 * MIB)
    await dog.write('holes', 0, pattern(7, 12 * MIB))
    await talk((sheep) => sheep.writeObject({ oid: inodeOid(vid), offset: mapOffset(1) }, Buffer.alloc(4)))
    expect((await dog.inode('holes')).allocated()).toEqual([0, 2])
    const all = pattern(7, 12 * MIB)
    all.fill(0, 4 * MIB, 8 * MIB)
    expect(firstDifference(await dog.read('holes', 0, 12 * MIB), all)).toBeNull()
    expect(await refusal(readRaw(dataOid(vid, 1), 512))).toBe(RESULT.NO_OBJ)
    await dog.write('holes', 4 * MIB + 512, pattern(8, 512))
    pattern(8, 512).copy(all, 4 * MIB + 512)
    expect(firstDifference(await dog.read('holes', 0, 12 * MIB), all)).toBeNull()
  })

  it('refuses a map entry that names what is not of the family', async () => {
    const vid = await dog.create('victim', 8 * MIB)
    await dog.write('victim', 0, pattern(9, 4096))
    const thief = await dog.create('thief', 8 * MIB)
    const entry = Buffer.alloc(4)
    entry.writeUInt32LE(vid)
    const stolen = talk((sheep) => sheep.writeObject({ oid: inodeOid(thief), offset: mapOffset(0) }, entry))
    await expect(stolen).rejects.toThrow(SheepRefusal)
    expect((await dog.inode('thief')).allocated()).toEqual([])
  })
})

describe('vdi snapshot, clone, rollback', () => {
  it('freezes the VDI under its vid and goes on under the next', async () => {
    const first = await dog.create('base', 12 * MIB)
    await dog.write('base', 0, pattern(10, 8 * MIB))
    const before = Math.floor(Date.now() / 1000)
    const second = await dog.snapshot('base', 'monday')
    expect(second).toBe(first + 1)
    const frozen = await dog.inode('base', 'monday')
    expect({ vid: frozen.vid, tag: frozen.tag, snapId: frozen.snapId }).toEqual({
      vid: first,
      tag: 'monday',
      snapId: 1,
    })
    expect(seconds(frozen.snapshotTime)).toBeGreaterThanOrEqual(before)
    const working = await dog.inode('base')
    const { vid, parentVid, snapId, tag } = working
    expect({ vid, parentVid, snapId, tag }).toEqual({ vid: second, parentVid: first, snapId: 2, tag: '' })
    expect([working.snapshotTime, working.sizeBytes]).toEqual([0n, 12 * MIB])
    expect([0, 1, 2].map((index) => working.ownerOf(index))).toEqual([first, first, 0])

    await dog.write('base', MIB, pattern(11, 4096))
    expect((await dog.inode('base')).ownerOf(0)).toBe(second)
    expect(firstDifference(await dog.read('base', 0, 8 * MIB, 'monday'), pattern(10, 8 * MIB))).toBeNull()
    const now = pattern(10, 8 * MIB)
    pattern(11, 4096).copy(now, MIB)
    expect(firstDifference(await dog.read('base', 0, 8 * MIB), now)).toBeNull()
    // What a client copies on write is a whole object to everyone who reads it.
    expect(firstDifference(await readRaw(dataOid(second, 0), OBJECT_BYTES), now.subarray(0, OBJECT_BYTES))).toBeNull()
    await dog.delete('base', 'monday')
    expect(firstDifference(await dog.read('base', 0, 8 * MIB), now)).toBeNull()
  })

  it('tells a client that still writes to the frozen vid, and changes nothing', async () => {
    const vid = await dog.create('frozen', 8 * MIB)
    await dog.write('frozen', 0, pattern(12, 4096))
    await dog.snapshot('frozen', 's')
    const writes = [
      (sheep: SheepConversation) => sheep.writeObject({ oid: dataOid(vid, 0) }, Buffer.alloc(512)),
      (sheep: SheepConversation) => sheep.createObject({ oid: dataOid(vid, 1) }, Buffer.alloc(512)),
      (sheep: SheepConversation) =>
        sheep.writeObject({ oid: inodeOid(vid), offset: mapOffset(1) }, Buffer.from([1, 0, 0, 0])),
    ]
    for (const write of writes) expect(await refusal(talk(write))).toBe(RESULT.READONLY)
    expect(firstDifference(await dog.read('frozen', 0, 4096, 's'), pattern(12, 4096))).toBeNull()
  })

  it('refuses a tag that is taken; tells no such tag from no such name', async () => {
    await dog.create('tags', MIB)
    await dog.snapshot('tags', 't')
    expect(await refusal(dog.snapshot('tags', 't'))).toBe(RESULT.VDI_EXIST)
    expect(await refusal(dog.inode('tags', 'u'))).toBe(RESULT.NO_TAG)
    expect(await refusal(dog.inode('gone', 't'))).toBe(RESULT.NO_VDI)
  })

  it('finds a snapshot by its number too', async () => {
    const vid = await dog.create('numbers', MIB)
    await dog.snapshot('numbers', 'a')
    await dog.snapshot('numbers', 'b')
    const body = Buffer.concat([textField('numbers'), textField('')])
    const ask = (snapId: number) =>
      talk((sheep) => sheep.askForVdi({ opcode: 0x14, body, fields: [[32, 4, snapId]], expected: [RESULT.NO_TAG] }))
    expect([(await ask(1)).vid, (await ask(2)).vid, (await ask(9)).result]).toEqual([vid, vid + 1, RESULT.NO_TAG])
  })

  it('clones share what they do not write, and outlive what they were made of', async () => {
    await dog.create('origin', 8 * MIB)
    await dog.write('origin', 0, pattern(13, 8 * MIB))
    await dog.snapshot('origin', 's')
    const snapshot = await dog.inode('origin', 's')
    const vid = await dog.clone('origin', 's', 'copy')
    expect(vid).toBe(firstVidOf('copy'))
    const { parentVid, snapId, sizeBytes } = await dog.inode('copy')
    expect({ parentVid, snapId, sizeBytes }).toEqual({ parentVid: snapshot.vid, snapId: 1, sizeBytes: 8 * MIB })
    await dog.write('copy', 5 * MIB, pattern(14, 512))
    await dog.delete('origin', 's')
    await dog.delete('origin')
    const all = pattern(13, 8 * MIB)
    pattern(14, 512).copy(all, 5 * MIB)
    expect(firstDifference(await dog.read('copy', 0, 8 * MIB), all)).toBeNull()
  })

  it('refuses to clone what is not a snapshot', async () => {
    await dog.create('live', MIB)
    const base = await dog.inode('live')
    const made = talk((sheep) => sheep.newVdi('offspring', MIB, { base }))
    await expect(made).rejects.toThrow(SheepRefusal)
  })

  it('rolls back, more than once', async () => {
    await dog.create('roll', 8 * MIB)
    await dog.write('roll', 0, pattern(15, 6 * MIB))
    await dog.snapshot('roll', 's')
    for (const seed of [16, 17]) {
      await dog.write('roll', 0, pattern(seed, 8 * MIB))
      const vid = await dog.rollback('roll', 's')
      const working = await dog.inode('roll')
      expect({ vid: working.vid, parentVid: working.parentVid }).toEqual({
        vid,
        parentVid: (await dog.inode('roll', 's')).vid,
      })
      expect(firstDifference(await dog.read('roll', 0, 6 * MIB), pattern(15, 6 * MIB))).toBeNull()
      expect(firstDifference(await dog.read('roll', 6 * MIB, 2 * MIB), Buffer.alloc(2 * MIB))).toBeNull()
    }
    expect((await dog.list()).map(({ name, tag }) => `${name}:${tag}`).sort()).toEqual(['roll:', 'roll:s'])
  })

  it('keeps the state of a machine with its snapshot, as savevm leaves it and loadvm finds it', async () => {
    const vid = await dog.create('machine', 8 * MIB)
    await dog.write('machine', 0, pattern(18, MIB))
    const state = pattern(19, OBJECT_BYTES + 3 * 32768)
    // savevm: the state goes out in small pieces; the first of an object creates it.
    await talk(async (sheep) => {
      for (let at = 0; at < state.length; at += 32768) {
        const [index, offset] = [Math.floor(at / OBJECT_BYTES), at % OBJECT_BYTES]
        const range = { oid: vmstateOid(vid, index), offset, protoVer: 0, flags: FLAG.CACHE }
        const piece = state.subarray(at, at + 32768)
        if (offset === 0) await sheep.createObject(range, piece)
        else await sheep.writeObject(range, piece)
      }
      const header = await sheep.readObject({ oid: inodeOid(vid), protoVer: 0 }, INODE_HEADER_BYTES)
      textField('running').copy(header, 256)
      header.writeBigUInt64LE(123_456_789n, 528)
      header.writeBigUInt64LE(BigInt(state.length), 544)
      await sheep.writeObject({ oid: inodeOid(vid), protoVer: 0, flags: FLAG.CACHE }, header)
      await sheep.newVdi('machine', 8 * MIB, { base: new Inode(header), isSnapshot: true, protoVer: 0 })
    })
    const frozen = await dog.inode('machine', 'running')
    expect([frozen.vid, frozen.vmClockNsec, frozen.vmStateBytes]).toEqual([vid, 123_456_789n, state.length])
    expect((await dog.inode('machine')).vmStateBytes).toBe(0)
    // loadvm: rolls back, and reads the state of the new VDI's parent.
    await dog.write('machine', 0, pattern(20, MIB))
    await talk((sheep) => sheep.ask({ opcode: 0x17, protoVer: 0, body: textField('machine') }))
    await talk((sheep) => sheep.newVdi('machine', 8 * MIB, { base: frozen, protoVer: 0 }))
    const { parentVid } = await dog.inode('machine')
    expect(parentVid).toBe(vid)
    const loaded = [
      await readRaw(vmstateOid(parentVid, 0), OBJECT_BYTES),
      await readRaw(vmstateOid(parentVid, 1), state.length - OBJECT_BYTES),
    ]
    expect(firstDifference(Buffer.concat(loaded), state)).toBeNull()
    expect(firstDifference(await dog.read('machine', 0, MIB), pattern(18, MIB))).toBeNull()
  })
})

describe('vdi resize', () => {
  it('grows', async () => {
    await dog.create('grow', 4 * MIB)
    await dog.write('grow', 0, pattern(21, 4 * MIB))
    await dog.resize('grow', 64 * MIB)
    expect((await dog.inode('grow')).sizeBytes).toBe(64 * MIB)
    await dog.write('grow', 60 * MIB, pattern(22, 4 * MIB))
    expect(firstDifference(await dog.read('grow', 60 * MIB, 4 * MIB), pattern(22, 4 * MIB))).toBeNull()
    expect(firstDifference(await dog.read('grow', 0, 4 * MIB), pattern(21, 4 * MIB))).toBeNull()
  })
})

describe('vdi setattr, getattr', () => {
  it('keeps values under keys, each in the object that its hash names', async () => {
    const vid = await dog.create('attrs', MIB)
    const oid = await dog.setAttribute('attrs', 'colour', Buffer.from('brown'))
    const hash = fnv1a(textField('attrs'), textField(''), Buffer.alloc(4), textField('colour'))
    expect(oid).toBe((1n << 61n) | (BigInt(vid) << 32n) | (hash & 0xffff_ffffn))
    expect(firstDifference(await dog.attribute('attrs', 'colour'), Buffer.from('brown'))).toBeNull()
    await dog.setAttribute('attrs', 'colour', Buffer.from('black and white'))
    expect(firstDifference(await dog.attribute('attrs', 'colour'), Buffer.from('black and white'))).toBeNull()
    const largest = pattern(23, 65536)
    await dog.setAttribute('attrs', 'all of it', largest)
    expect(firstDifference(await dog.attribute('attrs', 'all of it'), largest)).toBeNull()
    expect(firstDifference(await dog.attribute('attrs', 'colour'), Buffer.from('black and white'))).toBeNull()
  })

  it('tells apart what is there and what is not', async () => {
    await dog.create('choosy', MIB)
    await dog.setAttribute('choosy', 'k', Buffer.from('v'), { exclusive: true })
    expect(await refusal(dog.setAttribute('choosy', 'k', Buffer.from('w'), { exclusive: true }))).toBe(RESULT.VDI_EXIST)
    expect(await refusal(dog.attribute('choosy', 'other'))).toBe(RESULT.NO_OBJ)
    expect(await refusal(dog.attribute('nobody', 'k'))).toBe(RESULT.NO_VDI)
    await dog.deleteAttribute('choosy', 'k')
    expect(await refusal(dog.attribute('choosy', 'k'))).toBe(RESULT.NO_OBJ)
    await dog.setAttribute('choosy', 'left', Buffer.from('behind')) // it goes with the VDI
  })
})

describe('vdi check, object', () => {
  it('hashes what is read: data, and what is inherited', async () => {
    await dog.create('checked', 12 * MIB)
    await dog.write('checked', 0, pattern(24, 8 * MIB))
    await dog.snapshot('checked', 's')
    await dog.write('checked', 100, pattern(25, 100))
    for (const tag of ['', 's']) {
      const inode = await dog.inode('checked', tag)
      const hashes = await dog.check('checked', tag)
      expect(hashes.size).toBe(3)
      hashes.delete(inodeOid(inode.vid)) // how much of an inode is hashed is the server's business
      for (const [oid, hash] of hashes) expect(hash).toBe(sha1(await readRaw(oid, OBJECT_BYTES)))
    }
  })

  it('says which objects are there', async () => {
    const vid = await dog.create('where', 12 * MIB)
    await dog.write('where', 4 * MIB, pattern(26, 4096))
    expect(await dog.locate(inodeOid(vid))).toBe('found')
    expect(await dog.locate(dataOid(vid, 1))).toBe('found')
    expect(await dog.locate(dataOid(vid, 0))).toBe('absent')
    expect(await dog.missingObjects('where')).toEqual([])
    const absent = [dataOid(vid, 2), inodeOid(0xfedcba)]
    expect(await dog.missingObjects('where', absent)).toEqual(absent)
  })
})

describe('vdi lock', () => {
  const lock = (name: string, type = 0) => ({
    opcode: 0x12,
    protoVer: 1,
    body: Buffer.concat([textField(name), textField('')]),
    fields: [[36, 4, type]] as const,
    expected: [RESULT.VDI_LOCKED, RESULT.NO_VDI],
  })

  it('lists who has locked what, and unlocks', async () => {
    const vid = await dog.create('locked', MIB)
    await dog.create('free', MIB)
    expect((await dog.locks()).map(({ lock: state }) => state)).toEqual(['unlocked', 'unlocked'])
    expect(await talk((sheep) => sheep.askForVdi(lock('locked')))).toEqual({ result: RESULT.SUCCESS, vid })
    // The answer names the VDI all the same.
    expect(await talk((sheep) => sheep.askForVdi(lock('locked')))).toEqual({ result: RESULT.VDI_LOCKED, vid })
    expect((await talk((sheep) => sheep.askForVdi(lock('nobody')))).result).toBe(RESULT.NO_VDI)

    for (const room of [1, 512]) {
      const states = await dog.locks(room) // with room for one it has to ask again
      // Upstream names a node as the owner; here it is the host of the client.
      expect(states.find((state) => state.vid === vid)).toEqual({
        ...{ vid, copies: 1, isSnapshot: false, isDeleted: false, copyPolicy: 0, blockSizeShift: 22, parentVid: 0 },
        ...{ lock: 'locked', lockOwner: { host: '127.0.0.1', port: 0 }, participants: [] },
      })
      expect(states).toHaveLength(2)
    }
    await dog.unlock('locked')
    expect((await dog.locks()).map((state) => state.lock)).toEqual(['unlocked', 'unlocked'])
    expect((await talk((sheep) => sheep.askForVdi(lock('locked')))).result).toBe(RESULT.SUCCESS)
    await dog.unlock('locked')
  })

  it('shows snapshots and what they come from', async () => {
    const vid = await dog.create('parent', MIB)
    await dog.snapshot('parent', 's')
    const states = await dog.locks()
    const shown = states.map((state) => ({ vid: state.vid, isSnapshot: state.isSnapshot, parentVid: state.parentVid }))
    expect(shown.sort((a, b) => a.vid - b.vid)).toEqual([
      { vid, isSnapshot: true, parentVid: 0 },
      { vid: vid + 1, isSnapshot: false, parentVid: vid },
    ])
  })
})

describe('node and cluster', () => {
  it('is one node', async () => {
    const [node, ...others] = await dog.nodes()
    const [host, port] = collie.info.addresses.sheep!.split(':') as [string, string]
    expect(others).toEqual([])
    expect({ host: node!.host, port: node!.port }).toEqual({ host, port: Number(port) })
    expect(node!.vnodes).toBeGreaterThan(0)
    const { blocks, bsize } = statfsSync(collie.dataDir)
    const { totalBytes, freeBytes } = await dog.nodeInfo()
    expect(totalBytes).toBeGreaterThan(0)
    expect(totalBytes).toBeLessThanOrEqual(blocks * bsize)
    expect(freeBytes).toBeLessThanOrEqual(totalBytes)
    expect(node!.spaceBytes).toBe(totalBytes)
    const disks = await dog.disks()
    expect(disks).toHaveLength(1)
    expect(disks[0]!.index).toBe(0)
    expect(disks[0]!.path).toMatch(/sheep$/)
    expect(disks[0]!.freeBytes + disks[0]!.usedBytes).toBeLessThanOrEqual(blocks * bsize)
    expect(await dog.isRecovering()).toBe(false)
  })

  it('counts what clients do', async () => {
    const before = await dog.counters()
    await dog.create('counted', MIB)
    await dog.write('counted', 0, pattern(27, 4096))
    const after = await dog.counters()
    expect(after.some((count, i) => count > before[i]!)).toBe(true)
    expect(after.every((count) => count < 1n << 40n)).toBe(true)
  })

  it('lets the level of its log be read and set', async () => {
    const level = await dog.logLevel()
    await dog.setLogLevel(7)
    expect(await dog.logLevel()).toBe(7)
    await dog.setLogLevel(level)
    expect(await dog.logLevel()).toBe(level)
    expect(await refusal(dog.setLogLevel(99))).toBe(RESULT.INVALID_PARMS)
  })

  it('describes a healthy cluster', async () => {
    const info = await dog.clusterInfo()
    expect(info).toMatchObject({ protoVer: 10, copies: 1, copyPolicy: 0, status: 1, blockSizeShift: 22 })
    expect(info.nodes).toEqual(await dog.nodes())
    const [newest] = await dog.epochs()
    expect(newest).toMatchObject({ epoch: info.epoch, ctime: info.ctime, copies: 1, copyPolicy: 0, flags: info.flags })
    expect(newest!.nodes.map(({ host, port }) => ({ host, port }))).toEqual(
      info.nodes.map(({ host, port }) => ({ host, port })),
    )
    expect(newest!.driver).not.toBe('')
    expect(seconds(info.ctime)).toBeGreaterThan(1_600_000_000)
    expect(seconds(info.ctime)).toBeLessThanOrEqual(Math.ceil(Date.now() / 1000))
    expect(info.flags & 0x08).toBe(0x08) // it locks
    expect(await dog.stores()).toContain(info.store)
  })

  it('does not format what holds data', async () => {
    await dog.create('precious', MIB)
    await dog.write('precious', 0, pattern(28, 4096))
    await expect(dog.format('plain', 1)).rejects.toThrow(SheepRefusal)
    expect(firstDifference(await dog.read('precious', 0, 4096), pattern(28, 4096))).toBeNull()
  })

  it('speaks the same over its unix socket', async () => {
    const local = new Dog(`${collie.dataDir}/sock`)
    await local.create('near', 8 * MIB)
    await local.write('near', 4 * MIB, pattern(29, 4096))
    expect(firstDifference(await dog.read('near', 4 * MIB, 4096), pattern(29, 4096))).toBeNull()
  })

  it('refuses a dog of another age', async () => {
    const answer = talk((sheep) => sheep.ask({ opcode: 0x82, protoVer: 9, dataLength: 491_520 }))
    expect(await refusal(answer)).toBe(0x14)
    expect(await refusal(talk((sheep) => sheep.ask({ opcode: 0x6f, dataLength: 512 })))).toBe(RESULT.INVALID_PARMS)
  })
})

describe('what QEMU and tgt send besides', () => {
  it('answers QEMU as much of the inode as it knows', async () => {
    const vid = await dog.create('short', 8 * MIB)
    await dog.write('short', 0, pattern(30, 4096))
    const inode = new Inode(
      await talk((sheep) => sheep.readObject({ oid: inodeOid(vid), protoVer: 0 }, INODE_CLIENT_BYTES)),
    )
    expect(inode.allocated()).toEqual([0])
  })

  it('makes flushes durable or says that there is nothing to do', async () => {
    const vid = await dog.create('flushed', MIB)
    const flush = { opcode: 0x16, protoVer: 0, flags: FLAG.CACHE, fields: [[16, 8, inodeOid(vid)]] as const }
    const { result } = await talk((sheep) => sheep.ask({ ...flush, expected: [RESULT.INVALID_PARMS] }))
    expect(result).toBe(RESULT.SUCCESS) // INVALID_PARMS would make QEMU stop sending flushes
  })

  it('names the defaults of the cluster', async () => {
    const { header } = await talk((sheep) => sheep.ask({ opcode: 0x18, protoVer: 1 }))
    expect([header.readUInt8(20), header.readUInt8(21), header.readUInt8(22)]).toEqual([1, 0, 22])
  })
})

/** Two names with the same first vid: by the birthday paradox there is a pair among some thousands. */
function collidingNames(): [string, string] {
  const seen = new Map<number, string>()
  for (let i = 0; ; i++) {
    const name = `n${i}`
    const vid = firstVidOf(name)
    const other = seen.get(vid)
    if (other !== undefined) return [other, name]
    seen.set(vid, name)
  }
}
