import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { systemClock } from '../../../src/runtime/clock.ts'
import { type HttpPoster, systemHttpPoster } from '../../../src/runtime/http-poster.ts'
import { systemRandom } from '../../../src/runtime/random.ts'
import { loadAuthorities } from '../../../src/runtime/tls.ts'
import { joinEtcd } from '../../../src/sheep/cluster/etcd.ts'
import { parseEtcdUrl } from '../../../src/sheep/cluster/etcd-client.ts'
import { CuttableProxy } from '../../tools/cuttable-proxy.ts'
import { EtcdCluster, withEtcd } from '../../tools/etcd-cluster.ts'
import { runCommand } from '../../tools/run-command.ts'
import { groupContract, type Stage } from './group-contract.ts'
import { periodsOf } from './group-history.ts'
import { LocalMember } from './group-member.ts'
import { NodeProcess } from './process-nodes.ts'
import { untilDeadline } from './until.ts'

const NODES = ['n1', 'n2', 'n3']

/** Each node reaches each member of etcd through a proxy of its own. */
class EtcdStage implements Stage {
  readonly nodes = NODES
  readonly minority = 'is lost'
  readonly until = untilDeadline
  readonly etcd: EtcdCluster
  readonly #proxies = new Map<string, CuttableProxy[]>()
  readonly #processes = new Map<string, NodeProcess>()

  private constructor(etcd: EtcdCluster) {
    this.etcd = etcd
  }

  static async start(): Promise<EtcdStage> {
    const stage = new EtcdStage(await EtcdCluster.start(3))
    for (const node of NODES) {
      stage.#proxies.set(node, await Promise.all(stage.etcd.endpoints.map((endpoint) => CuttableProxy.start(endpoint))))
    }
    return stage
  }

