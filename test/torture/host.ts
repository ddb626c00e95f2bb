import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, openSync, readFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { CONTROL_SOCKET } from '../../src/control/messages.ts'
import type { MethodName, Params, Result } from '../../src/control/methods.ts'
import { connectControl } from '../../src/control/socket-client.ts'
import { systemNetwork } from '../../src/runtime/network.ts'
import { MAIN } from '../tools/collie.ts'
import { type NetworkHost, setCable } from '../tools/host-network.ts'
import { ENDS_WITH_US } from '../tools/leftovers.ts'
import { runCommand } from '../tools/run-command.ts'
import { Disk } from './disk.ts'

export const PORTS = { api: 8776, sheep: 7000, nbd: 10809 } as const

/** A program that runs whenever its host is on. */
interface Kept {
  log: string
  words: readonly string[]
  child: ChildProcess | null
}

/** Below the directory of a host: what it sees as its own. */
const PRIVATE_PLACES = { run: '/run', lib: '/var/lib/corosync', etc: '/etc/corosync' }
const START_MS = 60_000
const ANSWER_MS = 1500
const POLL_MS = 50
const LOG_LINES_SHOWN = 30

export interface HostOptions extends NetworkHost {
  switchNamespace: string
  /** Of this host alone; its disks are mounted there. */
  directory: string
  /** Flags of `collie serve`, beside the settings that `collie cluster` has made. */
  flags: readonly string[]
  /** Of each of its disks. */
  diskMib: number
  /** Whether its disks can fail. */
  canFail: boolean
  hasCorosync: boolean
  /** A gateway has none. */
  hasStore: boolean
}

/**
 * A host of a cluster: a network namespace with corosync and a node of Collie, and two disks of its own: one for the data directory, and
 * another one for objects. Their files stay when it is switched off.
 */
export class Host {
  readonly address: string
  readonly dataDir: string
  /** Where it has objects on its second disk. */
  readonly secondDir: string
  readonly #options: HostOptions
  readonly #disks: { first: Disk; second: Disk }
  /** Holds the mounts: as long as it runs, the host is on. */
  #keeper: ChildProcess | null = null
  #corosync: ChildProcess | null = null
  #node: ChildProcess | null = null
  /** Whether the node is to run: then it is started again when it ends by itself, as systemd does. */
  #isServing = false
  #isPaused = false
  #dropsPackets = false
  readonly #kept: Kept[] = []
  restarts = 0

  private constructor(options: HostOptions, disks: { first: Disk; second: Disk }) {
    this.#options = options
    this.#disks = disks
    this.address = options.address
    this.dataDir = path.join(disks.first.mount, 'collie')
    this.secondDir = path.join(disks.second.mount, 'objects')
  }

  /** Switched on, with nothing started. */
  static async make(options: HostOptions): Promise<Host> {
    const { directory, diskMib, canFail } = options
    for (const name of Object.keys(PRIVATE_PLACES)) mkdirSync(path.join(directory, name), { recursive: true })
    // What is mounted there later is seen by the host as well, which has a mount namespace of its own.
    await runCommand(['mount', '--bind', directory, directory])
    await runCommand(['mount', '--make-shared', directory])
    const first = await Disk.make(directory, 'first', diskMib, canFail)
    const second = await Disk.make(directory, 'second', diskMib, canFail)
    const host = new Host(options, { first, second })
    mkdirSync(host.secondDir)
    await host.switchOn()
    return host
  }

  get objectDirectories(): string[] {
    return [path.join(this.dataDir, 'sheep'), this.secondDir].map((disk) => path.join(disk, 'obj'))
  }

  get nbdAddress(): string {
    return `${this.address}:${PORTS.nbd}`
  }

  get isServing(): boolean {
    return this.#isServing && !this.#isPaused
  }

