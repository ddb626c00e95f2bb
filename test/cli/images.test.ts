import { randomBytes } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { EXIT } from '../../src/cli/command.ts'
import { Interrupted } from '../../src/runtime/process-io.ts'
import { requireCommand } from '../tools/require-command.ts'
import { runCommand } from '../tools/run-command.ts'
import { LiveNode } from './live-node.ts'

/** Images of other formats than raw, with the qemu-img that people have. */

const withQemuImg = requireCommand('qemu-img', 'qemu-utils')

const MIB = 1024 * 1024
const SIZE = 70 * MIB

let node: LiveNode
let raw: string
beforeAll(async () => {
  node = await LiveNode.start()
  raw = node.file('source.raw')
  writeFileSync(raw, Buffer.concat([randomBytes(3 * MIB), Buffer.alloc(20 * MIB), randomBytes(12_345)]))
  truncateSync(raw, SIZE)
})
afterAll(() => node.stop())

/** A place for temporary files of its own, in which nothing may be left. */
beforeAll(() => {
  const before = process.env.TMPDIR
  process.env.TMPDIR = node.file('temporary')
  mkdirSync(process.env.TMPDIR)
  return () => {
    if (before === undefined) delete process.env.TMPDIR
    else process.env.TMPDIR = before
  }
})

afterEach(async () => {
  expect(readdirSync(process.env.TMPDIR!)).toEqual([])
  for (const { name } of await node.vdis.list()) await node.vdis.remove(name)
})

async function ok(...words: string[]): Promise<string> {
  const { code, out, err } = await node.run(words)
  expect({ code, err }, words.join(' ')).toEqual({ code: 0, err: '' })
  return out
}

async function image(format: string, ...options: string[]): Promise<string> {
  const file = node.file(`source.${format}`)
  await runCommand(['qemu-img', 'convert', '-f', 'raw', '-O', format, ...options, raw, file])
  return file
}

