import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { pathOfCommand } from './require-command.ts'

const SERVER = path.join(import.meta.dirname, 'python-commands.py')

/**
 * Runs the installed clients that are Python programs, many times. What they load takes longer than what they do, so they are
 * forked from a process that has it loaded, one after the other.
 */
export class PythonCommands {
  readonly #environment: Readonly<Record<string, string>>
  /** By the path of their interpreter. */
  readonly #servers = new Map<string, CommandServer>()

  /** `environment` is all that the programs get, beside PATH and a home without settings. */
  constructor(environment: Readonly<Record<string, string>> = {}) {
    this.#environment = environment
  }

  /**
   * Runs a program to its end and resolves with what it printed, trimmed; rejects with what it said when it fails. `environment` is
   * added to what all get.
   */
  async run(
    [command, ...words]: readonly [string, ...string[]],
    environment: Readonly<Record<string, string>> = {},
  ): Promise<string> {
    const program = pathOfCommand(command)!
    const [code, printed, said] = await this.#serverOf(program).run(program, words, environment)
    if (code !== 0) throw new Error(`${command} ${words.join(' ')} ended with ${code}: ${said}${printed}`)
    return printed.trim()
  }

  async close(): Promise<void> {
    for (const server of this.#servers.values()) await server.close()
  }

  #serverOf(program: string): CommandServer {
    const interpreter = /^#! *(\S+)/.exec(readFileSync(program, 'utf8'))![1]!
    const server = this.#servers.get(interpreter) ?? new CommandServer(interpreter, this.#environment)
    this.#servers.set(interpreter, server)
    return server
  }
}

type Answer = readonly [code: number, printed: string, said: string]

class CommandServer {
  readonly #child
  readonly #answers: AsyncIterator<string>
  #last: Promise<unknown> = Promise.resolve()

  constructor(interpreter: string, environment: Readonly<Record<string, string>>) {
    this.#child = spawn(interpreter, [SERVER], {
      env: { PATH: process.env.PATH, HOME: tmpdir(), ...environment },
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.#answers = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]()
  }

  run(program: string, words: readonly string[], environment: Readonly<Record<string, string>>): Promise<Answer> {
    const answer = this.#last.then(async () => {
      this.#child.stdin.write(`${JSON.stringify([program, words, environment])}\n`)
      const { value, done } = await this.#answers.next()
      if (done) throw new Error(`${this.#child.spawnfile} ${SERVER} has ended`)
      return JSON.parse(value) as Answer
    })
    this.#last = answer.catch(() => {})
    return answer
  }

  async close(): Promise<void> {
    const ended = once(this.#child, 'exit')
    this.#child.stdin.end()
    await ended
  }
}
