import { execFile } from 'node:child_process'
import { rmSync } from 'node:fs'
import { userInfo } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { ForeignServer, isListening } from './foreign-server.ts'
import { scratchDirectory } from './scratch.ts'
import { Started } from './started.ts'

/** The programs that it needs, and the Debian packages that bring them. */
export const MARIADB_PROGRAMS = {
  mariadbd: 'mariadb-server',
  'mariadb-install-db': 'mariadb-server',
  mariadb: 'mariadb-server',
}

/** Nothing is synced: tests kill processes, not hosts. */
const OPTIONS = ['--skip-networking', '--skip-log-bin', '--innodb-flush-log-at-trx-commit=0', '--innodb-doublewrite=0']

/** Debian's MariaDB on a socket in its own directory, where root needs no password. */
export class MariadbServer {
  readonly #directory: string
  readonly #started: Started

  private constructor(directory: string, started: Started) {
    this.#directory = directory
    this.#started = started
  }

  /** With databases of these names, which are empty. */
  static async start(...databases: string[]): Promise<MariadbServer> {
    const directory = scratchDirectory('collie-mariadb-')
    const started = new Started()
    started.onStop(() => rmSync(directory, { recursive: true, force: true }))
    try {
      const common = ['--no-defaults', `--user=${userInfo().username}`, `--datadir=${directory}/data`]
      const making = ['--auth-root-authentication-method=normal', '--skip-test-db']
      await promisify(execFile)('mariadb-install-db', [...common, ...making])
      const server = await ForeignServer.start({
        words: ['mariadbd', ...common, `--socket=${socketIn(directory)}`, ...OPTIONS],
        url: () => isListening({ path: socketIn(directory) }),
      })
      started.keep(server)
      const mariadb = new MariadbServer(directory, started)
      for (const name of databases) await mariadb.query(`create database ${name} character set utf8mb3`)
      return mariadb
    } catch (error) {
      await started.stop()
      throw error
    }
  }

  /** As SQLAlchemy wants it. */
  url(database: string): string {
    return `mysql+pymysql://root@localhost/${database}?unix_socket=${socketIn(this.#directory)}`
  }

  /** Resolves with a row a line, the columns separated by tabs. */
  async query(statement: string): Promise<string[]> {
    const words = ['--no-defaults', '--user=root', `--socket=${socketIn(this.#directory)}`, '--batch', '--raw']
    const { stdout } = await promisify(execFile)('mariadb', [...words, '--skip-column-names', '-e', statement])
    return stdout.split('\n').filter((line) => line !== '')
  }

  async stop(): Promise<void> {
    await this.#started.stop()
  }
}

const socketIn = (directory: string) => path.join(directory, 'socket')
