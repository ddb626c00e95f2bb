import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import net from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'

const START_MS = 60_000
const POLL_MS = 50
const LOG_CHARACTERS = 10_000

const running = new Set<ChildProcess>()
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

export interface ForeignServerOptions {
  /** The program and its arguments. */
  words: readonly [string, ...string[]]
  /** Answers something, whatever it is, as soon as the server serves; or tells whether it does. */
  url: string | (() => Promise<boolean>)
  /** Added to the environment of the caller. */
  env?: Readonly<Record<string, string>>
}

/** A server of somebody else's as a process of its own. It ends with the process that started it, if not before. */
export class ForeignServer {
  readonly #child: ChildProcess

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  /** Resolves when it serves; rejects with the end of its log when it ends instead, or takes too long. */
  static async start({ words: [program, ...words], url, env }: ForeignServerOptions): Promise<ForeignServer> {
    const child = spawn(program, words, { env: { ...process.env, ...env }, stdio: ['ignore', 'ignore', 'pipe'] })
    running.add(child)
    child.once('exit', () => running.delete(child))
    let log = ''
    child.stderr.on('data', (chunk) => {
      log = (log + String(chunk)).slice(-LOG_CHARACTERS)
    })
    const server = new ForeignServer(child)
    const isServing = typeof url === 'string' ? () => answers(url) : url
    for (const deadline = Date.now() + START_MS; !(await isServing()); await pause(POLL_MS)) {
      if (server.#isRunning && Date.now() < deadline) continue
      await server.stop()
      throw new Error(`${program} did not start:\n${log}`)
    }
    return server
  }

  async stop(): Promise<void> {
    if (!this.#isRunning) return
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await ended
  }

  get #isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null
  }
}

async function answers(url: string): Promise<boolean> {
  try {
    await (await fetch(url)).text()
    return true
  } catch {
    return false
  }
}

/** Whether somebody takes connections there: for servers that do not speak HTTP. */
export const isListening = (where: net.NetConnectOpts) =>
  new Promise<boolean>((resolve) => {
    const socket = net.connect(where)
    socket.once('error', () => resolve(false))
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
  })
