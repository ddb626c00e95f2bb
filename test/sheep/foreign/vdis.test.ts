import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { vidOfName } from '../../../src/protocol/hash.ts'
import { LiveSheep } from '../../tools/live-sheep.ts'
import {
  createObj,
  DOG,
  dataOid,
  Foreign,
  inodeOid,
  MIB,
  NO_OBJ,
  NO_SUPPORT,
  NO_TAG,
  NO_VDI,
  OBJECT,
  QEMU,
  READONLY,
  SUCCESS,
  TGT_VER,
  VDI_LOCKED,
  VDI_NOT_EMPTY,
  VDI_NOT_LOCKED,
  vidOf,
  vmstateOid,
  WRITE,
  writeObj,
} from './frames.ts'

let live: LiveSheep
let qemu: Foreign
let dog: Foreign
let names = 0
let name: string
let vid: number

beforeAll(async () => {
  live = await LiveSheep.start()
  qemu = await Foreign.connect(live.address, QEMU)
  dog = await Foreign.connect(live.address, DOG)
})
afterAll(async () => {
  qemu.connection.close()
  dog.connection.close()
  await live.stop()
})
beforeEach(async () => {
  name = `vdi-${++names}`
  vid = await qemu.made(name, 8 * OBJECT)
})

const byteAt = async (client: Foreign, of: number, index: number) =>
  (await client.readObj(dataOid(of, index), 0, 1)).body[0]

/** A snapshot as `dog` takes it: the tag, then NEW_VDI. */
async function snapshotOf(from: number, tag: string): Promise<number> {
  await dog.write(inodeOid(from), 256, Buffer.concat([Buffer.from(tag)], 256))
  return dog.made(name, 0, { base: from, snapId: 1 })
}

async function connected<T>(protoVer: number, use: (client: Foreign) => Promise<T>): Promise<T> {
  const client = await Foreign.connect(live.address, protoVer)
  try {
    return await use(client)
  } finally {
    client.connection.close()
  }
}

describe('a snapshot under an open writer', () => {
  it('is READONLY from then on, and holds all that was answered before', async () => {
    await qemu.allocate(vid, 0, 1)
    const batch = Array.from({ length: 30 }, (_, i) =>
      i % 2 === 0
        ? writeObj(dataOid(vid, 0), 4096 * i, Buffer.alloc(4096, 2))
        : createObj(dataOid(vid, 1 + (i % 3)), 4096 * i, Buffer.alloc(4096, 3)),
    )
    const [answers, working] = await Promise.all([qemu.sendAll(batch), snapshotOf(vid, 'live')])
    const results = answers.map(({ result }) => result)
    expect(new Set([...results, SUCCESS, READONLY])).toEqual(new Set([SUCCESS, READONLY]))
    for (const [i, { result }] of answers.entries()) {
      const oid = i % 2 === 0 ? dataOid(vid, 0) : dataOid(vid, 1 + (i % 3))
      const held = (await qemu.readObj(oid, 4096 * i, 1)).body[0] ?? 0
      expect([i, held >= 2]).toEqual([i, result === SUCCESS])
    }

    expect(await qemu.write(dataOid(vid, 0), 0, Buffer.alloc(512, 4))).toBe(READONLY)
    expect(await qemu.create(dataOid(vid, 7), 0, Buffer.alloc(512, 4))).toBe(READONLY)
    // As QEMU goes on: by name, with the entries that it has in memory.
    expect(vidOf(await qemu.info(name))).toBe(working)
    expect(await qemu.setEntries(working, 0, vid)).toBe(SUCCESS)
    expect(await qemu.create(dataOid(working, 0), 0, Buffer.alloc(4096, 5))).toBe(SUCCESS)
    expect([await byteAt(qemu, vid, 0), await byteAt(qemu, working, 0)]).not.toEqual([5, 5])
  })
})

