import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { systemNetwork } from '../../src/runtime/network.ts'
import { VdiClient, type VdiInfo } from '../../src/vdi/client.ts'
import { createSocketTransport } from '../../src/vdi/socket-transport.ts'
import { Collie, MAIN, printLogOfFailures } from '../tools/collie.ts'
import { requireCommands } from '../tools/require-command.ts'
import { runCommand } from '../tools/run-command.ts'

/** The program itself as an operator runs it: streams, signals and the end of either side. */

const MIB = 1024 * 1024
const ENDED_BY_SIGINT = 130

let collie: Collie
let vdis: VdiClient
beforeAll(async () => {
  collie = await Collie.create('--roles=store')
  await start()
})
printLogOfFailures(() => collie)
afterAll(async () => {
  vdis.close()
  await collie.dispose()
})

async function start(): Promise<void> {
  await collie.start()
  vdis = new VdiClient(createSocketTransport({ network: systemNetwork, address: collie.info.addresses.sheep_socket! }))
}

afterEach(async () => {
  for (const { name } of (await vdis.list()).filter(({ snapshotAt }) => snapshotAt === 0)) await vdis.remove(name)
  expect(await vdis.list()).toEqual([])
})

function begin(...words: string[]): ChildProcess {
  const child = spawn(process.execPath, [MAIN, ...words, `--data-dir=${collie.dataDir}`], { stdio: 'pipe' })
  child.stdin!.on('error', () => {}) // it may end before it has read all
  return child
}

async function ending(child: ChildProcess): Promise<{ code: number | null; err: string }> {
  const [err] = await Promise.all([text(child.stderr!), once(child, 'exit')])
  return { code: child.exitCode, err }
}

/** Asks until the VDI is as wanted; each question is a round trip to the store. */
async function untilVdi(name: string, isReached: (vdi: VdiInfo) => boolean): Promise<void> {
  for (;;) {
    const [vdi] = await vdis.listOf(name)
    if (vdi && isReached(vdi)) return
  }
}

const withQemuImg = requireCommands({ 'qemu-img': 'qemu-utils' })

describe('images', () => {
  it('go through pipes', async () => {
    const bytes = randomBytes(20 * MIB)
    const importing = begin('vdi', 'import', '-', 'disk')
    importing.stdin!.end(bytes)
    expect(await ending(importing)).toEqual({ code: 0, err: '' })
    const exporting = begin('vdi', 'export', 'disk', '-')
    const chunks: Buffer[] = []
    for await (const chunk of exporting.stdout!) chunks.push(chunk as Buffer)
    expect(Buffer.concat(chunks).equals(bytes)).toBe(true)
  })

  withQemuImg('of qcow2 make the round trip', async () => {
    const [raw, qcow2, copy] = ['source.raw', 'source.qcow2', 'copy.qcow2'].map((name) => collie.file(name)) as [
      string,
      string,
      string,
    ]
    writeFileSync(raw, Buffer.concat([randomBytes(5 * MIB), Buffer.alloc(9 * MIB), randomBytes(MIB)]))
    truncateSync(raw, 500 * MIB)
    await runCommand(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, qcow2])
    expect(await collie.ask('vdi', 'import', qcow2, 'disk')).toMatchObject({ name: 'disk', size_bytes: 500 * MIB })
    await collie.ask('vdi', 'export', 'disk', copy, '--format', 'qcow2')
    await runCommand(['qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', raw, copy])
    await runCommand(['qemu-img', 'check', '-q', copy])
  })
})

