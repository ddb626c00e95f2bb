import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { StoreError } from '../../src/errors.ts'
import { RESULT } from '../../src/protocol/constants.ts'
import { VdiClient } from '../../src/vdi/client.ts'
import { hashExportName } from '../../src/vdi/export-name.ts'
import { LiveSheep } from '../tools/live-sheep.ts'

const MIB = 1024 * 1024

const code = async (work: Promise<unknown>): Promise<string> => {
  try {
    await work
    return 'done'
  } catch (error) {
    return error instanceof StoreError ? error.code : String(error)
  }
}

const promised = (work: (done: (error: StoreError | null) => void) => void): Promise<void> =>
  new Promise((resolve, reject) => work((error) => (error ? reject(error) : resolve())))

describe.each(['call', 'dial'] as const)('the VDI client, by %s', (how) => {
  let live: LiveSheep
  let vdis: VdiClient
  let count = 0
  /** A name that no other test has. */
  let name: string

  beforeAll(async () => {
    live = await LiveSheep.start()
    vdis = new VdiClient(live[how]())
  })
  afterAll(async () => {
    vdis.close()
    await live.stop()
  })
  beforeEach(() => {
    name = `vdi-${++count}`
  })

  it('makes, finds, lists and removes VDIs', async () => {
    const vid = await vdis.create(name, 10 * MIB)
    expect(await vdis.lookup(name)).toBe(vid)
    const [info, ...rest] = await vdis.listOf(name)
    expect(rest).toEqual([])
    expect(info).toMatchObject({ vid, name, tag: '', snapId: 1, parentVid: 0, sizeBytes: 10 * MIB, snapshotAt: 0 })
    expect(info!.createdAt).toBeGreaterThan(1.6e12)
    expect((await vdis.list()).map((each) => each.vid)).toContain(vid)
    await vdis.remove(name)
    expect(await vdis.listOf(name)).toEqual([])
    expect((await vdis.list()).map((each) => each.vid)).not.toContain(vid)
  })

  it('rolls a VDI back under an open session, at one moment, and gives back what it held', async () => {
    const vid = await vdis.create(name, 10 * MIB)
    const nameHash = hashExportName(`${name}-export`)
    await vdis.putExport({ attachmentId: name, nameHash, vid, readOnly: false })
    const device = await vdis.openExport(nameHash, false)
    const write = (offset: number, byte: number) =>
      promised((done) => device.write(offset, Buffer.alloc(8192, byte), { fua: false }, done))
    const read = async (offset: number) => {
      const target = Buffer.alloc(8192, 0xee)
      await promised((done) => device.read(offset, target, done))
      return [...new Set(target)]
    }
    await write(0, 1)
    const working = await vdis.snapshot(vid, 'one')
    await write(4096, 2)
    await write(5 * MIB, 3)

    const rolled = await vdis.rollback(name, { tag: 'one' })
    expect(rolled).not.toBe(working)
    expect(await vdis.lookup(name)).toBe(rolled)
    expect([await read(0), await read(8192), await read(5 * MIB)]).toEqual([[1], [0], [0]])
    expect(await vdis.exportsOf(name)).toMatchObject([{ vid: rolled }])
    await write(5 * MIB, 4)
    expect(await read(5 * MIB)).toEqual([4])
    await vdis.rollback(name, { snapId: 1 })
    expect(await read(5 * MIB)).toEqual([0])

    await live.sheep.reclaimed()
    expect([...live.sheep.state.vdis.values()].filter((vdi) => vdi.name === name)).toHaveLength(2)
    expect((await live.sheep.audit()).problems).toEqual([])
    await device.close()
    await vdis.removeExport(name)
  })

  it('rolls back to a snapshot of the same name only', async () => {
    await vdis.create(name, MIB)
    const other = await vdis.create(`${name}-other`, MIB)
    await vdis.snapshot(other, 'one')
    expect(await code(vdis.rollback(name, { tag: 'one' }))).toBe('NoTag')
    expect(await code(vdis.rollback(name, {}))).toBe('NoTag')
    expect(await code(vdis.rollback('nothing', { tag: 'one' }))).toBe('NoVdi')
  })

  it('keeps attributes of a VDI and of its snapshots', async () => {
    const vid = await vdis.create(name, MIB)
    const long = Buffer.alloc(65536, 'x')
    await vdis.setAttribute(name, 'colour', Buffer.from('red'))
    await vdis.setAttribute(name, 'long', long)
    await vdis.setAttribute(name, 'empty', Buffer.alloc(0))
    expect(await code(vdis.setAttribute(name, 'colour', Buffer.from('x'), { exclusive: true }))).toBe('VdiExists')
    await vdis.setAttribute(name, 'colour', Buffer.from('green'))
    await vdis.snapshot(vid, 'one')
    expect((await vdis.getAttribute(name, 'colour')).toString()).toBe('green')
    expect(await vdis.getAttribute(name, 'long')).toEqual(long)
    expect(await vdis.getAttribute(name, 'empty')).toEqual(Buffer.alloc(0))
    expect((await vdis.listAttributes(name)).map(({ key, valueBytes }) => [key, valueBytes])).toEqual([
      ['colour', 5],
      ['long', 65536],
      ['empty', 0],
    ])

    const snapshot = { tag: 'one' }
    expect(await code(vdis.getAttribute(name, 'colour', snapshot))).toBe('NoObject')
    await vdis.setAttribute(name, 'colour', Buffer.from('blue'), { snapshot })
    expect((await vdis.getAttribute(name, 'colour', { snapId: 1 })).toString()).toBe('blue')
    expect(await vdis.listAttributes(name, { snapId: 1 })).toMatchObject([{ key: 'colour', valueBytes: 4 }])

    await vdis.removeAttribute(name, 'long')
    expect(await code(vdis.getAttribute(name, 'long'))).toBe('NoObject')
    expect(await code(vdis.removeAttribute(name, 'long'))).toBe('NoObject')
    expect(await code(vdis.setAttribute(name, 'long', Buffer.alloc(65537)))).toBe('InvalidParameters')
    expect(await code(vdis.setAttribute('nothing', 'colour', Buffer.alloc(1)))).toBe('NoVdi')
    expect((await live.sheep.audit()).problems).toEqual([])
  })

  it('keeps attributes over a restart, and drops them with their VDI', async () => {
    await vdis.create(name, MIB)
    await vdis.setAttribute(name, 'colour', Buffer.from('red'))
    vdis.close()
    await live.restart()
    vdis = new VdiClient(live[how]())
    expect((await vdis.getAttribute(name, 'colour')).toString()).toBe('red')
    const before = (await live.sheep.stats()).objects
    await vdis.remove(name)
    expect((await live.sheep.stats()).objects).toBe(before - 1)
    await vdis.create(name, MIB)
    expect(await vdis.listAttributes(name)).toEqual([])
  })

  it('takes snapshots and clones them', async () => {
    const vid = await vdis.create(name, 10 * MIB)
    const working = await vdis.snapshot(vid, 'one')
    expect(await vdis.lookup(name)).toBe(working)
    expect(await vdis.lookup(name, 'one')).toBe(vid)
    const clone = await vdis.create(`${name}-clone`, MIB, vid)
    expect(await vdis.listOf(`${name}-clone`)).toMatchObject([{ vid: clone, parentVid: vid, sizeBytes: 10 * MIB }])
    await vdis.remove(name, 'one')
    expect(await code(vdis.lookup(name, 'one'))).toBe('NoTag')
  })

  it('rejects with what was thrown at the other end', async () => {
    const vid = await vdis.create(name, 10 * MIB)
    const working = await vdis.snapshot(vid, 'one')
    const device = await vdis.open(working, { readOnly: true })
    expect(await code(vdis.create(name, MIB))).toBe('VdiExists')
    expect(await code(vdis.create('other', MIB, working))).toBe('NoBaseVdi')
    expect(await code(vdis.lookup('nothing'))).toBe('NoVdi')
    expect(await code(vdis.lookup(name, 'two'))).toBe('NoTag')
    expect(await code(vdis.snapshot(vid, 'two'))).toBe('ReadOnly')
    expect(await code(vdis.snapshot(working, 'one'))).toBe('VdiExists')
    expect(await code(vdis.resize(working, MIB))).toBe('InvalidParameters')
    expect(await code(vdis.remove(name))).toBe('VdiInUse')
    expect(await code(vdis.open(0xfffffe, { readOnly: true }))).toBe('NoVdi')
    expect(await code(vdis.openExport('ab'.repeat(32), false))).toBe('NoExport')
    await device.close()
  })

  it('refuses names that their fields would cut', async () => {
    expect(await code(vdis.create('x'.repeat(256), MIB))).toBe('InvalidParameters')
    expect(await code(vdis.lookup(name, 'x'.repeat(256)))).toBe('InvalidParameters')
    expect(await code(vdis.create(`${name}${'ä'.repeat(124)}`, MIB))).toBe('done')
  })

  it('grows a VDI under an open device', async () => {
    const vid = await vdis.create(name, MIB)
    const device = await vdis.open(vid, { readOnly: false })
    await vdis.resize(vid, 2 * MIB)
    await new Promise<void>((resolve, reject) =>
      device.write(2 * MIB - 512, Buffer.alloc(512, 1), { fua: false }, (error) => (error ? reject(error) : resolve())),
    )
    await device.close()
  })

  it('tells the space of the store', async () => {
    const before = await vdis.space()
    expect(before.freeBytes).toBeLessThanOrEqual(before.totalBytes)
    await vdis.create(name, 10 * MIB)
    expect((await vdis.space()).provisionedBytes).toBe(before.provisionedBytes + 10 * MIB)
  })

  it('keeps export rights', async () => {
    const vid = await vdis.create(name, 10 * MIB)
    const record = { attachmentId: name, nameHash: hashExportName(name), vid, readOnly: true }
    expect(await vdis.findExport(record.nameHash)).toBeUndefined()
    await vdis.putExport(record)
    expect(await vdis.findExport(record.nameHash)).toEqual(record)
    expect(await code(vdis.open(vid, { readOnly: false }))).toBe('VdiLocked')
    expect(await code(vdis.remove(name))).toBe('VdiInUse')
    await vdis.removeExport(name)
    await vdis.removeExport(name)
    expect(await vdis.findExport(record.nameHash)).toBeUndefined()
    expect(await code(vdis.remove(name))).toBe('done')
  })
})

describe('the VDI client', () => {
  it('rejects with Disconnected when there is nobody at the other end', async () => {
    const live = await LiveSheep.start()
    const vdis = new VdiClient(live.dial())
    await vdis.create('a', MIB)
    await live.stop()
    expect(await code(vdis.lookup('a'))).toBe('Disconnected')
    expect(await code(vdis.list())).toBe('Disconnected')
  })

  it('asks for more VDIs until there are none', async () => {
    const pages = [[{ vid: 3 }, { vid: 9 }], [{ vid: 12 }], []]
    const asked: (number | undefined)[] = []
    const vdis = new VdiClient({
      submit: ({ opcode, vid }, done) => {
        asked.push(vid)
        done({ opcode, result: RESULT.SUCCESS, body: Buffer.from(JSON.stringify(pages.shift())) })
      },
      close: () => {},
    })
    expect((await vdis.list()).map(({ vid }) => vid)).toEqual([3, 9, 12])
    expect(asked).toEqual([0, 9, 12])
  })
})

describe('hashExportName', () => {
  it('is SHA-256 in hexadecimal', () => {
    expect(hashExportName('abc')).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad')
  })
})