describe('going back to a snapshot', () => {
  it('as QEMU does: delete while it is locked and open, then make it anew', async () => {
    await snapshotOf(vid, 'one')
    const io = await Foreign.connect(live.address, QEMU)
    const working = await connected(QEMU, async (control) => vidOf(await control.lock(name)))
    await io.allocate(working, 0, 7)
    const rolled = await connected(QEMU, async (control) => {
      expect((await control.remove(name)).result).toBe(SUCCESS)
      return control.made(name, 8 * OBJECT, { base: vid })
    })
    expect(vidOf(await qemu.info(name))).toBe(rolled)
    expect(vidOf(await qemu.info(name, 'one'))).toBe(vid)
    expect(await io.entries(rolled, 0, 1)).toEqual([0])
    await io.allocate(rolled, 1, 8)
    expect(await connected(QEMU, (control) => control.release(rolled))).toBe(SUCCESS)
    expect(live.sheep.state.locks.has(name)).toBe(false)
    io.connection.close()
    await live.sheep.reclaimed()
    expect([...live.sheep.state.vdis.values()].filter((vdi) => vdi.name === name)).toHaveLength(2)
    expect((await live.sheep.audit()).problems).toEqual([])
  })

  it('when the delete had failed: what it held becomes a snapshot too', async () => {
    await qemu.allocate(vid, 0, 1)
    const working = await snapshotOf(vid, 'one')
    await qemu.allocate(working, 0, 2)
    const rolled = await qemu.made(name, 8 * OBJECT, { base: vid, snapId: 1 })
    expect(vidOf(await qemu.info(name))).toBe(rolled)
    expect(await qemu.entries(rolled, 0, 1)).toEqual([vid])
    const left = live.sheep.state.vdis.snapshotsOf(name).map((vdi) => vdi.vid)
    expect(left.sort()).toEqual([vid, working].sort())
    expect(await byteAt(qemu, working, 0)).toBe(2)
  })

  it('is not done by a neighbour of the holder, who has opened the snapshot and writes to it', async () => {
    const working = await snapshotOf(vid, 'one')
    await connected(QEMU, async (machine) => {
      expect((await machine.lock(name)).result).toBe(SUCCESS)
      await machine.allocate(working, 0, 1)
      await connected(QEMU, async (neighbour) => {
        expect(vidOf(await connected(QEMU, (control) => control.lock(name, { tag: 'one' })))).toBe(vid)
        expect((await neighbour.readObj(dataOid(vid, 0), 0, 512)).result).toBe(NO_OBJ)
        expect(await neighbour.create(dataOid(vid, 0), 0, Buffer.alloc(512, 2))).toBe(READONLY)
        expect((await connected(QEMU, (control) => control.remove(name))).result).toBe(VDI_LOCKED)
        const rebase = connected(QEMU, (control) => control.newVdi(name, 8 * OBJECT, { base: vid, snapId: 1 }))
        expect((await rebase).result).toBe(READONLY)
      })
      expect(await machine.write(dataOid(working, 0), 512, Buffer.alloc(512, 3))).toBe(SUCCESS)
      expect(await byteAt(machine, working, 0)).toBe(1)
      // The neighbour is gone, and the holder goes back by itself.
      await expect.poll(async () => (await connected(QEMU, (control) => control.remove(name))).result).toBe(SUCCESS)
      const back = await connected(QEMU, (control) => control.made(name, 8 * OBJECT, { base: vid }))
      expect(await machine.release(back)).toBe(SUCCESS)
    })
  })

  it('is not done by a late snapshot of `dog`', async () => {
    const working = await snapshotOf(vid, 'one')
    expect((await dog.newVdi(name, 0, { base: vid, snapId: 1 })).result).toBe(READONLY)
    expect(vidOf(await dog.info(name))).toBe(working)
  })

  it('as `dog` does: zeros over the map, delete, clone', async () => {
    await dog.allocate(vid, 0, 1)
    const working = await snapshotOf(vid, 'one')
    await dog.allocate(working, 0, 2)
    await dog.allocate(working, 1, 2)
    expect(await dog.setEntries(working, 0, 0, 0)).toBe(SUCCESS)
    expect((await dog.remove(name)).result).toBe(SUCCESS)
    const rolled = await dog.made(name, 8 * OBJECT, { base: vid })
    expect(await dog.entries(rolled, 0, 2)).toEqual([vid, 0])
    expect(live.sheep.state.get(rolled).snapId).toBe(2)
  })
})

describe('NEW_VDI', () => {
  it('takes the copies that there are, and refuses others, erasure coding and hyper volumes', async () => {
    expect((await dog.newVdi(`${name}-1`, MIB, { copies: 1 })).result).toBe(SUCCESS)
    expect((await dog.newVdi(`${name}-2`, MIB, { copies: 3 })).result).toBe(NO_SUPPORT)
    for (const field of [29, 30]) {
      const fields = [
        [16, 8, MIB],
        [field, 1, 1],
      ] as const // prettier: one a line
      const body = Buffer.concat([Buffer.from(`${name}-3`)], 256)
      expect((await dog.send({ opcode: 0x11, flags: WRITE, body, fields })).result).toBe(NO_SUPPORT)
    }
  })

  it('keeps what a lookup may find apart: no VDI, no such snapshot', async () => {
    expect((await dog.info(name, 'none')).result).toBe(NO_TAG)
    expect((await dog.info('nothing', 'none')).result).toBe(NO_VDI)
    await snapshotOf(vid, 'one')
    expect((await dog.remove(name)).result).toBe(SUCCESS)
    expect((await dog.info(name)).result).toBe(NO_VDI)
    expect(vidOf(await dog.info(name, 'one'))).toBe(vid)
    expect((await dog.remove(name, 'one')).result).toBe(SUCCESS)
    expect((await dog.info(name, 'one')).result).toBe(NO_VDI)
  })
})

