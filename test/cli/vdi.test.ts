import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { EXIT } from '../../src/cli/command.ts'
import { promised } from '../../src/cli/vdi/streams.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { Interrupted } from '../../src/runtime/process-io.ts'
import { EXPORT_MARK } from '../../src/vdi/export-mark.ts'
import { hashExportName } from '../../src/vdi/export-name.ts'
import { COMMANDS, LiveNode } from './live-node.ts'

/** The commands on VDIs, against a store in this process. */

const MIB = 1024 * 1024
const OBJECT = 4 * MIB

let node: LiveNode
beforeAll(async () => {
  node = await LiveNode.start()
})
afterAll(() => node.stop())

/** Every test leaves the store as it found it, so that none depends on another. */
afterEach(async () => {
  const vdis = await node.vdis.list()
  for (const name of new Set(vdis.map((vdi) => vdi.name))) {
    for (const { attachmentId } of await node.vdis.exportsOf(name).catch(() => [])) {
      await node.vdis.removeExport(attachmentId)
    }
    expect(await node.run(['vdi', 'delete', name, '--with-snapshots'])).toMatchObject({ code: 0, err: '' })
  }
})

const run = (...words: string[]) => node.run(words)

/** The command must succeed. */
async function ok(...words: string[]): Promise<string> {
  const { code, out, err } = await node.run(words)
  expect({ code, err }, words.join(' ')).toEqual({ code: 0, err: '' })
  return out
}

async function write(name: string, offset: string, bytes: Buffer): Promise<void> {
  expect(await node.run(['vdi', 'write', name, offset], { input: [bytes] })).toMatchObject({ code: 0, err: '' })
}

async function read(...words: string[]): Promise<Buffer> {
  const { code, bytes, err } = await node.run(['vdi', 'read', ...words])
  expect({ code, err }).toEqual({ code: 0, err: '' })
  return bytes
}

const attach = (name: string, attachmentId: string) =>
  node.vdis
    .lookup(name)
    .then((vid) => node.vdis.putExport({ attachmentId, nameHash: hashExportName(attachmentId), vid, readOnly: false }))

interface Listed {
  name: string
  tag: string
  vid: number
  snap_id: number
  is_snapshot: boolean
  size_bytes: number
  parent_vid: number
  allocated_bytes: number
  unique_bytes: number
  shared_bytes: number
  is_exact: boolean
  is_for_export: boolean
  created_at: string
  snapshot_at: string | null
  attachments: number
}

