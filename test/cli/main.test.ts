import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { Result } from '../../src/control/methods.ts'
import { VERSION } from '../../src/version.ts'

/** The built program, as people start it. */
const MAIN = path.resolve(import.meta.dirname, '../../dist/src/main.js')

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

beforeAll(() => {
  if (!existsSync(MAIN)) throw new Error('dist is missing: run `npm run build` first')
})

/** Nothing of the caller's environment but what Node needs. */
const env = { PATH: process.env.PATH ?? '' }

async function collie(...args: string[]) {
  const child = spawn(process.execPath, [MAIN, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
  return { code: child.exitCode, out, err }
}

function dataDirectory(): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'collie-'))
  cleanups.push(() => rmSync(directory, { recursive: true }))
  return directory
}

const ANY_PORT = '127.0.0.1:0'

function serveArgs(directory: string): string[] {
  const addresses = [`--listen=${ANY_PORT}`, `--sheep-listen=${ANY_PORT}`, `--nbd-listen=${ANY_PORT}`]
  return ['serve', '--json', '--log-level=warn', `--data-dir=${directory}`, ...addresses]
}

/** Starts `collie serve` and waits until it has said what it is. */
async function serve(directory: string, ...args: string[]): Promise<{ child: ChildProcess; info: Result<'info'> }> {
  const child = spawn(process.execPath, [MAIN, ...serveArgs(directory), ...args], {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  cleanups.push(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'close')
  })
  let printed = ''
  for await (const chunk of child.stdout) {
    printed += String(chunk)
    if (printed.endsWith('\n}\n')) return { child, info: JSON.parse(printed) }
  }
  throw new Error(`collie serve ended with ${child.exitCode ?? child.signalCode} after printing "${printed}"`)
}

async function exitCode(child: ChildProcess): Promise<number | null> {
  if (child.exitCode === null) await once(child, 'exit')
  return child.exitCode
}

describe('the program', () => {
  it('says its version and its settings', async () => {
    expect(await collie('version')).toEqual({ code: 0, out: `collie ${VERSION}\n`, err: '' })
    expect((await collie('config', 'show', '--listen=127.0.0.1:1')).out).toMatch(/^listen +127\.0\.0\.1:1 +--listen /m)
    expect((await collie('config', 'show', '--config=absent')).code).toBe(78)
    expect((await collie('nonsense')).code).toBe(64)
  })

  it('serves, answers commands, and stops on SIGTERM with everything in place for the next start', async () => {
    const directory = dataDirectory()
    const { child, info } = await serve(directory)
    expect(info).toMatchObject({ pid: child.pid, version: VERSION, roles: ['api', 'store', 'gateway'] })
    for (const name of ['api', 'sheep', 'nbd']) expect(info.addresses[name]).toMatch(/127\.0\.0\.1:[1-9]\d*/)

    const asked = await collie('node', 'info', '--json', `--data-dir=${directory}`)
    expect(JSON.parse(asked.out)).toEqual(info)
    const audited = await collie('cluster', 'audit', `--data-dir=${directory}`)
    expect(audited).toMatchObject({ code: 0, out: expect.stringContaining('sound') })
    expect(JSON.parse((await collie('vdi', 'list', '--json', `--data-dir=${directory}`)).out)).toEqual([])

    child.kill('SIGTERM')
    expect(await exitCode(child)).toBe(0)
    expect((await collie('node', 'info', `--data-dir=${directory}`)).code).toBe(69)

    const again = await serve(directory)
    again.child.kill('SIGINT')
    expect(await exitCode(again.child)).toBe(0)
  })

  it('stops when asked to by `collie node stop`', async () => {
    const directory = dataDirectory()
    const { child } = await serve(directory, '--roles=store,gateway')
    expect((await collie('node', 'stop', `--data-dir=${directory}`)).code).toBe(0)
    expect(await exitCode(child)).toBe(0)
  })

  it('refuses a second process on the same data', async () => {
    const directory = dataDirectory()
    await serve(directory, '--roles=store')
    const second = await collie(...serveArgs(directory))
    expect(second.code).toBe(69)
    expect(second.err).toContain('another process serves')
    expect((await collie('node', 'info', `--data-dir=${directory}`)).code).toBe(0)
  })

  it.each(['listen', 'sheep-listen', 'nbd-listen'])(
    'says so when the address of --%s is taken, and leaves nothing running',
    async (flag) => {
      const { info } = await serve(dataDirectory(), '--roles=store')
      const taken = info.addresses.sheep!
      const { code, err } = await collie(...serveArgs(dataDirectory()), `--${flag}=${taken}`)
      expect(code).toBe(69)
      expect(err).toContain('EADDRINUSE')
      expect(err).toContain(taken)
    },
  )
})
