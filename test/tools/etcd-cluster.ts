import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import { freePort } from './collie.ts'
import { ENDS_WITH_US, OWN_PREFIX, removeLeftDirectories } from './leftovers.ts'
import { commandExists, testUnless } from './require-command.ts'

const isMissing = !commandExists('etcd') && 'etcd is missing: apt-get install etcd-server'

/** `test` for tests that need etcd. */
export const withEtcd = { isPossible: isMissing === false, test: testUnless(isMissing) }

const MEMORY = '/dev/shm'
const READY_MS = 30_000
const POLL_MS = 50
/** Half of what it is by default, so that a new leader is there sooner. */
const TIMING = ['--heartbeat-interval=100', '--election-timeout=500']

/** PEM, for the address of loopback. */
export interface TlsFiles {
  readonly certificateFile: string
  readonly keyFile: string
}

interface Member {
  readonly name: string
  readonly client: string
  readonly peer: string
  process: ChildProcess | null
}

/** Some members of etcd on one host, whose files are in memory: a slow disk would cost leases here. */
export class EtcdCluster {
  readonly #directory = mkdtempSync(path.join(MEMORY, OWN_PREFIX))
  readonly #members: Member[] = []
  readonly #killWithUs = () => {
    for (const { process } of this.#members) process?.kill('SIGKILL')
    rmSync(this.#directory, { recursive: true, force: true })
  }

  readonly #tls: TlsFiles | null

  private constructor(tls: TlsFiles | null) {
    this.#tls = tls
  }

  /** With `tls` clients have to use it; the members among each other do not. */
  static async start(
    count: number,
    { tls, host = '127.0.0.1' }: { tls?: TlsFiles; host?: string } = {},
  ): Promise<EtcdCluster> {
    removeLeftDirectories(MEMORY)
    const cluster = new EtcdCluster(tls ?? null)
    process.once('exit', cluster.#killWithUs)
    for (let i = 0; i < count; i++) {
      const [client, peer] = [`${host}:${await freePort()}`, `${host}:${await freePort()}`]
      cluster.#members.push({ name: `e${i}`, client, peer, process: null })
    }
    await Promise.all(cluster.#members.map((_, index) => cluster.startMember(index)))
    if (tls === undefined) await cluster.untilReady()
    return cluster
  }

  /** `host:port` of each. */
  get endpoints(): string[] {
    return this.#members.map(({ client }) => client)
  }

  async startMember(index: number): Promise<void> {
    const member = this.#members[index]!
    const initial = this.#members.map(({ name, peer }) => `${name}=http://${peer}`).join(',')
    const scheme = this.#tls === null ? 'http' : 'https'
    const files = this.#tls === null ? [] : ['--cert-file', this.#tls.certificateFile, '--key-file', this.#tls.keyFile]
    const log = openSync(this.#logFile(member), 'a')
    member.process = spawn(
      ENDS_WITH_US[0],
      [
        [...ENDS_WITH_US.slice(1), 'etcd'],
        ['--name', member.name],
        ['--data-dir', path.join(this.#directory, member.name)],
        ['--listen-client-urls', `${scheme}://${member.client}`],
        ['--advertise-client-urls', `${scheme}://${member.client}`],
        files,
        ['--listen-peer-urls', `http://${member.peer}`],
        ['--initial-advertise-peer-urls', `http://${member.peer}`],
        ['--initial-cluster', initial],
        TIMING,
      ].flat(),
      { stdio: ['ignore', log, log] },
    )
    closeSync(log)
    await once(member.process, 'spawn')
  }

  async killMember(index: number): Promise<void> {
    const { process } = this.#members[index]!
    if (process === null) return
    const ended = once(process, 'close')
    process.kill('SIGKILL')
    await ended
    this.#members[index]!.process = null
  }

  /** Until they have a leader and take what is written. */
  async untilReady(): Promise<void> {
    const deadline = Date.now() + READY_MS
    for (const member of this.#members) {
      while (
        !(await this.post(member.client, '/v3/kv/put', { key: 'cmVhZHk=' }).then(
          ({ ok }) => ok,
          () => false,
        ))
      ) {
        if (Date.now() > deadline) throw new Error(`etcd is not ready: ${readFileSync(this.#logFile(member), 'utf8')}`)
        await new Promise((resolve) => setTimeout(resolve, POLL_MS))
      }
    }
  }

  /** A request to one member, past any proxy. */
  post(endpoint: string, request: string, body: object): Promise<Response> {
    return fetch(`http://${endpoint}${request}`, { method: 'POST', body: JSON.stringify(body) })
  }

  async stop(): Promise<void> {
    for (const index of this.#members.keys()) await this.killMember(index)
    rmSync(this.#directory, { recursive: true, force: true })
    process.off('exit', this.#killWithUs)
  }

  #logFile({ name }: Member): string {
    return path.join(this.#directory, `${name}.log`)
  }
}
