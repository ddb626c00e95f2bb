import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { systemRandom } from '../../src/runtime/random.ts'
import { type CorosyncCluster, corosyncConf, createCorosyncCluster } from '../../src/sheep/cluster/corosync-files.ts'
import { HostNetwork, type NetworkHost, setCable } from './host-network.ts'
import { ENDS_WITH_US, OWN_PREFIX, removeLeftDirectories } from './leftovers.ts'
import { commandExists, testUnless } from './require-command.ts'
import { runCommand } from './run-command.ts'

const PACKAGES: Readonly<Record<string, string>> = { corosync: 'corosync', ip: 'iproute2', nsenter: 'util-linux' }

/** `test` for tests that need corosync, and may make network namespaces for it. */
export const withCorosync = { isPossible: missing() === false, test: testUnless(missing()) }

function missing(): string | false {
  if (process.getuid?.() !== 0) return 'needs root, to make network namespaces'
  const commands = Object.keys(PACKAGES).filter((command) => !commandExists(command))
  const packages = commands.map((command) => PACKAGES[command]).join(' ')
  return commands.length > 0 && `${commands.join(', ')} missing: apt-get install ${packages}`
}

/** Below the directory of one instance of corosync: what it sees as its own. */
const PRIVATE_PLACES = { lib: '/var/lib/corosync', run: '/run' }

interface Host extends NetworkHost {
  readonly id: number
  readonly directory: string
  daemon: ChildProcess | null
}

/** Several hosts of one network; on each of them a corosync, with the files that Collie makes. */
export class CorosyncHosts {
  readonly #directory = mkdtempSync(path.join(tmpdir(), OWN_PREFIX))
  readonly #network: HostNetwork
  readonly #hosts: Host[]
  readonly #cluster: CorosyncCluster
  /** When the tests end without `stop`. */
  readonly #killWithUs = () => {
    for (const { daemon } of this.#hosts) daemon?.kill('SIGKILL')
    rmSync(this.#directory, { recursive: true, force: true })
  }

  private constructor(network: HostNetwork) {
    this.#network = network
    this.#hosts = network.hosts.map((host, index) => {
      const id = index + 1
      return { ...host, id, directory: path.join(this.#directory, String(id)), daemon: null }
    })
    const addresses = network.hosts.map(({ address }) => address)
    this.#cluster = createCorosyncCluster({ name: 'test', addresses }, systemRandom)
    process.once('exit', this.#killWithUs)
  }

  static async start(count: number): Promise<CorosyncHosts> {
    removeLeftDirectories(tmpdir())
    const hosts = new CorosyncHosts(await HostNetwork.make(count))
    try {
      for (const { id } of hosts.#hosts) await hosts.startDaemon(id)
      return hosts
    } catch (error) {
      await hosts.stop()
      throw error
    }
  }

  /** It answers nobody before it has read its files; those who need it ask until it does. */
  async startDaemon(id: number): Promise<void> {
    const host = this.#host(id)
    const within = (name: string) => path.join(host.directory, name)
    for (const name of [...Object.keys(PRIVATE_PLACES), 'etc']) mkdirSync(within(name), { recursive: true })
    const keyFile = within('etc/authkey')
    const place = { nodeId: id, keyFile, logFile: within('log'), isContained: true }
    writeFileSync(keyFile, this.#cluster.key, { mode: 0o400, flag: 'w' })
    writeFileSync(within('etc/corosync.conf'), corosyncConf(this.#cluster, place))
    const mounts = Object.entries(PRIVATE_PLACES).map(([name, target]) => `mount --bind "${within(name)}" ${target}`)
    const script = [
      'mount --make-rprivate /',
      `mkdir -p ${PRIVATE_PLACES.lib}`,
      ...mounts,
      'mount -t tmpfs none /dev/shm',
      `exec corosync -f -c "${within('etc/corosync.conf')}"`,
    ].join(' && ')
    const output = openSync(within('output'), 'a')
    const [command, ...words] = [...ENDS_WITH_US, 'ip', 'netns', 'exec', host.namespace, 'unshare', '-m']
    host.daemon = spawn(command, [...words, 'sh', '-c', script], { stdio: ['ignore', output, output] })
    closeSync(output)
    const answers = () => this.run(id, 'corosync-cmapctl', '-g', 'totem.version')
    const deadline = Date.now() + 30_000
    while (
      await answers().then(
        () => false,
        () => true,
      )
    ) {
      if (host.daemon.exitCode === null && Date.now() < deadline) continue
      throw new Error(`corosync did not start: ${this.#logOf(host)}`)
    }
  }

  /** Until all have a ring of all. */
  async untilTogether(): Promise<void> {
    const deadline = Date.now() + 30_000
    const isTogether = async (id: number) =>
      // It ends badly without a majority, and says what it has to say all the same.
      /^Total votes: +(\d+)$/m.exec(await this.run(id, 'sh', '-c', 'corosync-quorumtool -s || true'))?.[1] ===
      String(this.#hosts.length)
    for (const { id } of this.#hosts) {
      while (!(await isTogether(id))) {
        if (Date.now() > deadline) throw new Error(`the rings did not join: ${this.logs()}`)
      }
    }
  }

  async killDaemon(id: number): Promise<void> {
    const host = this.#host(id)
    if (host.daemon === null) return
    const ended = once(host.daemon, 'close')
    host.daemon.kill('SIGKILL')
    await ended
    host.daemon = null
  }

  /** Words that begin a command which runs beside the corosync of this host. */
  beside(id: number): string[] {
    const { daemon } = this.#host(id)
    if (!daemon) throw new Error(`no corosync runs on host ${id}`)
    return ['nsenter', '-t', String(daemon.pid), '-m', '-n', 'env', '-C', process.cwd()]
  }

  run(id: number, ...words: string[]): Promise<string> {
    return runCommand([...this.beside(id), ...words])
  }

  async cut(id: number): Promise<void> {
    await setCable(this.#network.switchNamespace, this.#host(id).address, false)
  }

  async heal(id: number): Promise<void> {
    await setCable(this.#network.switchNamespace, this.#host(id).address, true)
  }

  /** What it said last, for failures. */
  logs(): string {
    return this.#hosts.map((host) => `host ${host.id}: ${this.#logOf(host)}`).join('\n')
  }

  #logOf({ directory }: Host): string {
    return ['log', 'output']
      .map((name) => {
        try {
          return readFileSync(path.join(directory, name), 'utf8').split('\n').slice(-20).join('\n')
        } catch {
          return ''
        }
      })
      .join('\n')
  }

  async stop(): Promise<void> {
    for (const { id } of this.#hosts) await this.killDaemon(id)
    await this.#network.remove()
    rmSync(this.#directory, { recursive: true, force: true })
    process.off('exit', this.#killWithUs)
  }

  #host(id: number): Host {
    return this.#hosts[id - 1]!
  }
}