describe('an image', () => {
  for (const format of ['qcow2', 'vmdk', 'vdi', 'vhdx']) {
    withQemuImg(`of format ${format} goes in and out again, and stays sparse`, async () => {
      const file = await image(format)
      expect(await ok('vdi', 'import', file, 'disk')).toBe('Imported "disk", 70.0 MiB.')
      const [whole] = await node.json<{ allocated_bytes: number }[]>('vdi', 'object', 'map', 'disk')
      expect(whole?.allocated_bytes).toBeGreaterThan(0)
      const objects = await node.json<{ allocated_bytes: number }[]>('vdi', 'object', 'map', 'disk')
      const allocated = objects.reduce((sum, object) => sum + object.allocated_bytes, 0)
      expect(allocated).toBeLessThan(4 * MIB)

      const copy = node.file(`copy.${format}`)
      expect(await ok('vdi', 'export', 'disk', copy, '--format', format)).toContain(`${format}, 70.0 MiB`)
      await runCommand(['qemu-img', 'compare', '-f', 'raw', '-F', format, raw, copy])
      expect(statSync(copy).blocks * 512).toBeLessThan(12 * MIB)
      expect((await node.vdis.listOf('disk')).map(({ tag }) => tag)).toEqual([''])
    })
  }

  withQemuImg('of qcow2, compressed, is read and is the same as raw', async () => {
    const file = await image('qcow2', '-c')
    await ok('vdi', 'import', file, 'disk', '--format', 'qcow2', '--size', '100M')
    const copy = node.file('copy.raw')
    await ok('vdi', 'export', 'disk', copy)
    const bytes = readFileSync(copy)
    expect(bytes).toHaveLength(100 * MIB)
    expect(bytes.subarray(0, SIZE).equals(readFileSync(raw))).toBe(true)
  })

  withQemuImg('of raw is found out to be raw', async () => {
    await ok('vdi', 'import', raw, 'disk')
    await ok('vdi', 'snapshot', 'disk', '--tag', 'then')
    expect((await node.run(['vdi', 'write', 'disk', '0'], { input: [randomBytes(MIB)] })).code).toBe(0)
    const copy = node.file('snapshot.qcow2')
    await ok('vdi', 'export', 'disk', copy, '-s', 'then', '-f', 'qcow2')
    await runCommand(['qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', raw, copy])
    await node.vdis.remove('disk', 'then')
  })

  withQemuImg('that rests on another file is taken only when that is wanted', async () => {
    const base = await image('qcow2')
    const top = node.file('top.qcow2')
    await runCommand(['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', top])
    const refused = await node.run(['vdi', 'import', top, 'disk'])
    expect(refused.code).toBe(EXIT.DATA_UNSOUND)
    expect(refused.err).toMatch(/takes part of its content from .*source\.qcow2; if you trust it/)
    await ok('vdi', 'import', top, 'disk', '--with-backing')
    const copy = node.file('flat.raw')
    await ok('vdi', 'export', 'disk', copy)
    expect(readFileSync(copy).equals(readFileSync(raw))).toBe(true)
  })

  withQemuImg('that is broken leaves no VDI, and its damage is told', async () => {
    const file = await image('qcow2')
    const bytes = readFileSync(file)
    bytes.fill(0xff, 0x40000, 0x40400) // the first L2 table: entries beyond the end of the file
    writeFileSync(node.file('broken.qcow2'), bytes)
    const broken = await node.run(['vdi', 'import', node.file('broken.qcow2'), 'disk'])
    expect(broken.code).toBe(EXIT.DATA_UNSOUND)
    expect(broken.err).toMatch(/"disk" is not complete, and was deleted.*qemu-img: /s)
    const noImage = await node.run(['vdi', 'import', raw, 'disk', '--format', 'qcow2'])
    expect(noImage.code).toBe(EXIT.DATA_UNSOUND)
    expect(noImage.err).toMatch(/source\.raw cannot be read as an image/)
    const noFormat = await node.run(['vdi', 'import', raw, 'disk', '--format', 'nonsense'])
    expect(noFormat.code).toBe(EXIT.DATA_UNSOUND)
    expect(await node.vdis.list()).toEqual([])
  })

  withQemuImg('is not begun when it is interrupted, and leaves nothing', async () => {
    const file = await image('qcow2')
    const interrupted = AbortSignal.abort(new Interrupted('SIGINT'))
    expect((await node.run(['vdi', 'import', file, 'disk', '-f', 'qcow2'], { interrupted })).code).toBe(130)
    expect(await node.vdis.list()).toEqual([])
    await node.vdis.create('disk', SIZE)
    const copy = node.file('interrupted.qcow2')
    expect((await node.run(['vdi', 'export', 'disk', copy, '-f', 'qcow2'], { interrupted })).code).toBe(130)
    expect(readdirSync(path.dirname(copy)).filter((name) => name.includes('interrupted'))).toEqual([])
  })
})

describe('without qemu-img', () => {
  let searchPath: string | undefined
  beforeAll(() => {
    searchPath = process.env.PATH
    process.env.PATH = path.dirname(node.dataDir)
  })
  afterAll(() => {
    process.env.PATH = searchPath
  })

  it('the message names the package, raw images go, and nothing is left', async () => {
    const missing = await node.run(['vdi', 'import', raw, 'disk'])
    expect(missing.code).toBe(EXIT.UNAVAILABLE)
    expect(missing.err).toMatch(/qemu-img is not installed; apt-get install qemu-utils/)
    await ok('vdi', 'import', raw, 'disk', '--format', 'raw')
    const copy = node.file('missing.qcow2')
    const exported = await node.run(['vdi', 'export', 'disk', copy, '-f', 'qcow2'])
    expect(exported.code).toBe(EXIT.UNAVAILABLE)
    expect(exported.err).toContain('qemu-utils')
    expect(readdirSync(path.dirname(copy)).filter((name) => name.includes('missing'))).toEqual([])
    expect((await node.vdis.listOf('disk')).map(({ tag }) => tag)).toEqual([''])
  })
})
