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
