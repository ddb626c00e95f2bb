import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { freePort } from './collie.ts'
import { ForeignServer } from './foreign-server.ts'
import type { Keystone } from './keystone.ts'
import type { Libvirt } from './libvirt.ts'
import { MARIADB_PROGRAMS, MariadbServer } from './mariadb-server.ts'
import { RABBITMQ_PROGRAMS, RabbitmqServer } from './rabbitmq-server.ts'
import { Started } from './started.ts'

/**
 * Debian's Nova on loopback: API, conductor, scheduler and two compute hosts, with the placement service, MariaDB and RabbitMQ. Tokens
 * are checked by a Keystone, whose catalog names the services; of Neutron there is only what says that there are no networks.
 *
 * The compute hosts have Nova's fake driver: a server is an entry in their memory. It takes any connection to a volume and opens none. All
 * else is as for any driver: what Nova asks of block storage, in which order, and what it does when that fails. Or there is one host, whose servers
 * are machines of QEMU (by emulation) under a libvirt, with disks over NBD.
 */

export const NOVA_PROGRAMS = {
  ...MARIADB_PROGRAMS,
  ...RABBITMQ_PROGRAMS,
  'nova-api': 'nova-api',
  'nova-conductor': 'nova-conductor',
  'nova-scheduler': 'nova-scheduler',
  'nova-compute': 'nova-compute',
  'nova-manage': 'nova-api',
  'placement-api': 'placement-api',
}

/** As docs/nova.md has it on hosts with libvirt. */
const COMPUTE_WITH_NBD = path.resolve(import.meta.dirname, '../../contrib/nova-compute-nbd')

const PASTE = '/usr/share/nova-common/api-paste.ini'
const READY_MS = 60_000
const POLL_MS = 250
const LOG_LINES_SHOWN = 40

/** Nova's compute hosts; with libvirt the first one. */
const HOSTS = ['compute-1', 'compute-2'] as const

/** A volume of a server, as Nova's own table has it. */
export interface HeldVolume {
  attachmentId: string
  /** What Nova got of block storage, with its own notes. */
  connectionInfo: { driver_volume_type: string; data: Record<string, unknown> }
}

export class Nova {
  /** Of its API, `http://…/v2.1`. */
  readonly url: string
  readonly #directory: string
  readonly #database: MariadbServer
  readonly #started: Started

  private constructor(url: string, directory: string, database: MariadbServer, started: Started) {
    this.url = url
    this.#directory = directory
    this.#database = database
    this.#started = started
  }

