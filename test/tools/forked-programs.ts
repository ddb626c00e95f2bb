import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { PYTHON } from './stestr.ts'

const SERVER = path.join(import.meta.dirname, 'python-commands.py')
const CLIENT = path.join(import.meta.dirname, 'python-command.py')

/**
 * Python programs of /usr/bin under their own names in a directory, for suites of others that start one for each thing they do. What is
 * started there is forked from a process that has it loaded, which spares the most of its time.
 */
export class ForkedPrograms {
  readonly directory: string
  readonly #server: ChildProcess

  private constructor(directory: string, server: ChildProcess) {
    this.directory = directory
    this.#server = server
  }

  static async start(...names: string[]): Promise<ForkedPrograms> {
    const directory = mkdtempSync(path.join(tmpdir(), 'collie-programs-'))
    for (const name of names) copyFileSync(CLIENT, path.join(directory, name))
    const server = spawn(PYTHON, [SERVER, path.join(directory, 'socket')], {
      env: { PATH: process.env.PATH, HOME: tmpdir() },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const killWithUs = () => server.kill('SIGKILL')
    process.once('exit', killWithUs)
    server.once('exit', () => process.off('exit', killWithUs))
    await once(server.stdout!, 'data')
    return new ForkedPrograms(directory, server)
  }

  async stop(): Promise<void> {
    const ended = once(this.#server, 'exit')
    this.#server.kill('SIGKILL')
    await ended
    rmSync(this.directory, { recursive: true })
  }
}