  async switchOn(): Promise<void> {
    const { directory, namespace } = this.#options
    rmSync(path.join(directory, 'run'), { recursive: true, force: true }) // as after a boot
    mkdirSync(path.join(directory, 'run'))
    const mounts = Object.entries(PRIVATE_PLACES).map(
      ([name, target]) => `mkdir -p ${target} && mount --bind "${path.join(directory, name)}" ${target}`,
    )
    const script = [...mounts, 'mount -t tmpfs none /dev/shm', 'echo on', 'exec sleep infinity']
    const words = [
      `nsenter`,
      `--net=/run/netns/${namespace}`,
      'unshare',
      '-m',
      '--propagation',
      'slave',
      'sh',
      '-c',
      script.join(' && '),
    ]
    const keeper = this.#spawn(words, 'keeper', true)
    this.#keeper = keeper
    const [said] = await Promise.race([once(keeper.stdout!, 'data'), once(keeper, 'exit')])
    if (String(said) !== 'on\n') throw new Error(`the host ${this.address} is not on: ${this.tailOfLog('keeper')}`)
    for (const kept of this.#kept) if (!kept.child) this.#startKept(kept)
  }

  /** Ends all that runs there, as when the power goes. The disk keeps what was written to it. */
  async switchOff(): Promise<void> {
    this.#isServing = false
    this.#isPaused = false
    const keeper = this.#keeper
    this.#keeper = null
    const others = this.#kept.map(({ child }) => child)
    await Promise.all([this.#node, this.#corosync, ...others, keeper].map((child) => child && end(child, 'SIGKILL')))
    this.#node = null
    this.#corosync = null
  }

  /** Its data directory fails, or the disk that has nothing but objects. */
  failDisk(which: 'first' | 'second'): Promise<void> {
    return this.#disks[which].fail()
  }

  /** Nothing that is written to it comes to an end until it goes on. */
  hangDisk(which: 'first' | 'second'): Promise<void> {
    return this.#disks[which].hang()
  }

  unhangDisk(which: 'first' | 'second'): Promise<void> {
    return this.#disks[which].goOn()
  }

  /** An empty disk in the place of one that nothing has open. */
  async replaceDisk(which: 'first' | 'second'): Promise<void> {
    await this.#disks[which].replace()
    if (which === 'second') mkdirSync(this.secondDir)
  }

  /** Resolves when it answers. */
  async startCorosync(): Promise<void> {
    if (!this.#options.hasCorosync) return
    const corosync = this.#spawn([...this.#here, 'corosync', '-f'], 'corosync')
    this.#corosync = corosync
    const deadline = Date.now() + START_MS
    for (;;) {
      const isUp = await this.run('corosync-cmapctl', '-g', 'totem.version').then(
        () => true,
        () => false,
      )
      if (isUp) return
      if (corosync.exitCode !== null || Date.now() > deadline) {
        throw new Error(`corosync did not start on ${this.address}: ${this.tailOfLog('corosync')}`)
      }
      await pause(POLL_MS)
    }
  }

  async killCorosync(): Promise<void> {
    if (this.#corosync) await end(this.#corosync, 'SIGKILL')
    this.#corosync = null
  }

  /** Starts the node, and again whenever it ends by itself. Resolves when it listens, which is before it is in the cluster. */
  async startNode(): Promise<void> {
    this.#isServing = true
    await this.#startOnce()
  }

  async #startOnce(): Promise<void> {
    const settings = path.join(this.dataDir, 'collie.yaml')
    const { flags, hasStore } = this.#options
    const role = hasStore ? `--disks=${this.secondDir}` : '--roles=gateway'
    const words = [process.execPath, MAIN, 'serve', '--json', '--config', settings, role, ...flags]
    const node = this.#spawn([...this.#here, ...words], 'collie', true)
    this.#node = node
    node.once('exit', () => {
      if (this.#node === node && this.#isServing) void this.#restart()
    })
    let printed = ''
    for await (const chunk of node.stdout!) {
      printed += String(chunk)
      if (printed.endsWith('\n}\n')) return
    }
    if (this.#isServing) throw new Error(`collie serve ended on ${this.address}: ${this.tailOfLog('collie')}`)
  }

  async #restart(): Promise<void> {
    this.restarts++
    await pause(RESTART_MS)
    if (this.#isServing) await this.#startOnce().catch(() => {}) // its end starts it again
  }

  /** Resolves when it has ended; it is not started again. */
  async killNode(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    this.#isServing = false
    if (this.#isPaused) this.continueNode()
    // What is connected to it ends as well: QEMU 5.2 goes on with a coroutine that has ended when it has to connect again.
    await Promise.all([this.#node, ...this.#kept.map(({ child }) => child)].map((child) => child && end(child, signal)))
    this.#node = null
  }

  pauseNode(): void {
    this.#isPaused = true
    this.#node?.kill('SIGSTOP')
  }

  continueNode(): void {
    this.#node?.kill('SIGCONT')
    this.#isPaused = false
  }

  cut(): Promise<void> {
    return setCable(this.#options.switchNamespace, this.address, false)
  }

  /** Until `heal`: drops what any of these conditions of nftables holds for. */
  async dropPackets({ coming = [], leaving = [] }: { coming?: string[]; leaving?: string[] }): Promise<void> {
    const chain = (hook: string, conditions: string[]) =>
      `chain ${hook} { type filter hook ${hook} priority 0; ${conditions.map((condition) => `${condition} drop;`).join(' ')} };`
    await this.run('nft', `table inet faults { ${chain('input', coming)} ${chain('output', leaving)} }`)
    this.#dropsPackets = true
  }

  /** All packets arrive again. */
  async heal(): Promise<void> {
    await setCable(this.#options.switchNamespace, this.address, true)
    if (this.#dropsPackets) await this.run('nft', 'delete table inet faults')
    this.#dropsPackets = false
  }

  /** Runs a program there whenever the host is on, and again when it has ended. */
  keepRunning(log: string, words: readonly string[]): void {
    const kept: Kept = { log, words, child: null }
    this.#kept.push(kept)
    this.#startKept(kept)
  }

  #startKept(kept: Kept): void {
    if (!this.#keeper) return
    const child = this.#spawn([...this.#here, ...kept.words], kept.log)
    kept.child = child
    child.once('exit', () => {
      if (kept.child !== child) return
      kept.child = null
      setTimeout(() => {
        if (!kept.child) this.#startKept(kept)
      }, RESTART_MS)
    })
  }

  /** A command on this host, to its end; resolves with what it printed. */
  run(...words: string[]): Promise<string> {
    return runCommand([...this.#here, ...words])
  }

  /** A command of Collie on this host, on its data directory. */
  collie(...words: string[]): Promise<string> {
    return this.run(process.execPath, MAIN, ...words, '--data-dir', this.dataDir)
  }

  /** Asks the node itself, in a bounded time. */
  async ask<M extends MethodName>(method: M, params: Params<M>): Promise<Result<M>> {
    const client = await connectControl(systemNetwork, path.join(this.dataDir, CONTROL_SOCKET))
    const timer = setTimeout(() => client.close(), ANSWER_MS)
    try {
      return await client.call(method, params)
    } finally {
      clearTimeout(timer)
      client.close()
    }
  }

  tailOfLog(name = 'collie'): string {
    const lines = readFileSync(this.#logFile(name), 'utf8').trimEnd().split('\n')
    return lines.slice(-LOG_LINES_SHOWN).join('\n')
  }

  /** Where commands run that see this host's network, files and daemons. */
  get #here(): string[] {
    if (!this.#keeper?.pid) throw new Error(`the host ${this.address} is off`)
    return ['nsenter', '-t', String(this.#keeper.pid), '-m', '-n', 'env', '-C', this.#options.directory]
  }

  #spawn(words: readonly string[], log: string, isHeard = false): ChildProcess {
    const output = openSync(this.#logFile(log), 'a')
    const [command, ...rest] = [...ENDS_WITH_US, ...words] as [string, ...string[]]
    const env = { PATH: process.env.PATH ?? '' }
    const child = spawn(command, rest, { env, stdio: ['ignore', isHeard ? 'pipe' : output, output] })
    closeSync(output)
    return child
  }

  #logFile(name: string): string {
    return path.join(this.#options.directory, `${name}.log`)
  }
}

/** That of contrib/collie.service. */
const RESTART_MS = 2000

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill(signal)
  await ended
}