describe('READ_VDIS', () => {
  const bitmap = async (opcode: number) => (await dog.send({ opcode, dataLength: 2 * MIB })).body
  const bit = (bits: Buffer, at: number) => (bits[at >>> 3]! >>> (at & 7)) & 1

  it('leaves no gap between the hash of a name and its last VDI', async () => {
    const first = vidOfName(name)
    let working = vid
    for (let i = 0; i < 5; i++) working = await snapshotOf(working, `tag-${i}`)
    for (const tag of ['tag-1', 'tag-3']) await dog.remove(name, tag)
    await live.sheep.reclaimed()
    const [used, deleted] = [await bitmap(0x15), await bitmap(0xc9)]
    const run = Array.from({ length: 6 }, (_, i) => [bit(used, first + i), bit(deleted, first + i)])
    expect(run).toEqual([[1, 0], [1, 1], [1, 0], [1, 1], [1, 0], [1, 0]]) // biome-ignore format: one VDI each
    expect((await dog.readObj(inodeOid(first + 1), 0, 4672)).body).toEqual(Buffer.alloc(4672))
    expect([bit(used, first + 6), bit(used, first - 1)]).toEqual([0, 0])
  })
})

describe('a lock', () => {
  const state = async (of: number) => {
    const { body } = await dog.send({ opcode: 0xab, dataLength: 1428 * live.sheep.state.vdis.size })
    for (let at = 0; at < body.length; at += 1428) if (body.readUInt32LE(at) === of) return body.readUInt32LE(at + 16)
    return null
  }

  it('of QEMU is for one', async () => {
    expect(await state(vid)).toBe(1)
    expect(vidOf(await qemu.lock(name))).toBe(vid)
    expect(await state(vid)).toBe(2)
    const refused = await connected(QEMU, (other) => other.lock(name))
    expect([refused.result, vidOf(refused)]).toEqual([VDI_LOCKED, vid])
    expect((await connected(TGT_VER, (tgt) => tgt.lock(name, { shared: true }))).result).toBe(VDI_LOCKED)
    expect(await qemu.release(vid)).toBe(SUCCESS)
    expect(await state(vid)).toBe(1)
    expect(await qemu.release(0xabcdef)).toBe(VDI_NOT_LOCKED)
  })

  it('of tgt is shared in name, but for one through this node: two would not see what the other allocates', async () => {
    await connected(TGT_VER, async (tgt) => {
      expect((await tgt.lock(name, { shared: true })).result).toBe(SUCCESS)
      expect(await state(vid)).toBe(3)
      expect((await tgt.lock(name, { shared: true })).result).toBe(VDI_LOCKED)
      expect((await connected(TGT_VER, (other) => other.lock(name, { shared: true }))).result).toBe(VDI_LOCKED)
      expect((await qemu.lock(name)).result).toBe(VDI_LOCKED)
      expect(await state(vid)).toBe(3)
      expect(await tgt.release(vid, { shared: true })).toBe(SUCCESS)
      expect(await state(vid)).toBe(1)
      expect((await tgt.lock(name, { shared: true })).result).toBe(SUCCESS)
      expect(await tgt.release(vid, { shared: true })).toBe(SUCCESS)
    })
  })

  it('of tgt is asked for again when a snapshot was taken, by any of its connections', async () => {
    await connected(TGT_VER, async (tgt) => {
      expect((await tgt.lock(name, { shared: true })).result).toBe(SUCCESS)
      await tgt.allocate(vid, 0, 1)
      const working = await snapshotOf(vid, 'one')
      await connected(TGT_VER, async (worker) => {
        for (const each of [tgt, worker]) {
          expect(await each.create(dataOid(vid, 1), 0, Buffer.alloc(512, 2))).toBe(READONLY)
          expect(vidOf(await each.lock(name, { shared: true }))).toBe(working)
          expect(await each.create(dataOid(working, 1), 0, Buffer.alloc(512, 2))).toBe(SUCCESS)
        }
        expect((await connected(TGT_VER, (other) => other.lock(name, { shared: true }))).result).toBe(VDI_LOCKED)
        expect(await worker.release(working, { shared: true })).toBe(SUCCESS)
      })
      expect(await state(working)).toBe(1)
    })
  })

  it('keeps others from writing and deleting, but not from reading and from snapshots', async () => {
    await qemu.lock(name)
    await qemu.allocate(vid, 0, 1)
    expect(await dog.write(dataOid(vid, 0), 0, Buffer.alloc(512, 2))).toBe(VDI_LOCKED)
    expect(await dog.setEntries(vid, 0, 0)).toBe(VDI_LOCKED)
    expect(await dog.create(vmstateOid(vid, 0), 0, Buffer.alloc(512))).toBe(VDI_LOCKED)
    expect((await dog.remove(name)).result).toBe(VDI_LOCKED)
    expect(await byteAt(dog, vid, 0)).toBe(1)
    const working = await snapshotOf(vid, 'one')
    expect(await state(working)).toBe(2)
    expect(await qemu.create(dataOid(working, 0), 0, Buffer.alloc(512, 3))).toBe(SUCCESS)
    expect(await qemu.release(working)).toBe(SUCCESS)
    expect(await dog.create(dataOid(working, 1), 0, Buffer.alloc(512, 2))).toBe(SUCCESS)
  })

  it('is not on snapshots, which any number may open and close', async () => {
    const working = await snapshotOf(vid, 'one')
    await qemu.lock(name)
    for (let i = 0; i < 2; i++) expect(vidOf(await dog.lock(name, { tag: 'one' }))).toBe(vid)
    for (let i = 0; i < 2; i++) expect(await connected(QEMU, (other) => other.release(vid))).toBe(SUCCESS)
    expect(await state(working)).toBe(2)
    // By the vid that the holder knows, which a snapshot of another has frozen.
    expect(await qemu.release(vid)).toBe(SUCCESS)
    expect(await state(working)).toBe(1)
  })

  it('is broken by `dog vdi lock unlock`, and what the connection that wrote under it sends is refused', async () => {
    const io = await Foreign.connect(live.address, QEMU)
    await connected(QEMU, (control) => control.lock(name))
    await io.allocate(vid, 0, 1)
    expect(await dog.release(vid)).toBe(SUCCESS)
    for (const relock of [false, true]) {
      if (relock) await connected(QEMU, (control) => control.lock(name))
      // Not cut off: QEMU would come back on another connection, as if it were who has the lock now.
      expect(await io.write(dataOid(vid, 0), 0, Buffer.alloc(512, 3))).toBe(VDI_LOCKED)
      expect(await byteAt(dog, vid, 0)).not.toBe(3)
      if (!relock) expect(await dog.write(dataOid(vid, 0), 0, Buffer.alloc(512, 2))).toBe(SUCCESS)
    }
    io.connection.close()
  })

  it('lets its holder come back: the old connection is over before the new one writes', async () => {
    const old = await Foreign.connect(live.address, QEMU)
    await connected(QEMU, (control) => control.lock(name))
    await old.allocate(vid, 0, 1)
    const back = await Foreign.connect(live.address, QEMU)
    expect(await back.write(dataOid(vid, 0), 0, Buffer.alloc(512, 2))).toBe(SUCCESS)
    expect(await old.connection.rest()).toEqual(Buffer.alloc(0))
    expect(await byteAt(back, vid, 0)).toBe(2)
    expect(live.sheep.state.locks.has(name)).toBe(true)
    back.connection.close()
  })

  it('ends who wrote without one', async () => {
    const other = await Foreign.connect(live.address, DOG)
    await other.allocate(vid, 0, 1)
    await qemu.lock(name)
    expect(await other.write(dataOid(vid, 0), 0, Buffer.alloc(512, 2))).toBe(VDI_LOCKED)
    other.connection.close()
    await qemu.release(vid)
  })

  it('is refused while a tool of ours writes, which is refused while it is locked', async () => {
    const session = live.sheep.sessions.openAnonymous(vid, false)
    expect((await qemu.lock(name)).result).toBe(VDI_LOCKED)
    expect((await qemu.remove(name)).result).toBe(VDI_NOT_EMPTY)
    await live.sheep.sessions.close(session.id)
    expect((await qemu.lock(name)).result).toBe(SUCCESS)
    expect(() => live.sheep.sessions.openAnonymous(vid, false)).toThrow(expect.objectContaining({ code: 'VdiLocked' }))
    await expect(
      live.sheep.putExport({ attachmentId: name, nameHash: name.padEnd(64, '0'), vid, readOnly: false }),
    ).rejects.toMatchObject({ code: 'VdiLocked' })
    await qemu.release(vid)
  })

  it('outlives a restart of the node', async () => {
    await qemu.lock(name)
    for (const client of [qemu, dog]) client.connection.close()
    await live.restart()
    qemu = await Foreign.connect(live.address, QEMU)
    dog = await Foreign.connect(live.address, DOG)
    expect((await qemu.lock(name)).result).toBe(VDI_LOCKED)
    expect(await qemu.create(dataOid(vid, 0), 0, Buffer.alloc(512, 1))).toBe(SUCCESS)
    expect(await dog.write(dataOid(vid, 0), 0, Buffer.alloc(512, 1))).toBe(VDI_LOCKED)
    expect(await qemu.release(vid)).toBe(SUCCESS)
  })
})
