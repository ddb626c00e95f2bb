import { type ChildProcess, spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { afterEach } from 'vitest'
import type { Result } from '../../src/control/methods.ts'

/** The built program; `COLLIE_MAIN` names another build to be tested. */
export const MAIN = process.env.COLLIE_MAIN ?? path.resolve(import.meta.dirname, '../../dist/src/main.js')

/** Nothing of the caller's environment but what Node needs. */
const ENVIRONMENT = { PATH: process.env.PATH ?? '' }

const LOG_LINES_SHOWN = 60

/** How a process ended: by itself with a code, or by a signal. */
export type Ending = number | NodeJS.Signals

/**
 * `collie serve` as a process of its own on a temporary data directory. Ports are chosen once, so that URIs stay valid
 * from one start to the next.
 *
 *     const collie = await Collie.create('--durability=write')
 *     await collie.start()
 *     await collie.kill('SIGKILL')
 *     await collie.start()
 *     await collie.dispose()
 */
export class Collie {
  readonly dataDir: string
  readonly #directory: string
  #flags: readonly string[]
  #nodeFlags: readonly string[] = []
  #child: ChildProcess | null = null
  #info: Result<'info'> | null = null

  private constructor(directory: string, flags: readonly string[]) {
    this.#directory = directory
    this.dataDir = path.join(directory, 'data')
    this.#flags = flags
  }

  /** Not yet started. `flags` are those of `collie serve`, with or without a data directory of their own. */
  static async create(...flags: string[]): Promise<Collie> {
    const directory = mkdtempSync(path.join(tmpdir(), 'collie-e2e-'))
    const addresses: string[] = []
    for (const listener of ['listen', 'sheep-listen', 'nbd-listen']) {
      addresses.push(`--${listener}=127.0.0.1:${await freePort()}`)
    }
    return new Collie(directory, [
      `--data-dir=${path.join(directory, 'data')}`,
      '--log-level=warn',
      '--journal-size-mib=16', // all of it is written at the first start
      ...addresses,
      ...flags,
    ])
  }

  /** What the running process said of itself when it was ready. */
  get info(): Result<'info'> {
    if (this.#info === null) throw new Error('collie is not running')
    return this.#info
  }

  /** From its next start on; of what is said twice the last counts. */
  addFlags(...flags: string[]): void {
    this.#flags = [...this.#flags, ...flags]
  }

  /** From its next start on, loads a module into the process and each of its threads before anything else. */
  preload(module: URL): void {
    this.#nodeFlags = [...this.#nodeFlags, `--import=${module.href}`]
  }

  /** Resolves when everything is served; rejects with the log when the process ends instead. */
  async start(): Promise<void> {
    const child = this.begin()
    let printed = ''
    for await (const chunk of child.stdout!) {
      printed += String(chunk)
      if (!printed.endsWith('\n}\n')) continue
      this.#info = JSON.parse(printed)
      return
    }
    throw new Error(`collie serve ended instead of becoming ready\n${this.tailOfLog()}`)
  }

  /** Starts the process without waiting for it, for those who kill it on its way up. */
  begin(): ChildProcess {
    const log = openSync(path.join(this.#directory, 'log'), 'a')
    const child = spawn(process.execPath, [...this.#nodeFlags, MAIN, 'serve', '--json', ...this.#flags], {
      env: ENVIRONMENT,
      stdio: ['ignore', 'pipe', log],
    })
    closeSync(log)
    const killWithUs = () => child.kill('SIGKILL')
    process.once('exit', killWithUs)
    child.once('exit', () => process.off('exit', killWithUs))
    this.#child = child
    return child
  }

  get isRunning(): boolean {
    return this.#child !== null && this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** Sends the signal and waits for the end. Repeating it, or killing what has ended, does nothing. */
  async kill(signal: NodeJS.Signals): Promise<Ending> {
    const child = this.#child
    if (child === null) throw new Error('collie was never started')
    if (this.isRunning) {
      const ended = once(child, 'exit')
      child.kill(signal)
      await ended
    }
    this.#info = null
    return child.signalCode ?? child.exitCode!
  }

  /** Resolves when the process has ended by itself. */
  async ended(): Promise<Ending> {
    const child = this.#child
    if (child === null) throw new Error('collie was never started')
    if (this.isRunning) await once(child, 'exit')
    this.#info = null
    return child.signalCode ?? child.exitCode!
  }

  /** Runs a command of the same program on this data directory, to its end. */
  async command(...words: string[]): Promise<{ code: number | null; out: string; err: string }> {
    return runCollie(...words, `--data-dir=${this.dataDir}`)
  }

  /** `collie … --json`; rejects when it fails. */
  async ask<T>(...words: string[]): Promise<T> {
    const { code, out, err } = await this.command(...words, '--json')
    if (code !== 0) throw new Error(`collie ${words.join(' ')} ended with ${code}: ${err}${out}`)
    return JSON.parse(out)
  }

  /** The last lines of all starts. */
  tailOfLog(): string {
    const lines = readFileSync(path.join(this.#directory, 'log'), 'utf8').trimEnd().split('\n')
    return lines.slice(-LOG_LINES_SHOWN).join('\n')
  }

  /** A path beside the data directory, removed with it. */
  file(name: string): string {
    return path.join(this.#directory, name)
  }

  async dispose(): Promise<void> {
    if (this.#child !== null) await this.kill('SIGKILL')
    rmSync(this.#directory, { recursive: true })
  }
}

/** Runs the program once, to its end. */
export async function runCollie(...words: string[]): Promise<{ code: number | null; out: string; err: string }> {
  const child = spawn(process.execPath, [MAIN, ...words], { env: ENVIRONMENT, stdio: ['ignore', 'pipe', 'pipe'] })
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
  return { code: child.exitCode, out, err }
}

/** For a test file: prints the end of the server's log below each test that fails. */
export function printLogOfFailures(collie: () => Collie | undefined): void {
  afterEach(({ task }) => {
    if (task.result?.state === 'fail') console.error(`Log of collie:\n${collie()?.tailOfLog()}`)
  })
}

const WORKERS = 8
const given = new Set<number>()

/**
 * A port below the range from which the kernel serves those who ask for any: nobody takes it while the server is down,
 * and no client that knocks in vain is given the same port at its own end and so connects to itself. Whoever asks has it
 * to himself before he listens too: each worker of a test run draws from its own share, and none twice.
 */
export async function freePort(first = 15_000, end = 30_000): Promise<number> {
  const worker = Number(process.env.VITEST_POOL_ID ?? 0) % WORKERS
  for (;;) {
    const port = randomInt(first, end)
    if (port % WORKERS !== worker || given.has(port)) continue
    const server = net.createServer()
    const isFree = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => resolve(true))
    })
    if (!isFree) continue
    await new Promise((resolve) => server.close(resolve))
    given.add(port)
    return port
  }
}
