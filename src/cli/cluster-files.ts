import path from 'node:path'
import { stringify } from 'yaml'
import { type Config, loadConfig } from '../config.ts'
import { makeDirectory, readTextFile, writeTextFile } from '../runtime/files.ts'
import { formatAddress, parseAddress } from '../runtime/network.ts'
import { type ClusterSecret, decodeKeyFile, encodeKeyFile, FOUND_FILE } from '../sheep/cluster/cluster-secret.ts'
import { corosyncConf, isPackagedCorosyncConf, readCorosyncConf } from '../sheep/cluster/corosync-files.ts'
import { corosyncOf, type JoinInfo } from '../sheep/cluster/join-token.ts'
import { type CommandCall, CommandFailure, EXIT } from './command.ts'

const KEY_FILE = 'cluster.key'
const SETTINGS_FILE = 'collie.yaml'
/** Of a volume, where its type says nothing: two may be lost, and one while another is mended. */
const COPIES = 3
const PRIVATE = 0o600
const PUBLIC = 0o644

/** Where a host keeps what makes it a node of a cluster. */
export class ClusterFiles {
  readonly dataDir: string
  readonly keyFile: string
  readonly settingsFile: string
  readonly corosyncFile: string
  readonly corosyncKeyFile: string
  readonly config: Config

  constructor({ io, argv, options }: CommandCall, corosyncDir: string) {
    const load = (more: readonly string[]) =>
      loadConfig({ argv: [...argv, ...more], env: io.env, readFile: io.readFile })
    const { config, sources } = load([])
    this.dataDir = path.resolve(config.data_dir)
    this.settingsFile = path.join(this.dataDir, SETTINGS_FILE)
    const isNamed = argv.some((flag) => flag.startsWith('--config')) || io.env.COLLIE_CONFIG !== undefined
    const hasOwn = !isNamed && sources.get('cluster') === 'default' && readTextFile(this.settingsFile) !== null
    this.config = hasOwn ? load([`--config=${this.settingsFile}`]).config : config
    this.keyFile = path.resolve(this.config.cluster_key_file ?? path.join(this.dataDir, KEY_FILE))
    const directory = path.resolve(options['corosync-dir'] ?? corosyncDir)
    this.corosyncFile = path.join(directory, 'corosync.conf')
    this.corosyncKeyFile = path.join(directory, 'authkey')
  }

  /** Null when this host is no node of a cluster. */
  readSecret(): ClusterSecret | null {
    const text = readTextFile(this.keyFile)
    if (text === null) return null
    try {
      return decodeKeyFile(text)
    } catch (error) {
      throw new CommandFailure(EXIT.DATA_UNSOUND, `${this.keyFile}: ${(error as Error).message}`)
    }
  }

  /** What this host knows of its cluster. */
  read(secret: ClusterSecret): JoinInfo {
    const { cluster } = this.config
    if (cluster !== 'corosync') return { secret, cluster, corosync: null }
    const conf = readCorosyncConf(readTextFile(this.corosyncFile) ?? '')
    if (conf?.name === secret.name) return { secret, cluster, corosync: { port: conf.port, nodes: conf.nodes } }
    const problem = `${this.corosyncFile} is not the one that was made for ${secret.name}`
    throw new CommandFailure(EXIT.CONFIG, `${problem}; --corosync-dir says where that is`)
  }

  /** All files of a node at `address`; settings that are there stay as they are. */
  write(info: JoinInfo, address: string, roles: Config['roles']): string[] {
    if (info.corosync) this.#refuseForeign(info.secret.name) // before anything is written
    makeDirectory(this.dataDir)
    writeTextFile(this.keyFile, encodeKeyFile(info.secret), PRIVATE)
    const written = [this.keyFile]
    if (readTextFile(this.settingsFile) === null) {
      writeTextFile(this.settingsFile, this.#settings(info, address, roles), PRIVATE)
      written.push(this.settingsFile)
    }
    return info.corosync ? [...written, ...this.writeCorosync(info, address)] : written
  }

  /** The next start of the node makes the cluster, of which it is the first. */
  writeFound({ secret }: JoinInfo): void {
    writeTextFile(path.join(this.dataDir, FOUND_FILE), `${secret.name}\n`, PRIVATE)
  }

  /** `address` is by which the others reach this host. */
  writeCorosync(info: JoinInfo, address = this.#listensAt): string[] {
    const cluster = corosyncOf(info)
    const nodeId = cluster.nodes.find((node) => node.address === address)?.id ?? null
    this.#refuseForeign(cluster.name)
    makeDirectory(path.dirname(this.corosyncFile))
    const text = corosyncConf(cluster, { nodeId, keyFile: this.corosyncKeyFile, logFile: null, isContained: false })
    writeTextFile(this.corosyncKeyFile, cluster.key, PRIVATE)
    writeTextFile(this.corosyncFile, text, PUBLIC)
    return [this.corosyncKeyFile, this.corosyncFile]
  }

  /** As `cluster init` and `cluster join` have written it, by which the others know this host. */
  get #listensAt(): string | null {
    const listener = parseAddress(this.config.sheep_listen)
    return 'host' in listener ? listener.host : null
  }

  /** A configuration that somebody has made for something else stays. */
  #refuseForeign(name: string): void {
    const text = readTextFile(this.corosyncFile)
    if (text === null || isPackagedCorosyncConf(text)) return
    if (readCorosyncConf(text)?.name === name) return
    const problem = `${this.corosyncFile} is of something else than the cluster ${name}`
    throw new CommandFailure(
      EXIT.CANNOT_CREATE,
      `${problem}; move it away if it is not needed, or name another --corosync-dir`,
    )
  }

  #settings({ cluster }: JoinInfo, address: string, roles: Config['roles']): string {
    const listener = parseAddress(this.config.sheep_listen)
    const port = 'port' in listener ? listener.port : 7000
    const settings = {
      data_dir: this.dataDir,
      cluster,
      cluster_key_file: this.keyFile,
      sheep_listen: formatAddress(address, port),
      advertise: address,
      copies: COPIES,
      roles: [...roles],
    }
    return `# Made by collie, once: it is yours to change. Start with \`collie serve --config ${this.settingsFile}\`.\n${stringify(settings)}`
  }
}