describe('a signal', () => {
  it.each(['SIGINT', 'SIGTERM'] as const)('%s in the middle of an import leaves no VDI', async (signal) => {
    const importing = begin('vdi', 'import', '-', 'disk')
    importing.stdin!.write(randomBytes(20 * MIB))
    await untilVdi('disk', ({ sizeBytes }) => sizeBytes > 0)
    importing.kill(signal)
    const { code, err } = await ending(importing)
    expect(code).toBe(signal === 'SIGINT' ? 130 : 143)
    expect(err).toContain('"disk" is not complete, and was deleted')
    expect(await vdis.listOf('disk')).toEqual([])
  })

  withQemuImg('in the middle of a qcow2 import leaves no VDI and no qemu-img', async () => {
    const [raw, qcow2] = [collie.file('long.raw'), collie.file('long.qcow2')]
    writeFileSync(raw, randomBytes(200 * MIB))
    await runCommand(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, qcow2])
    const importing = begin('vdi', 'import', qcow2, 'disk')
    await untilVdi('disk', () => true)
    importing.kill('SIGINT')
    expect((await ending(importing)).code).toBe(ENDED_BY_SIGINT)
    expect(await vdis.listOf('disk')).toEqual([])
    expect(await runCommand(['sh', '-c', `pgrep -f '[q]emu-img convert .*${qcow2}' || true`])).toBe('')
  })

  it('in the middle of an export leaves no file and no snapshot', async () => {
    await vdis.create('disk', 2 ** 42)
    const file = collie.file('export.raw')
    const exporting = begin('vdi', 'export', 'disk', file)
    await untilVdi('disk', ({ snapshotAt }) => snapshotAt > 0)
    exporting.kill('SIGINT')
    expect((await ending(exporting)).code).toBe(ENDED_BY_SIGINT)
    expect(readdirSync(path.dirname(file)).filter((name) => name.includes('export.raw'))).toEqual([])
    expect((await vdis.listOf('disk')).map(({ tag }) => tag)).toEqual([''])
  })
})

describe('an import that is killed', () => {
  it('leaves a VDI that is known to be incomplete', async () => {
    const importing = begin('vdi', 'import', '-', 'disk')
    importing.stdin!.write(randomBytes(20 * MIB))
    await untilVdi('disk', ({ sizeBytes }) => sizeBytes > 0)
    importing.kill('SIGKILL')
    await once(importing, 'exit')
    expect((await collie.command('vdi', 'list')).out).toMatch(/^disk .* working, incomplete/m)
    const again = await collie.command('vdi', 'import', MAIN, 'disk', '--format', 'raw')
    expect(again.code).toBe(73)
    expect(again.err).toMatch(/"disk" that is not complete: .* was killed; .*collie vdi delete disk/)
    expect((await collie.command('vdi', 'delete', 'disk')).code).toBe(0)
    expect((await collie.command('vdi', 'import', MAIN, 'disk', '--format', 'raw')).code).toBe(0)
    expect((await collie.command('vdi', 'list')).out).not.toContain('incomplete')
  })
})

describe('a reader that has seen enough', () => {
  it('ends a read and an export, and the snapshot is gone', async () => {
    await vdis.create('disk', 2 ** 40)
    for (const words of [
      ['vdi', 'read', 'disk'],
      ['vdi', 'export', 'disk', '-'],
    ]) {
      const child = begin(...words)
      await once(child.stdout!, 'data')
      child.stdout!.destroy()
      expect(await ending(child)).toEqual({ code: 141, err: 'collie: nobody reads the output any more\n' })
      expect((await vdis.listOf('disk')).map(({ tag }) => tag)).toEqual([''])
    }
  })
})

describe('a node that ends', () => {
  it('in the middle of an import is told, with what to do', async () => {
    const importing = begin('vdi', 'import', '-', 'disk')
    importing.stdin!.write(randomBytes(20 * MIB))
    await untilVdi('disk', ({ sizeBytes }) => sizeBytes > 0)
    vdis.close()
    await collie.kill('SIGKILL')
    importing.stdin!.end(randomBytes(20 * MIB))
    const { code, err } = await ending(importing)
    expect(code).toBe(69)
    expect(err).toContain('is still there; delete it: collie vdi delete disk')
    expect(err).toContain('`collie serve` starts it')
    await start()
    expect((await collie.command('vdi', 'delete', 'disk')).code).toBe(0)
  })
})

describe('on a terminal', () => {
  const withTerminal = requireCommands({ script: 'bsdutils' })

  withTerminal('long work draws a bar, and clears it', async () => {
    await vdis.create('disk', 2 ** 40)
    const log = collie.file('terminal')
    const line = `${process.execPath} ${MAIN} vdi read disk 0 256M --data-dir=${collie.dataDir} -o ${collie.file('out')}`
    await runCommand(['script', '--quiet', '--return', '--command', line, log])
    const shown = readFileSync(log, 'utf8')
    const drawn = shown.split('\r\u001b[K')
    expect(drawn).toContainEqual(expect.stringMatching(/^reading disk {2}.*\d+% of 256\.0 MiB, .*\/s/))
    expect(drawn.at(-1)).toMatch(/^Read 256\.0 MiB into /)
    expect(existsSync(collie.file('out'))).toBe(true)
  })
})