describe('a VDI', () => {
  it('is created thin, of whole sectors, listed, made larger, and deleted', async () => {
    expect(await ok('vdi', 'create', 'disk', '10G')).toBe('Created "disk", 10.0 GiB.')
    await ok('vdi', 'create', 'odd', '--size', '1000')
    const listed = await node.json<Listed[]>('vdi', 'list')
    expect(listed).toMatchObject([
      { name: 'disk', tag: '', is_snapshot: false, size_bytes: 10 * 2 ** 30, parent_vid: 0, attachments: 0 },
      { name: 'odd', size_bytes: 1024 },
    ])
    const [head, first] = (await ok('vdi', 'list')).split('\n')
    expect(head).toMatch(/^NAME +TAG +ID +VID +SIZE .*COPIES +STATE +PARENT +CREATED$/)
    expect(first).toMatch(/^disk +1 +[0-9a-f]{6} +10\.0 GiB .*1 +working +\d{4}-/)
    expect(await ok('vdi', 'resize', 'disk', '1.5T')).toBe('"disk" has 1.5 TiB now.')
    expect(await ok('vdi', 'delete', 'disk')).toBe('Deleted "disk".')
    expect((await node.json<Listed[]>('vdi', 'list')).map(({ name }) => name)).toEqual(['odd'])
  })

  it('has as many copies as there are nodes at most', async () => {
    await ok('vdi', 'create', 'one', '1M', '--with-copies', '1', '--at-least', '1')
    expect((await node.vdis.listOf('one'))[0]).toMatchObject({ copies: 1, copiesMin: 1 })
    const refused = await run('vdi', 'create', 'two', '1M', '--with-copies', '2')
    expect(refused.err).toContain('not supported')
    expect(await node.vdis.listOf('two')).toEqual([])
  })

  it('is quoted for the shell in the commands that messages advise', async () => {
    const name = "Bob's disk"
    await ok('vdi', 'create', name, '1M')
    expect((await run('vdi', 'create', name, '1M')).err).toMatch(/delete it first: collie vdi delete 'Bob'\\''s disk'$/)
  })

  it('whose name looks like an option is named behind `--`, in messages too', async () => {
    expect((await run('vdi', 'create', '-disk', '1M')).err).toMatch(/there is no option -d; a name .* goes behind `--`/)
    await ok('vdi', 'create', '--', '-disk', '1M')
    expect((await run('vdi', 'create', '--', '-disk', '1M')).err).toMatch(/collie vdi delete -- -disk$/)
    await ok('vdi', 'snapshot', '-t', 'daily', '--', '-disk')
    const refused = await run('vdi', 'rollback', '-s', 'daily', '--', '-disk')
    expect(refused.err).toMatch(/collie vdi snapshot --tag TAG -- -disk$/)
    await ok('vdi', 'delete', '--with-snapshots', '--', '-disk')
    expect(await node.vdis.list()).toEqual([])
  })

  it('cannot command a terminal by its name, nor break a line', async () => {
    const name = 'red\u001b[31m\u009b\nnext'
    expect(await ok('vdi', 'create', name, '1M')).toBe('Created "red\\x1b[31m\\x9b\nnext", 1.0 MiB.')
    expect((await ok('vdi', 'list')).split('\n')[1]).toMatch(/^red\\x1b\[31m\\x9b\\nnext +1 /)
    expect(await ok('vdi', 'tree')).toBe('red\\x1b[31m\\x9b\\nnext  1.0 MiB  (current)')
    expect((await run('vdi', 'create', name, '1M')).err).not.toContain('\u001b')
    expect((await node.json<Listed[]>('vdi', 'list'))[0]!.name).toBe(name)
  })

  it('is found by patterns', async () => {
    for (const name of ['web-1', 'web-2', 'db']) await ok('vdi', 'create', name, '1M')
    const names = async (...patterns: string[]) =>
      (await node.json<Listed[]>('vdi', 'list', ...patterns)).map(({ name }) => name)
    expect(await names('web-*')).toEqual(['web-1', 'web-2'])
    expect(await names('w?b-2', 'db')).toEqual(['db', 'web-2'])
    expect(await names('nothing*')).toEqual([])
  })

  it('has all its space from the start when it is preallocated', async () => {
    await ok('vdi', 'create', 'full', '9M', '--preallocate')
    const objects = await node.json<{ index: number; allocated_bytes: number }[]>('vdi', 'object', 'map', 'full')
    expect(objects.map(({ index, allocated_bytes }) => [index, allocated_bytes])).toEqual([
      [0, OBJECT],
      [1, OBJECT],
      [2, MIB],
    ])
    const huge = await run('vdi', 'create', 'huge', '4T', '-P')
    expect(huge.code).toBe(EXIT.CANNOT_CREATE)
    expect(huge.err).toMatch(/"huge" is not complete, and was deleted.*4\.0 TiB do not fit/s)
    expect(await node.vdis.listOf('huge')).toEqual([])
  })

  it('is deleted with its snapshots, or without them', async () => {
    await ok('vdi', 'create', 'disk', '8M')
    for (const tag of ['a', 'b', 'c']) await ok('vdi', 'snapshot', 'disk', '--tag', tag)
    expect(await ok('vdi', 'delete', 'disk', '-s', 'b')).toBe('Deleted "disk@b".')
    expect(await ok('vdi', 'delete', 'disk', '--snapshot', '1')).toBe('Deleted "disk@a".')
    await ok('vdi', 'delete', 'disk')
    const left = await run('vdi', 'delete', 'disk')
    expect(left.code).toBe(EXIT.NO_INPUT)
    expect(left.err).toContain('has only snapshots: c')
    expect(await ok('vdi', 'delete', 'disk', '--with-snapshots')).toBe('Deleted "disk@c".')
    expect(await node.vdis.list()).toEqual([])
  })

  it('says what is gone when it could not be deleted with all its snapshots', async () => {
    await ok('vdi', 'create', 'disk', '8M')
    for (const tag of ['a', 'b', 'c']) await ok('vdi', 'snapshot', 'disk', '--tag', tag)
    const [, b] = await node.vdis.listOf('disk').then((all) => all.sort((x, y) => x.snapId - y.snapId))
    const device = await node.vdis.open(b!.vid, { readOnly: true })
    const { code, out, err } = await run('vdi', 'delete', 'disk', '--with-snapshots')
    expect({ code, out }).toEqual({ code: EXIT.TRY_LATER, out: '' })
    expect(err).toMatch(/deleted are "disk", "disk@c", the rest is still there\n.*"disk@b" is in use/s)
    expect((await node.vdis.listOf('disk')).map(({ tag }) => tag).sort()).toEqual(['a', 'b'])
    await device.close()
  })

  it('is not deleted by the number of a snapshot that has no tag, but that snapshot is', async () => {
    await ok('vdi', 'create', 'disk', '8M')
    await node.vdis.snapshot(await node.vdis.lookup('disk'), '')
    expect(await ok('vdi', 'delete', 'disk', '--snapshot', '1')).toBe('Deleted "disk@#1".')
    expect(await node.vdis.listOf('disk')).toMatchObject([{ name: 'disk', snapshotAt: 0 }])
  })

  it('is not deleted while it is attached or open, and the message says which', async () => {
    await ok('vdi', 'create', 'disk', '8M')
    await attach('disk', 'attachment-1')
    const attached = await run('vdi', 'delete', 'disk')
    expect(attached.code).toBe(EXIT.TRY_LATER)
    expect(attached.err).toContain('attached as attachment-1')
    expect(await ok('vdi', 'list', 'disk')).toMatch(/working, attached/)
    const written = await node.run(['vdi', 'write', 'disk'], { input: [Buffer.alloc(1)] })
    expect(written.code).toBe(EXIT.TRY_LATER)
    expect(written.err).toContain('attached as attachment-1')
    await node.vdis.removeExport('attachment-1')

    const device = await node.vdis.open(await node.vdis.lookup('disk'), { readOnly: true })
    expect(await ok('vdi', 'list', 'disk')).toMatch(/working, open/)
    const open = await run('vdi', 'delete', 'disk')
    expect(open.code).toBe(EXIT.TRY_LATER)
    expect(open.err).toContain('a client has it open')
    await device.close()
  })
})

describe('snapshots and clones', () => {
  it('keep what was there, and show as a tree', async () => {
    await ok('vdi', 'create', 'disk', '8M')
    await write('disk', '0', Buffer.from('one'))
    expect(await ok('vdi', 'snapshot', 'disk', '--tag', 'first')).toBe('Took "disk@first", snapshot 1 of "disk".')
    await write('disk', '0', Buffer.from('two'))
    await ok('vdi', 'snapshot', 'disk', '-t', 'second')
    await ok('vdi', 'clone', 'disk', '--snapshot', 'first', '--to', 'copy')
    await ok('vdi', 'clone', 'disk', '-s', '2', '--to', 'large', '--size', '16M')
    await write('disk', '0', Buffer.from('new'))

    expect((await read('disk', '0', '3')).toString()).toBe('new')
    expect((await read('disk', '0', '3', '--snapshot', 'first')).toString()).toBe('one')
    expect((await read('copy', '0', '3')).toString()).toBe('one')
    expect((await read('large', '0', '3')).toString()).toBe('two')
    expect(await read('large')).toHaveLength(16 * MIB)

    const tree = (await ok('vdi', 'tree')).replace(/ {2}\d{4}-\S+/g, '')
    expect(tree.split('\n')).toEqual([
      'disk #1 first  8.0 MiB',
      '├─ copy  8.0 MiB  (current)',
      'disk #2 second  8.0 MiB',
      '├─ large  16.0 MiB  (current)',
      'disk  8.0 MiB  (current)',
    ])
    const [root] = await node.json<TreeNode[]>('vdi', 'tree', 'copy')
    expect(outline(root!)).toEqual(['disk@first', ['copy*'], ['disk@second', ['disk*'], ['large*']]])
  })

  interface TreeNode {
    name: string
    tag: string
    current: boolean
    children: TreeNode[]
  }
  type Outline = [string, ...Outline[]]
  function outline({ name, tag, current, children }: TreeNode): Outline {
    const label = current ? `${name}*` : `${name}@${tag}`
    return [label, ...children.map(outline).sort((a, b) => (a[0] < b[0] ? -1 : 1))]
  }

  it('are listed with when they were taken', async () => {
    await ok('vdi', 'create', 'disk', '8M')
    await ok('vdi', 'snapshot', 'disk', '--tag', 'daily')
    const [snapshot, working] = await node.json<Listed[]>('vdi', 'list')
    expect(Date.parse(snapshot!.snapshot_at!)).toBeGreaterThanOrEqual(Date.parse(snapshot!.created_at))
    expect(snapshot!.snapshot_at).toBe(working!.created_at)
    expect(working!.snapshot_at).toBeNull()
    const [, first, second] = (await ok('vdi', 'list')).split('\n')
    expect(first!.endsWith(snapshot!.snapshot_at!)).toBe(true)
    expect(second!.endsWith(working!.created_at)).toBe(true)
  })

  it('are listed with what they hold, alone and together, and so is the store', async () => {
    await ok('vdi', 'create', 'disk', '16M')
    await write('disk', '0', randomBytes(3 * MIB))
    await ok('vdi', 'snapshot', 'disk', '--tag', 'daily')
    await write('disk', '0', randomBytes(MIB))
    const sizes = ({ allocated_bytes, unique_bytes, shared_bytes }: Listed) => [
      allocated_bytes / MIB,
      unique_bytes / MIB,
      shared_bytes / MIB,
    ]
    const listed = await node.json<Listed[]>('vdi', 'list')
    expect(listed.map(sizes)).toEqual([
      [3, 1, 2],
      [3, 1, 2],
    ])
    expect(listed.map(({ is_exact }) => is_exact)).toEqual([true, true])
    const [head, first, second] = (await ok('vdi', 'list')).split('\n')
    expect(head).toMatch(/ SIZE +ALLOCATED +UNIQUE +SHARED +COPIES /)
    expect(first).toMatch(/ 16\.0 MiB +3\.0 MiB +1\.0 MiB +2\.0 MiB +1 +snapshot /)
    expect(second).toMatch(/ 16\.0 MiB +3\.0 MiB +1\.0 MiB +2\.0 MiB +1 +working /)

    const info = await node.json<{ provisioned_bytes: number; allocated_bytes: number }>('cluster', 'info')
    expect(info).toMatchObject({ provisioned_bytes: 16 * MIB, allocated_bytes: 4 * MIB })
    expect(await ok('cluster', 'info')).toMatch(/^provisioned +16\.0 MiB\nallocated +4\.0 MiB$/m)
  })

  it('are listed with what they come from', async () => {
    await ok('vdi', 'create', 'disk', '8M')
    await ok('vdi', 'snapshot', 'disk', '--tag', 'daily')
    await ok('vdi', 'clone', 'disk', '-s', 'daily', '--to', 'copy')
    const lines = (await ok('vdi', 'list')).split('\n')
    expect(lines[1]).toMatch(/^copy .* working +disk@daily /)
    expect(lines[2]).toMatch(/^disk +daily +1 .* snapshot /)
    expect(lines[3]).toMatch(/^disk +2 .* working +disk@daily /)
    await ok('vdi', 'delete', 'disk', '-s', 'daily')
    // What it came from is gone, at the latest when nothing is left of that to be reclaimed.
    expect(await ok('vdi', 'list', 'copy')).not.toContain('disk@daily')
  })

  it('shares objects, and the map says whose they are', async () => {
    await ok('vdi', 'create', 'disk', '16M')
    await write('disk', '5M', randomBytes(8192))
    await ok('vdi', 'snapshot', 'disk', '--tag', 'daily')
    const [snapshot] = (await node.vdis.listOf('disk')).filter(({ tag }) => tag === 'daily')
    type Listing = { index: number; oid: string; vid: number; allocated_bytes: number; inherited_bytes: number }[]
    const map = () => node.json<Listing>('vdi', 'object', 'map', 'disk')
    expect(await map()).toMatchObject([{ index: 1, vid: snapshot!.vid, allocated_bytes: 8192, inherited_bytes: 0 }])
    await write('disk', '5M', randomBytes(4096))
    const vid = await node.vdis.lookup('disk')
    expect(await map()).toMatchObject([{ index: 1, vid, allocated_bytes: 4096, inherited_bytes: 4096 }])

    const at = await node.json<{ oid: string; nodes: string[] }>('vdi', 'object', 'location', 'disk', '--offset', '5M')
    expect(at).toMatchObject({ index: 1, vid, oid: (await map())[0]!.oid, nodes: [expect.stringContaining(':')] })
    expect(await ok('vdi', 'object', 'location', 'disk', '-i', '3')).toContain('reads as zeros')
    expect((await run('vdi', 'object', 'location', 'disk', '-i', '4')).err).toContain(
      '--index: "disk" ends with object 3',
    )
  })
})

describe('the object map', () => {
  it('is told whole, however many objects there are', async () => {
    const count = 1030 // more than one answer holds, and than one page of the map
    const vid = await node.vdis.create('wide', 2 * count * OBJECT)
    const device = await node.vdis.open(vid, { readOnly: false })
    const indexes = Array.from({ length: count }, (_, i) => i * 2 + 1)
    const block = Buffer.alloc(4096, 1)
    await Promise.all(indexes.map((i) => promised((done) => device.write(i * OBJECT, block, { fua: false }, done))))
    await device.close()
    const objects = await node.json<{ index: number; allocated_bytes: number }[]>('vdi', 'object', 'map', 'wide')
    expect(objects.map(({ index }) => index)).toEqual(indexes)
    expect(new Set(objects.map((object) => object.allocated_bytes))).toEqual(new Set([4096]))
    const absent = await node.json<{ oid: string | null }>('vdi', 'object', 'location', 'wide', '--index', '1024')
    expect(absent.oid).toBeNull()
  })
})

describe('a rollback', () => {
  it('brings back what a snapshot holds, when it is forced', async () => {
    await ok('vdi', 'create', 'disk', '8M')
    await write('disk', '0', Buffer.from('then'))
    await ok('vdi', 'snapshot', 'disk', '-t', 'daily')
    await write('disk', '0', Buffer.from('now!'))
    const refused = await run('vdi', 'rollback', 'disk', '-s', 'daily')
    expect(refused.code).toBe(EXIT.USAGE)
    expect(refused.err).toMatch(/--force: what was written to "disk" since "disk@daily" would be lost/)
    expect((await read('disk', '0', '4')).toString()).toBe('now!')
    expect(await ok('vdi', 'rollback', 'disk', '--snapshot', '1', '--force')).toBe(
      '"disk" holds what "disk@daily" does.',
    )
    expect((await read('disk', '0', '4')).toString()).toBe('then')
  })
})

describe('attributes', () => {
  it('are set, printed as they are, listed and deleted, of a VDI and of its snapshots', async () => {
    await ok('vdi', 'create', 'disk', '1M')
    await ok('vdi', 'snapshot', 'disk', '-t', 'daily')
    expect(await ok('vdi', 'attr', 'set', 'disk', 'colour', 'red')).toBe('Set "colour" of "disk".')
    const bytes = randomBytes(65536)
    expect(await node.run(['vdi', 'attr', 'set', 'disk', 'bytes'], { input: [bytes] })).toMatchObject({ code: 0 })
    await ok('vdi', 'attr', 'set', 'disk', 'colour', 'blue', '-s', 'daily')
    expect((await run('vdi', 'attr', 'get', 'disk', 'bytes')).bytes.equals(bytes)).toBe(true)
    expect((await run('vdi', 'attr', 'get', 'disk', 'colour', '-s', '1')).bytes.toString()).toBe('blue')
    expect(await node.json('vdi', 'attr', 'get', 'disk', 'colour')).toMatchObject({
      key: 'colour',
      value: 'red',
      value_base64: Buffer.from('red').toString('base64'),
    })
    expect(await node.json('vdi', 'attr', 'list', 'disk')).toMatchObject([
      { key: 'bytes', value_bytes: 65536 },
      { key: 'colour', value_bytes: 3 },
    ])
    expect(await ok('vdi', 'attr', 'list', 'disk')).toMatch(/^KEY +BYTES +CREATED\nbytes +65536 +\d{4}-.*\ncolour +3 /)

    const twice = await run('vdi', 'attr', 'set', 'disk', 'colour', 'green', '--exclusive')
    expect(twice.code).toBe(EXIT.CANNOT_CREATE)
    expect(twice.err).toContain('"disk" has an attribute "colour" already')
    const mistyped = await run('vdi', 'attr', 'get', 'disk', 'color')
    expect(mistyped.code).toBe(EXIT.NO_INPUT)
    expect(mistyped.err).toContain('did you mean "colour"?')
    await ok('vdi', 'attr', 'delete', 'disk', 'colour')
    expect((await run('vdi', 'attr', 'delete', 'disk', 'colour')).code).toBe(EXIT.NO_INPUT)
    const tooLong = await node.run(['vdi', 'attr', 'set', 'disk', 'long'], { input: [Buffer.alloc(65537)] })
    expect(tooLong.code).toBe(EXIT.USAGE)
    expect(tooLong.err).toContain('VALUE: has more than the 65536 bytes')
  })
})

describe('bytes', () => {
  it('are read and written at any offset, in any length', async () => {
    const bytes = randomBytes(5 * MIB + 321)
    await ok('vdi', 'create', 'disk', '16M')
    await write('disk', '3M', bytes)
    expect((await read('disk', '3M', String(bytes.length))).equals(bytes)).toBe(true)
    expect((await read('disk', String(3 * MIB + 100), '1K')).equals(bytes.subarray(100, 1124))).toBe(true)
    const whole = await read('disk')
    expect(whole).toHaveLength(16 * MIB)
    expect(whole.subarray(0, 3 * MIB).every((byte) => byte === 0)).toBe(true)
    expect(await read('disk', '16M')).toHaveLength(0)
  })

  it('go into files and come from them', async () => {
    const [input, output] = [node.file('input'), node.file('output')]
    const bytes = randomBytes(70_000)
    writeFileSync(input, bytes)
    await ok('vdi', 'create', 'disk', '1M')
    expect(await ok('vdi', 'write', 'disk', '512', '--input', input)).toBe('Wrote 68.4 KiB to "disk".')
    await ok('vdi', 'read', 'disk', '512', '70000', '-o', output)
    expect(readFileSync(output).equals(bytes)).toBe(true)
    expect(statSync(output).mode & 0o777).toBe(0o600)
    const again = await run('vdi', 'read', 'disk', '-o', output)
    expect(again.code).toBe(EXIT.CANNOT_CREATE)
    expect(again.err).toContain(`${output} exists`)
    await ok('vdi', 'read', 'disk', '-o', output, '--force')
    expect(readFileSync(output)).toHaveLength(MIB)
  })

  it('that do not fit are refused before anything is written, when that can be known', async () => {
    await ok('vdi', 'create', 'disk', '1M')
    const file = node.file('too-long')
    writeFileSync(file, Buffer.alloc(MIB, 1))
    const fromFile = await run('vdi', 'write', 'disk', '1', '--input', file)
    expect(fromFile.code).toBe(EXIT.USAGE)
    expect(fromFile.err).toContain('beyond the end of "disk", which has 1048576 bytes')
    const withLength = await node.run(['vdi', 'write', 'disk', '0', '2M'], { input: [Buffer.alloc(10, 1)] })
    expect(withLength.code).toBe(EXIT.USAGE)
    expect(withLength.err).toContain('LENGTH')
    expect((await read('disk')).every((byte) => byte === 0)).toBe(true)

    const stream = await node.run(['vdi', 'write', 'disk', '0'], { input: [Buffer.alloc(3 * MIB, 1)] })
    expect(stream.code).toBe(EXIT.DATA_UNSOUND)
    expect(stream.err).toContain('its first 1048576 bytes are written')
  })

  it('that end too early are told', async () => {
    await ok('vdi', 'create', 'disk', '1M')
    const { code, err } = await node.run(['vdi', 'write', 'disk', '0', '4096'], { input: [Buffer.alloc(100, 1)] })
    expect(code).toBe(EXIT.DATA_UNSOUND)
    expect(err).toContain('ended after 100 of 4096 bytes')
  })

  it('are all read by a check', async () => {
    await ok('vdi', 'create', 'disk', '64M')
    await write('disk', '10M', randomBytes(3 * MIB))
    await ok('vdi', 'snapshot', 'disk', '--tag', 'daily')
    expect(await node.json('vdi', 'check', 'disk')).toMatchObject({ sound: true, checked_bytes: 3 * MIB, damaged: [] })
    expect(await ok('vdi', 'check', 'disk', '-s', 'daily')).toBe('"disk@daily" is sound: 3.0 MiB read.')
  })
})

describe('rot', () => {
  it("is found by a check, block by block, and is in nobody else's way", async () => {
    await ok('vdi', 'create', 'disk', '16M')
    await write('disk', '4M', randomBytes(2 * MIB))
    const [object] = await node.json<{ oid: string }[]>('vdi', 'object', 'map', 'disk')
    const damaged = [0, 7, 8, 300]
    await node.restart(() => {
      const file = path.join(node.dataDir, 'sheep', 'obj', object!.oid.slice(-2), object!.oid)
      const bytes = readFileSync(file)
      for (const block of damaged) bytes[block * 4096 + 5]! ^= 0x10
      writeFileSync(file, bytes)
    })
    const { code, out } = await run('vdi', 'check', 'disk', '--json')
    expect(code).toBe(EXIT.FOUND)
    expect(JSON.parse(out)).toMatchObject({
      name: 'disk',
      sound: false,
      checked_bytes: 2 * MIB,
      damaged: [
        { offset_bytes: OBJECT, length_bytes: 4096 },
        { offset_bytes: OBJECT + 7 * 4096, length_bytes: 8192 },
        { offset_bytes: OBJECT + 300 * 4096, length_bytes: 4096 },
      ],
    })
    expect((await run('vdi', 'check', 'disk')).out).toMatch(/^"disk" is DAMAGED.*^4222976 +8192$/ms)

    const reading = await run('vdi', 'read', 'disk')
    expect(reading.code).toBe(EXIT.DATA_UNSOUND)
    expect(reading.err).toContain('`collie vdi check` lists')
    const file = node.file('damaged.raw')
    expect((await run('vdi', 'export', 'disk', file)).code).toBe(EXIT.DATA_UNSOUND)
    expect(existsSync(file)).toBe(false)
    expect(await read('disk', String(OBJECT + 4096), String(6 * 4096))).toHaveLength(6 * 4096)
  })
})

describe('raw images', () => {
  it('go in and out again unchanged, with their holes', async () => {
    const [image, copy] = [node.file('image.raw'), node.file('copy.raw')]
    writeFileSync(image, randomBytes(300_000))
    truncateSync(image, 100 * MIB)
    expect(await ok('vdi', 'import', image, 'disk', '--format', 'raw')).toBe('Imported "disk", 100.0 MiB.')
    const objects = await node.json<{ index: number; allocated_bytes: number }[]>('vdi', 'object', 'map', 'disk')
    expect(objects).toMatchObject([{ index: 0, allocated_bytes: 74 * 4096 }])
    await ok('vdi', 'export', 'disk', copy)
    expect(readFileSync(copy).equals(readFileSync(image))).toBe(true)
    expect(statSync(copy).blocks * 512).toBeLessThan(MIB)
    expect((await node.vdis.listOf('disk')).map(({ tag }) => tag)).toEqual(['']) // the snapshot is gone again
  })

  it('stay sparse where they hold zeros that were written', async () => {
    const image = node.file('zeros.raw')
    writeFileSync(image, Buffer.concat([Buffer.alloc(5 * MIB), Buffer.from('x'), Buffer.alloc(MIB - 1)]))
    await ok('vdi', 'import', image, 'disk', '--format', 'raw')
    expect(await node.json('vdi', 'object', 'map', 'disk')).toMatchObject([{ index: 1, allocated_bytes: 4096 }])
  })

  it('come from standard input and go to standard output', async () => {
    const bytes = randomBytes(40 * MIB + 5)
    const chunks = (function* () {
      for (let at = 0; at < bytes.length; at += 777_777) yield bytes.subarray(at, at + 777_777)
    })()
    expect(await node.run(['vdi', 'import', '-', 'disk'], { input: chunks })).toMatchObject({ code: 0, err: '' })
    const { bytes: exported } = await node.run(['vdi', 'export', 'disk', '-'])
    expect(exported).toHaveLength(40 * MIB + 512)
    expect(exported.subarray(0, bytes.length).equals(bytes)).toBe(true)
  })

  it('of a snapshot show what it holds', async () => {
    await ok('vdi', 'create', 'disk', '1M')
    await write('disk', '0', Buffer.from('then'))
    await ok('vdi', 'snapshot', 'disk', '-t', 'daily')
    await write('disk', '0', Buffer.from('now!'))
    const file = node.file('daily.raw')
    await ok('vdi', 'export', 'disk', file, '-s', 'daily')
    expect(readFileSync(file).subarray(0, 4).toString()).toBe('then')
  })

  it('show one moment, also while a client goes on writing', async () => {
    await ok('vdi', 'create', 'disk', '64M')
    await write('disk', '0', randomBytes(48 * MIB))
    await attach('disk', 'attachment-1')
    const device = await node.vdis.openExport(hashExportName('attachment-1'), false)
    const writeNumber = (offset: number, value: number) => {
      const bytes = Buffer.alloc(4096)
      bytes.writeUInt32LE(value)
      return promised((done) => device.write(offset, bytes, { fua: false }, done))
    }
    const writeBoth = async (value: number) => {
      await writeNumber(0, value)
      await writeNumber(47 * MIB, value)
    }
    await writeBoth(0)
    let isDone = false
    const exporting = node.run(['vdi', 'export', 'disk', node.file('moment.raw')]).finally(() => {
      isDone = true
    })
    let rounds = 0
    while (!isDone) await writeBoth(++rounds)
    expect(await exporting).toMatchObject({ code: 0, err: '' })
    await device.close()
    const bytes = readFileSync(node.file('moment.raw'))
    const [first, last] = [bytes.readUInt32LE(0), bytes.readUInt32LE(47 * MIB)]
    expect(rounds).toBeGreaterThan(5)
    expect([last, last + 1]).toContain(first)
  })

  it('leave no VDI when they do not end well', async () => {
    const broken = (async function* () {
      yield randomBytes(MIB)
      throw Object.assign(new Error('read failed'), { syscall: 'read', code: 'EIO' })
    })()
    const { code, err } = await node.run(['vdi', 'import', '-', 'disk'], { input: broken })
    expect(code).toBe(EXIT.IO)
    expect(err).toBe('collie: "disk" is not complete, and was deleted\ncollie: read failed')
    const tooLong = await node.run(['vdi', 'import', '-', 'disk', '--size', '1M'], { input: [Buffer.alloc(2 * MIB)] })
    expect(tooLong.code).toBe(EXIT.DATA_UNSOUND)
    expect(await node.vdis.list()).toEqual([])
  })

  it('leave no VDI when they are interrupted, however long the input is silent', async () => {
    const interrupt = new AbortController()
    const silent = (async function* () {
      yield randomBytes(MIB)
      interrupt.abort(new Interrupted('SIGINT'))
      await new Promise(() => {})
    })()
    const { err } = await node.run(['vdi', 'import', '-', 'disk'], { input: silent, interrupted: interrupt.signal })
    expect(err).toContain('"disk" is not complete, and was deleted')
    expect(await node.vdis.list()).toEqual([])
  })

  it('show what an export has taken and a killed one has left, which the next one deletes', async () => {
    await ok('vdi', 'create', 'disk', '8M')
    const left = async (tag: string) => {
      const vid = await node.vdis.lookup('disk')
      await node.vdis.snapshot(vid, tag)
      await node.vdis.setAttribute('disk', EXPORT_MARK, Buffer.from('temporary'), { snapshot: { tag } })
      return vid
    }
    await left('export-killed')
    const running = await node.vdis.open(await left('export-running'), { readOnly: true })
    await ok('vdi', 'snapshot', 'disk', '--tag', 'export-mine')
    expect(await ok('vdi', 'list')).toMatch(/^disk +export-killed .* snapshot, export {2}/m)
    const tags = async () => (await node.json<Listed[]>('vdi', 'list')).map(({ tag }) => tag)
    const before = await tags()
    await ok('vdi', 'export', 'disk', node.file('early.raw')) // what is young may be about to be opened
    expect(await tags()).toEqual(before)
    const clock = { ...systemClock, now: () => systemClock.now() + 10 * 60_000 }
    const later = await node.run(['vdi', 'export', 'disk', node.file('later.raw')], { clock })
    expect(later).toMatchObject({ code: 0, err: '' })
    expect(await tags()).toEqual(['export-running', 'export-mine', ''])
    await running.close()
  })

  it('leave no file and no snapshot when the export is interrupted', async () => {
    await ok('vdi', 'create', 'disk', '64M')
    await write('disk', '0', randomBytes(30 * MIB))
    const interrupt = new AbortController()
    const onOutput = () => interrupt.abort(new Interrupted('SIGINT'))
    const { err } = await node.run(['vdi', 'export', 'disk', '-'], { interrupted: interrupt.signal, onOutput })
    expect(err).toContain('interrupted')
    const early = AbortSignal.abort(new Interrupted('SIGINT'))
    await node.run(['vdi', 'export', 'disk', node.file('never.raw')], { interrupted: early })
    expect(readdirSync(path.dirname(node.dataDir)).filter((name) => name.includes('never'))).toEqual([])
    expect((await node.vdis.listOf('disk')).map(({ tag }) => tag)).toEqual([''])
  })

  it('replace no file unless they may', async () => {
    await ok('vdi', 'create', 'disk', '1M')
    const file = node.file('precious')
    writeFileSync(file, 'precious')
    const refused = await run('vdi', 'export', 'disk', file)
    expect(refused.code).toBe(EXIT.CANNOT_CREATE)
    expect(refused.err).toContain('exists')
    expect(readFileSync(file, 'utf8')).toBe('precious')
    await ok('vdi', 'export', 'disk', file, '--force')
    expect(readFileSync(file)).toHaveLength(MIB)
    expect((await run('vdi', 'export', 'disk', path.dirname(file), '--force')).code).toBe(EXIT.CANNOT_CREATE)
    expect(existsSync(node.file('.precious'))).toBe(false)
  })
})

describe('with --json', () => {
  it('every command prints one JSON value, and nothing else', async () => {
    const image = node.file('json.raw')
    writeFileSync(image, randomBytes(4096))
    const lines = [
      'vdi create disk 1M',
      'vdi snapshot disk --tag daily',
      'vdi rollback disk --snapshot daily --force',
      'vdi clone disk --snapshot daily --to copy',
      'vdi resize copy 2M',
      `vdi write disk --input ${image}`,
      `vdi read disk --output ${node.file('json.out')}`,
      'vdi check disk',
      'vdi object map disk',
      'vdi object location disk --index 0',
      'vdi attr set disk colour red',
      'vdi attr get disk colour',
      'vdi attr list disk',
      'vdi attr delete disk colour',
      'vdi lock list',
      `vdi import ${image} image --format raw`,
      `vdi export image ${node.file('json.raw.copy')}`,
      'vdi list',
      'vdi tree',
      'vdi delete image',
    ]
    for (const line of lines) expect(await node.json(...line.split(' ')), line).toBeInstanceOf(Object)
    const names = COMMANDS.map(({ name }) => name).filter((name) => name.startsWith('vdi '))
    const missing = names.filter((name) => !lines.some((line) => line.startsWith(name)))
    expect(missing).toEqual(['vdi alter-copies', 'vdi lock unlock']) // one node has one copy, and nothing here is locked
  })
})

describe('bad input', () => {
  it.each<[string, number, RegExp]>([
    ['vdi create', EXIT.USAGE, /NAME is missing.*Usage: collie vdi create NAME \[SIZE\]/s],
    ['vdi create new', EXIT.USAGE, /SIZE: say it once/],
    ['vdi create new 1G --size 1G', EXIT.USAGE, /SIZE: say it once/],
    ['vdi create new 1X', EXIT.USAGE, /SIZE: "1X" is no size.*512M/],
    ['vdi create new -- -5', EXIT.USAGE, /SIZE: "-5" is no size/],
    ['vdi create new 1.0001', EXIT.USAGE, /SIZE: "1\.0001" is no whole number of bytes/],
    ['vdi create new 5P', EXIT.USAGE, /SIZE: a VDI has at most 4\.0 TiB/],
    ['vdi create new 99999999P', EXIT.USAGE, /SIZE: "99999999P" is too large/],
    [`vdi create ${'x'.repeat(256)} 1G`, EXIT.USAGE, /NAME: has 256 bytes; 1 to 255/],
    ['vdi create disk 1G', EXIT.CANNOT_CREATE, /there is a VDI "disk" already.*collie vdi delete disk/],
    ['vdi delete dsik', EXIT.NO_INPUT, /there is no VDI "dsik"; did you mean "disk"\?/],
    ['vdi delete something-else', EXIT.NO_INPUT, /there is no VDI "something-else"; `collie vdi list`/],
    ['vdi delete disk --snapshot dayly', EXIT.NO_INPUT, /"disk" has no snapshot "dayly"; did you mean "daily"\?/],
    ['vdi delete disk --snapshot 17', EXIT.NO_INPUT, /"disk" has no snapshot "17"; it has: daily/],
    ['vdi delete disk --snapshot daily --with-snapshots', EXIT.USAGE, /--snapshot, --with-snapshots/],
    ['vdi snapshot disk', EXIT.USAGE, /--tag is missing/],
    ['vdi snapshot disk --tag 12', EXIT.USAGE, /--tag: "12" could be the number/],
    ['vdi snapshot disk --tag daily', EXIT.CANNOT_CREATE, /"disk" has a snapshot "daily" already/],
    ['vdi snapshot nothing --tag x', EXIT.NO_INPUT, /there is no VDI "nothing"/],
    ['vdi clone disk --to new', EXIT.USAGE, /--snapshot is missing/],
    ['vdi clone disk -s daily', EXIT.USAGE, /--to is missing/],
    ['vdi clone disk -s daily --to disk', EXIT.CANNOT_CREATE, /there is a VDI "disk" already/],
    ['vdi clone disk -s daily --to new --size 1K', EXIT.USAGE, /--size: .*cannot be smaller/],
    ['vdi resize disk', EXIT.USAGE, /SIZE is missing/],
    ['vdi resize disk 1K', EXIT.USAGE, /SIZE: 1\.0 KiB is less than the 1\.0 MiB that it has; a VDI cannot shrink/],
    ['vdi read disk 2M', EXIT.USAGE, /OFFSET: byte 2097152 is beyond the end of "disk"/],
    ['vdi read disk 0 2M', EXIT.USAGE, /LENGTH: byte 2097152 is beyond/],
    ['vdi read disk x', EXIT.USAGE, /OFFSET: "x" is no size/],
    ['vdi read disk 0 1 2', EXIT.USAGE, /"2" is one word too many/],
    ['vdi read disk --json', EXIT.USAGE, /--json/],
    ['vdi write disk 2M', EXIT.USAGE, /OFFSET: byte 2097152/],
    ['vdi write disk --input absent', EXIT.NO_INPUT, /ENOENT.*absent/],
    ['vdi write disk --input .', EXIT.NO_INPUT, /is a directory/],
    ['vdi check', EXIT.USAGE, /NAME is missing/],
    ['vdi check nothing', EXIT.NO_INPUT, /there is no VDI "nothing"/],
    ['vdi tree nothing', EXIT.NO_INPUT, /there is no VDI "nothing"/],
    ['vdi list dsik', EXIT.NO_INPUT, /did you mean "disk"/],
    ['vdi rollback disk', EXIT.USAGE, /--snapshot is missing/],
    ['vdi rollback disk -s nothing --force', EXIT.NO_INPUT, /"disk" has no snapshot "nothing"/],
    ['vdi rollback nothing -s x --force', EXIT.NO_INPUT, /there is no VDI "nothing"/],
    ['vdi attr set disk', EXIT.USAGE, /KEY is missing/],
    ['vdi attr set nothing a b', EXIT.NO_INPUT, /there is no VDI "nothing"/],
    [`vdi attr get disk ${'k'.repeat(256)}`, EXIT.USAGE, /KEY: has 256 bytes/],
    ['vdi attr list disk -s nothing', EXIT.NO_INPUT, /"disk" has no snapshot "nothing"/],
    ['vdi attr delete disk nothing', EXIT.NO_INPUT, /"disk" has no attribute "nothing"; `collie vdi attr list disk`/],
    ['vdi lock unlock disk', EXIT.NO_INPUT, /"disk" is not locked; `collie vdi lock list`/],
    ['vdi lock unlock dsik', EXIT.NO_INPUT, /did you mean "disk"/],
    ['vdi object map nothing', EXIT.NO_INPUT, /there is no VDI "nothing"/],
    ['vdi object location disk', EXIT.USAGE, /--index, --offset: give one/],
    ['vdi object location disk --index x', EXIT.USAGE, /--index: "x"/],
    [
      `vdi import ${import.meta.filename} new --size 1K -f raw`,
      EXIT.USAGE,
      /--size: 1\.0 KiB is less than the .* image/,
    ],
    ['node disk plug /nonexistent/disk', EXIT.USAGE, /there is no such directory/],
    ['node disk unplug /nonexistent/disk', EXIT.USAGE, /no disk of this store/],
    ['vdi import absent new', EXIT.NO_INPUT, /ENOENT.*absent/],
    ['vdi import absent', EXIT.USAGE, /NAME is missing/],
    ['vdi import - new --format qcow2', EXIT.USAGE, /--format: only raw/],
    ['vdi import - disk', EXIT.CANNOT_CREATE, /there is a VDI "disk" already/],
    ['vdi import - new --format a,b', EXIT.USAGE, /--format: "a,b" is no format/],
    ['vdi import - new --size 1X', EXIT.USAGE, /--size: "1X"/],
    ['vdi export disk', EXIT.USAGE, /FILE is missing/],
    ['vdi export disk - --format qcow2', EXIT.USAGE, /--format: only raw/],
    ['vdi export disk . --force', EXIT.CANNOT_CREATE, /exists and is not a regular file$/],
    ['vdi export disk .', EXIT.CANNOT_CREATE, /exists and is not a regular file$/],
    ['vdi export disk absent/file', EXIT.CANNOT_CREATE, /absent\/file cannot be made: ENOENT/],
    ['vdi read disk -o absent/file', EXIT.CANNOT_CREATE, /absent\/file cannot be made: ENOENT/],
    ['vdi export nothing file', EXIT.NO_INPUT, /there is no VDI "nothing"/],
  ])('`%s` is answered with %i', async (line, code, message) => {
    await ok('vdi', 'create', 'disk', '1M')
    await ok('vdi', 'snapshot', 'disk', '--tag', 'daily')
    const before = await node.vdis.list()
    const ended = await node.run(line.split(' '))
    expect(ended).toMatchObject({ code, out: '' })
    expect(ended.err).toMatch(message)
    expect((await node.vdis.list()).map((vdi) => [vdi.name, vdi.tag]).sort()).toEqual(
      before.map((vdi) => [vdi.name, vdi.tag]).sort(),
    )
  })
})
