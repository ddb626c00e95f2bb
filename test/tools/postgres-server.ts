import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, existsSync, rmSync } from 'node:fs'
import type { Knex } from 'knex'
import { connectPostgres } from '../../src/db/connections.ts'
import { scratchDirectory } from './scratch.ts'

/**
 * A PostgreSQL server for tests and benches. It ends with this process, if not before. It listens on a
 * socket in its own directory only. Nothing is synced: tests kill processes, not hosts.
 */

const PROGRAMS = '/usr/lib/postgresql/15/bin'
/** PostgreSQL refuses to run as root: it is run as Debian's nobody then. */
const NOBODY = 65_534
const OPTIONS = [
  ['listen_addresses', ''],
  ['fsync', 'off'],
  ['full_page_writes', 'off'],
  ['wal_level', 'minimal'],
  ['max_wal_senders', '0'],
  ['max_wal_size', '128MB'], // most is databases that are made and dropped
  ['shared_buffers', '32MB'],
  ['max_connections', '200'],
  ['deadlock_timeout', '200ms'],
] as const

const LOG_LENGTH_MAX = 64 * 1024

/** Why there is no PostgreSQL here, for `testUnless`; false when there is. */
export const missingPostgres: string | false =
  !existsSync(`${PROGRAMS}/postgres`) && 'PostgreSQL 15 is missing: apt-get install postgresql'

export class PostgresServer {
  readonly #directory: string
  readonly #identity: { uid?: number; gid?: number }
  #child: ChildProcess | null = null
  #maintenance: Knex | null = null

  private constructor(directory: string, identity: { uid?: number; gid?: number }) {
    this.#directory = directory
    this.#identity = identity
  }

  static async create(): Promise<PostgresServer> {
    if (missingPostgres !== false) throw new Error(missingPostgres)
    const directory = scratchDirectory('collie-pg-')
    const identity = process.getuid?.() === 0 ? { uid: NOBODY, gid: NOBODY } : {}
    if (identity.uid !== undefined) chownSync(directory, identity.uid, identity.gid)
    execFileSync(
      `${PROGRAMS}/initdb`,
      // A locale whose order is not that of bytes, so that what relies on its own order shows.
      [
        '--locale-provider=icu',
        '--icu-locale=en',
        '--locale=C',
        '--encoding=UTF8',
        '--auth=trust',
        '--username=collie',
      ].concat('--no-sync', '-D', `${directory}/data`),
      { ...identity, cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] },
    )
    const server = new PostgresServer(directory, identity)
    await server.start()
    return server
  }

  /** Resolves when it takes connections. It ends with this process, however that ends. */
  async start(): Promise<void> {
    const options = OPTIONS.flatMap(([name, value]) => ['-c', `${name}=${value}`])
    // The shell holds our end of its standard input: end of file tells it that we are gone.
    const script = '"$0" "$@" & read _; kill -QUIT $!; wait'
    const child = spawn(
      'sh',
      ['-c', script, `${PROGRAMS}/postgres`, '-D', `${this.#directory}/data`, '-k', this.#directory, ...options],
      { ...this.#identity, cwd: this.#directory, stdio: ['pipe', 'ignore', 'pipe'] },
    )
    child.stdin!.on('error', () => {}) // it ended first
    this.#child = child
    await new Promise<void>((resolve, reject) => {
      let log = ''
      // Read for as long as it runs: a server that cannot write its log stands still.
      child.stderr!.on('data', (chunk) => {
        log += String(chunk)
        if (log.includes('ready to accept connections')) resolve()
        log = log.slice(-LOG_LENGTH_MAX)
      })
      child.once('exit', () => reject(new Error(`PostgreSQL did not start:\n${log}`)))
    })
  }

  /** Ends it at once, as a crash would. */
  async stop(): Promise<void> {
    await this.#maintenance?.destroy()
    this.#maintenance = null
    const child = this.#child
    if (child === null) return
    this.#child = null
    const ended = once(child, 'exit')
    child.stdin!.end()
    await ended
  }

  async dispose(): Promise<void> {
    await this.stop()
    rmSync(this.#directory, { recursive: true, force: true })
  }

  /** Runs a statement about the whole server. */
  async execute(statement: string): Promise<void> {
    this.#maintenance ??= connectPostgres(this.url('postgres'), { connectionsMax: 1 })
    await this.#maintenance.raw(statement)
  }

  url(database: string): string {
    return `postgres://collie@localhost/${database}?host=${encodeURIComponent(this.#directory)}`
  }
}