  async close(): Promise<void> {
    for (const process of this.#processes.values()) await process.kill()
    for (const proxies of this.#proxies.values()) for (const proxy of proxies) await proxy.stop()
    await this.etcd.stop()
  }

  #proxiesOf(node: string): CuttableProxy[] {
    return this.#proxies.get(node)!
  }

  async join(node: string, cluster: string) {
    const hosts = this.#proxiesOf(node).map(({ address }) => address)
    const process =
      this.#processes.get(node) ?? new NodeProcess({ name: 'etcd', place: `etcd://${hosts.join(',')}/test` })
    this.#processes.set(node, process)
    return process.join(cluster)
  }

  readonly kill = async (node: string) => {
    await this.#processes.get(node)!.kill()
    this.#processes.delete(node)
  }
  readonly stop = async (node: string) => this.#processes.get(node)!.stop()
  readonly resume = async (node: string) => this.#processes.get(node)!.resume()
  readonly cut = async (node: string) => {
    for (const proxy of this.#proxiesOf(node)) proxy.cut()
  }
  readonly heal = async (node: string) => {
    for (const proxy of this.#proxiesOf(node)) proxy.heal()
  }
  readonly endEngine = async () => {
    for (const index of this.etcd.endpoints.keys()) await this.etcd.killMember(index)
  }
  readonly restartEngine = async () => {
    for (const index of this.etcd.endpoints.keys()) await this.etcd.startMember(index)
    await this.etcd.untilReady()
  }
}

describe('etcd', () => {
  let stage: EtcdStage | null = null
  beforeAll(async () => {
    if (withEtcd.isPossible) stage = await EtcdStage.start()
  })
  afterAll(async () => {
    await stage?.close()
  })
  groupContract(withEtcd.test, () => stage!, [
    'kill',
    'stop',
    'resume',
    'cut',
    'heal',
    'minority',
    'endEngine',
    'restartEngine',
  ])

  const ports = { clock: systemClock, random: systemRandom, http: systemHttpPoster() }
  const place = (cluster: string) => parseEtcdUrl(`etcd://${stage!.etcd.endpoints.join(',')}/test/${cluster}`)
  const messagesOf = ({ told }: LocalMember) =>
    periodsOf(told).flatMap(({ messages }) => messages.map((m) => m.message))

  withEtcd.test('goes on when a member of etcd ends, whichever it asked', async () => {
    const cluster = randomUUID()
    const members = [
      await LocalMember.join(joinEtcd({ ...ports, place: place(cluster) })),
      await LocalMember.join(joinEtcd({ ...ports, place: place(cluster) })),
    ]
    for (const index of stage!.etcd.endpoints.keys()) {
      await stage!.etcd.killMember(index)
      members[0]!.send({ text: `without ${index}`, count: 20 })
      const isTold = (member: LocalMember) => messagesOf(member).includes(`without ${index} 19`)
      expect(await untilDeadline(() => members.every(isTold))).toBe(true)
      await stage!.etcd.startMember(index)
      await stage!.etcd.untilReady()
    }
    for (const member of members) {
      expect(messagesOf(member)).toHaveLength(60)
      expect(member.told.some(({ kind }) => kind === 'lost')).toBe(false)
      await member.leave()
    }
  })

  withEtcd.test('drops old revisions, and nothing of a member stays behind', async () => {
    const at = place(randomUUID())
    const member = await LocalMember.join(joinEtcd({ ...ports, place: at, compactMs: 1 }))
    const [endpoint] = stage!.etcd.endpoints
    const key = Buffer.from(at.prefix).toString('base64')
    const request = { key, range_end: Buffer.from(`${at.prefix.slice(0, -1)}0`).toString('base64') }
    const range = async (revision?: number) =>
      (await (await stage!.etcd.post(endpoint!, '/v3/kv/range', { ...request, revision })).json()) as {
        count?: string
        error?: string
      }
    member.send({ text: 'one', count: 1 })
    expect(await untilDeadline(() => messagesOf(member).length === 1)).toBe(true)
    const first = Number(periodsOf(member.told)[0]!.id.split(':')[0])
    let isDropped = false
    const look = async () => {
      member.send({ text: 'more', count: 1 })
      isDropped = /compacted/.test((await range(first)).error ?? '')
    }
    for (let looks = 0; !isDropped && looks < 1000; looks++) await look()
    expect(isDropped).toBe(true)
    expect((await range()).count).toBe('2')
    await member.leave()
    expect((await range()).count).toBeUndefined()
  })
})

describe('etcd with a login', () => {
  withEtcd.test('lets in who has the password, and tells who has not', async () => {
    const etcd = await EtcdCluster.start(1)
    onTestFinished(() => etcd.stop())
    const [endpoint] = etcd.endpoints
    for (const [request, body] of [
      ['user/add', { name: 'root', password: 'secret' }],
      ['user/grant', { user: 'root', role: 'root' }],
      ['enable', {}],
    ] as const) {
      expect((await etcd.post(endpoint!, `/v3/auth/${request}`, body)).ok).toBe(true)
    }
    const ports = { clock: systemClock, random: systemRandom, http: systemHttpPoster() }
    const join = (login: string) =>
      LocalMember.join(joinEtcd({ ...ports, place: parseEtcdUrl(`etcd://${login}${endpoint}/test`) }))
    await expect(join('')).rejects.toThrow(/lets this node in/)
    const wrong = await join('root:wrong@').catch((error: Error) => error.message)
    expect(wrong).toMatch(/authentication failed/)
    expect(wrong).not.toMatch(/:wrong/)
    const member = await join('root:secret@')
    member.send({ text: 'in', count: 1 })
    expect(await untilDeadline(() => member.told.some(({ kind }) => kind === 'delivered'))).toBe(true)
    await member.leave()
  })
})

describe('etcd with TLS', () => {
  withEtcd.test('is believed by the certificate that is given, and by no other', async () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'collie-etcd-tls-'))
    onTestFinished(() => rmSync(directory, { recursive: true }))
    const tls = { certificateFile: path.join(directory, 'cert.pem'), keyFile: path.join(directory, 'key.pem') }
    const names = ['-subj', '/CN=etcd', '-addext', 'subjectAltName=IP:127.0.0.1']
    const files = ['-keyout', tls.keyFile, '-out', tls.certificateFile]
    await runCommand(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', ...names, ...files])
    const etcd = await EtcdCluster.start(1, { tls })
    onTestFinished(() => etcd.stop())
    const place = parseEtcdUrl(`etcds://${etcd.endpoints[0]}/test`)
    const join = (http: HttpPoster) =>
      LocalMember.join(joinEtcd({ clock: systemClock, random: systemRandom, http, place, joinMs: 2000 }))
    const member = await join(systemHttpPoster(loadAuthorities('cafile', tls.certificateFile)))
    member.send({ text: 'in', count: 1 })
    expect(await untilDeadline(() => member.told.some(({ kind }) => kind === 'delivered'))).toBe(true)
    await member.leave()
    const wrong = systemHttpPoster(loadAuthorities('cafile', null))
    await expect(join(wrong)).rejects.toThrow(/and cafile names no other: self-signed certificate/)
  })
})

describe('the place of etcd', () => {
  it('has hosts, a prefix, and may have a login and TLS', () => {
    const { endpoints, prefix, login } = parseEtcdUrl('etcds://me:se%40cret@one:2379,[::1]:2380/a/b')
    expect(endpoints.map(String)).toEqual(['https://one:2379/', 'https://[::1]:2380/'])
    expect({ prefix, login }).toEqual({ prefix: 'a/b/', login: { name: 'me', password: 'se@cret' } })
    expect(parseEtcdUrl('etcd://one:1/a/').prefix).toBe('a/')
    expect(parseEtcdUrl('etcd://one:1').prefix).toBe('collie/')
    expect(parseEtcdUrl('etcd://one:1/').prefix).toBe('collie/')
  })

  it.each(['http://a:1/x', 'etcd://a', 'etcd://a/x', 'etcd:///x', 'etcd://a:1,/x'])('is not %s', (text) => {
    expect(() => parseEtcdUrl(text)).toThrow(TypeError)
  })
})