  /**
   * `user` is an account in the project `service` of the roles `admin` and `service`. Nova finds block storage and images in the catalog, as
   * soon as they are there.
   */
  static async start(keystone: Keystone, user: string, libvirt: Libvirt | null): Promise<Nova> {
    const started = new Started()
    try {
      const directory = mkdtempSync(path.join(tmpdir(), 'collie-nova-'))
      started.onStop(() => rmSync(directory, { recursive: true, force: true }))
      const broker = started.keep(await RabbitmqServer.start())
      const database = started.keep(await MariadbServer.start('nova_api', 'nova', 'nova_cell0', 'placement'))
      const port = await freePort()
      const nova = new Nova(`http://127.0.0.1:${port}/v2.1`, directory, database, started)
      const hosts = libvirt ? HOSTS.slice(0, 1) : HOSTS
      nova.#configure({ keystone, user, port, directory, database, brokerUrl: broker.url, hosts, libvirt })
      await nova.#migrate()
      started.keep(await startNetworks(keystone))
      started.keep(await nova.#startPlacement(keystone))
      await keystone.register('compute', 'nova', nova.url)
      await started.keepAll(nova.#startDaemons(hosts, libvirt ? COMPUTE_WITH_NBD : 'nova-compute'))
      await nova.#untilHostsAreKnown(hosts.length)
      return nova
    } catch (error) {
      await started.stop()
      throw error
    }
  }

  /** What Nova was told of a volume of a server; null before, and when it has let it go. */
  async heldVolume(serverId: string, volumeId: string): Promise<HeldVolume | null> {
    const [row] = await this.#database.query(
      `select attachment_id, connection_info from nova.block_device_mapping
       where instance_uuid = '${serverId}' and volume_id = '${volumeId}' and deleted = 0 and connection_info is not null`,
    )
    if (row === undefined) return null
    const [attachmentId, connectionInfo] = row.split('\t')
    return { attachmentId: attachmentId!, connectionInfo: JSON.parse(connectionInfo!) }
  }

  /** The last errors of all its processes. */
  tailOfLogs(): string {
    const lines = readdirSync(this.#at('log')).flatMap((name) =>
      readFileSync(this.#at(`log/${name}`), 'utf8')
        .split('\n')
        .filter((line) => / ERROR /.test(line) && !line.includes('No DB access allowed')) // said at each start
        .slice(-LOG_LINES_SHOWN)
        .map((line) => `${name}: ${line}`),
    )
    return lines.join('\n')
  }

  async stop(): Promise<void> {
    await this.#started.stop()
  }

  #configuration(name: string): string[] {
    return ['nova.conf', `${name}.conf`].flatMap((file) => ['--config-file', this.#at(file)])
  }

  #startDaemons(hosts: readonly string[], compute: string): Promise<ForeignServer>[] {
    const start = (program: string, name: string, url: string | (() => Promise<boolean>)) =>
      ForeignServer.start({
        words: [program, ...this.#configuration(name), '--log-file', this.#at(`log/${name}`)],
        url,
        env: { HOME: this.#directory },
      })
    const isUp = (name: string) => async () => (await this.#servicesUp()).includes(name)
    return [
      start('nova-api', 'api', this.url),
      ...['conductor', 'scheduler'].map((name) => start(`nova-${name}`, name, isUp(`nova-${name}`))),
      ...hosts.map((name) => start(compute, name, isUp(`nova-compute ${name}`))),
    ]
  }

  #configure(settings: Settings): void {
    for (const name of ['log', 'lock', 'placement']) mkdirSync(this.#at(name))
    for (const name of settings.hosts) mkdirSync(this.#at(`${name}/instances`), { recursive: true })
    writeFileSync(this.#at('nova.conf'), novaConfiguration(settings))
    for (const name of ['api', 'conductor', 'scheduler', 'cell1']) writeFileSync(this.#at(`${name}.conf`), '')
    for (const name of settings.hosts) writeFileSync(this.#at(`${name}.conf`), hostConfiguration(settings, name))
    writeFileSync(this.#at('cell0.conf'), `[database]\nconnection = ${settings.database.url('nova_cell0')}\n`)
    writeFileSync(this.#at('placement/placement.conf'), placementConfiguration(settings))
  }

  /** Programs of Python, each of which takes seconds to begin: what does not need the other runs beside it. */
  async #migrate(): Promise<void> {
    const manage = (cell: string, ...words: string[]) =>
      promisify(execFile)('nova-manage', [...this.#configuration(cell), ...words])
    await Promise.all([
      ...['cell0', 'cell1'].map((cell) => manage(cell, 'db', 'sync', '--local_cell')),
      (async () => {
        await manage('cell1', 'api_db', 'sync')
        await manage('cell1', 'cell_v2', 'map_cell0', '--database_connection', this.#database.url('nova_cell0'))
        await manage('cell1', 'cell_v2', 'create_cell', '--name', 'cell1')
      })(),
    ])
  }

  async #startPlacement(keystone: Keystone): Promise<ForeignServer> {
    const port = await freePort()
    const url = `http://127.0.0.1:${port}`
    const words = ['placement-api', '--host', '127.0.0.1', '--port', String(port)] as const
    const server = await ForeignServer.start({ words, url, env: { OS_PLACEMENT_CONFIG_DIR: this.#at('placement') } })
    await keystone.register('placement', 'placement', url)
    return server
  }

  /** Those that have said so, by program; of compute hosts by program and name. */
  async #servicesUp(): Promise<string[]> {
    const name = "if(topic = 'compute', concat(`binary`, ' ', host), `binary`)"
    return this.#database.query(`select ${name} from nova.services where deleted = 0`)
  }

  /** The scheduler looks every second for hosts that it does not know. */
  async #untilHostsAreKnown(count: number): Promise<void> {
    for (const deadline = Date.now() + READY_MS; ; await new Promise((resolve) => setTimeout(resolve, POLL_MS))) {
      const [hosts] = await this.#database.query('select count(*) from nova_api.host_mappings')
      if (hosts === String(count)) return
      if (Date.now() > deadline) throw new Error(`Nova does not find its hosts:\n${this.tailOfLogs()}`)
    }
  }

  #at(name: string): string {
    return path.join(this.#directory, name)
  }
}

/** As much of Neutron as there is to say of a cloud without networks. */
async function startNetworks(keystone: Keystone): Promise<{ stop(): Promise<void> }> {
  const server = http.createServer((request, response) => {
    request.resume()
    const kind = /\/v2\.0\/([a-z-]+)/.exec(request.url!)?.[1]?.replace('-', '_') ?? 'versions'
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ [kind]: [] }))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  await keystone.register('network', 'neutron', `http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  return {
    stop: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

interface Settings {
  keystone: Keystone
  user: string
  port: number
  directory: string
  database: MariadbServer
  brokerUrl: string
  hosts: readonly string[]
  libvirt: Libvirt | null
}

const account = ({ keystone, user }: Settings) => `
auth_type = password
auth_url = ${keystone.url}
username = ${user}
password = ${keystone.password}
project_name = service
user_domain_id = default
project_domain_id = default
region_name = RegionOne`

const novaConfiguration = (settings: Settings): string => `
[DEFAULT]
transport_url = ${settings.brokerUrl}
compute_driver = fake.FakeDriver
my_ip = 127.0.0.1
state_path = ${settings.directory}
enabled_apis = osapi_compute
osapi_compute_listen = 127.0.0.1
osapi_compute_listen_port = ${settings.port}
osapi_compute_workers = 1
rpc_response_timeout = 180
[quota]
instances = -1
cores = -1
ram = -1
[wsgi]
api_paste_config = ${PASTE}
[api_database]
connection = ${settings.database.url('nova_api')}
[database]
connection = ${settings.database.url('nova')}
[oslo_concurrency]
lock_path = ${settings.directory}/lock
[conductor]
workers = 1
[scheduler]
workers = 1
discover_hosts_in_cells_interval = 1
[keystone_authtoken]${account(settings)}
www_authenticate_uri = ${settings.keystone.url}
service_token_roles_required = true
[service_user]${account(settings)}
send_service_user_token = true
[placement]${account(settings)}
[neutron]${account(settings)}
[cinder]
catalog_info = volumev3::publicURL
os_region_name = RegionOne
[key_manager]
backend = barbican
[barbican]
auth_endpoint = ${settings.keystone.url}
`

const hostConfiguration = ({ directory, libvirt }: Settings, name: string): string => `
[DEFAULT]
host = ${name}
state_path = ${directory}/${name}
${libvirt ? libvirtConfiguration(libvirt.uri, [`${directory}/nova.conf`, `${directory}/${name}.conf`]) : ''}`

/** Root needs no help to become root. A guest without a system does not hear that it is to stop. */
function libvirtConfiguration(uri: string, files: readonly string[]): string {
  const helper = `helper_command = /usr/bin/privsep-helper ${files.map((file) => `--config-file ${file}`).join(' ')}`
  return `
compute_driver = libvirt.LibvirtDriver
shutdown_timeout = 1
[libvirt]
virt_type = qemu
connection_uri = ${uri}
cpu_mode = none
[vnc]
enabled = false
[nova_sys_admin]
${helper}
[privsep_osbrick]
${helper}
`
}

const placementConfiguration = (settings: Settings): string => `
[placement_database]
connection = ${settings.database.url('placement')}
sync_on_startup = true
[keystone_authtoken]${account(settings)}
www_authenticate_uri = ${settings.keystone.url}
`
