import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { CommandIo } from '../../src/cli/command.ts'
import { allCommands } from '../../src/cli/commands.ts'
import { runCli } from '../../src/cli/run.ts'
import { loadConfig } from '../../src/config.ts'
import { CONTROL_SOCKET } from '../../src/control/messages.ts'
import { listenControl } from '../../src/control/socket-carrier.ts'
import { startNode } from '../../src/node.ts'
import { type Clock, systemClock } from '../../src/runtime/clock.ts'
import { createLog } from '../../src/runtime/log.ts'
import { systemNetwork } from '../../src/runtime/network.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { VdiClient } from '../../src/vdi/client.ts'
import { createSocketTransport, SHEEP_SOCKET } from '../../src/vdi/socket-transport.ts'

/** As `main` has them, but for `serve`. */
const PORTS = { network: systemNetwork, clock: systemClock, random: systemRandom }
export const COMMANDS = allCommands(PORTS)

export interface Outcome {
  code: number
  /** Lines and bytes of standard output, in one. */
  bytes: Buffer
  out: string
  err: string
}

export interface RunOptions {
  input?: AsyncIterable<Buffer> | Iterable<Buffer>
  /** Stands for the signals of the process. */
  interrupted?: AbortSignal
  onOutput?: (bytes: Buffer) => void
  env?: Record<string, string>
  clock?: Clock
}

/** Runs one command line in this process. */
export async function runCommandLine(args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const out: Buffer[] = []
  const err: string[] = []
  const io: CommandIo = {
    env: options.env ?? {},
    readFile: () => '',
    out: (text) => void out.push(Buffer.from(`${text}\n`)),
    err: (text) => void err.push(text),
    terminal: null,
    input: async function* () {
      yield* options.input ?? []
    },
    output: async (bytes) => {
      options.onOutput?.(bytes)
      out.push(Buffer.from(bytes))
    },
    interruptible: (work) => work(options.interrupted ?? new AbortController().signal),
  }
  const commands = options.clock ? allCommands({ ...PORTS, clock: options.clock }) : COMMANDS
  const code = await runCli(args, commands, io)
  const bytes = Buffer.concat(out)
  return { code, bytes, out: bytes.toString().trimEnd(), err: err.join('\n') }
}

/** The store side of `collie serve`, in this process and on a temporary data directory. */
export class LiveNode {
  readonly #directory = mkdtempSync(path.join(tmpdir(), 'collie-cli-'))
  #vdis!: VdiClient
  #close: () => Promise<void> = async () => {}

  static async start(): Promise<LiveNode> {
    const node = new LiveNode()
    await node.#open()
    return node
  }

  async #open(): Promise<void> {
    const argv = [
      `--data-dir=${this.dataDir}`,
      '--roles=store',
      '--sheep-listen=127.0.0.1:0',
      '--journal-size-mib=16',
      '--reserve-mib=0',
    ]
    const { config } = loadConfig({ argv, env: {}, readFile: () => '' })
    const fail = (reason: unknown) => {
      throw reason
    }
    const node = await startNode({
      config,
      log: createLog('silent'),
      onFailed: fail,
      onStopAsked: () => {},
      onDisksBusy: () => {},
    })
    const controlSocket = path.join(this.dataDir, CONTROL_SOCKET)
    const control = await listenControl(systemNetwork, controlSocket, node.handlers, { onDefect: fail })
    const address = path.join(this.dataDir, SHEEP_SOCKET)
    const vdis = new VdiClient(createSocketTransport({ network: systemNetwork, address }))
    this.#vdis = vdis
    this.#close = async () => {
      vdis.close()
      void control.close()
      await node.close()
    }
  }

  /** A client of the store, besides the commands. */
  get vdis(): VdiClient {
    return this.#vdis
  }

  get dataDir(): string {
    return path.join(this.#directory, 'data')
  }

  /** A path beside the data directory, removed with it. */
  file(name: string): string {
    return path.join(this.#directory, name)
  }

  run(words: readonly string[], options: RunOptions = {}): Promise<Outcome> {
    return runCommandLine(['--data-dir', this.dataDir, ...words], options)
  }

  /** The command must succeed; what it prints with `--json`. */
  async json<T>(...words: string[]): Promise<T> {
    const { code, out, err } = await this.run([...words, '--json'])
    if (code !== 0) throw new Error(`collie ${words.join(' ')} ended with ${code}: ${err}`)
    return JSON.parse(out)
  }

  /** Stops it, runs `between` on its files, and starts it again on them. */
  async restart(between: () => void): Promise<void> {
    await this.#close()
    between()
    await this.#open()
  }

  async stop(): Promise<void> {
    await this.#close()
    rmSync(this.#directory, { recursive: true })
  }
}
