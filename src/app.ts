import { hostname } from 'node:os'
import path from 'node:path'
import { HttpMeter } from './api/metrics.ts'
import { createApiServer } from './api/server.ts'
import { createMetricsDoor } from './app-metrics.ts'
import type { Config } from './config.ts'
import type { ControlCaller } from './control/socket-client.ts'
import { openDatabase } from './db/database.ts'
import { createSheepdogDriver } from './drivers/sheepdog/driver.ts'
import type { Authenticator } from './identity/authenticator.ts'
import { ensureLocalIdentity } from './identity/credentials.ts'
import { createLocalIdentity, type LocalIdentity } from './identity/local.ts'
import { createNoauth } from './identity/noauth.ts'
import { addLocalIdentity } from './identity/routes.ts'
import { addImageDiscovery } from './identity/versions.ts'
import { systemClock } from './runtime/clock.ts'
import type { Log } from './runtime/log.ts'
import { LoopLag } from './runtime/loop-lag.ts'
import { formatAddress, parseAddress, systemNetwork } from './runtime/network.ts'
import { systemRandom } from './runtime/random.ts'
import { openSystemDisk } from './runtime/system-disk.ts'
import { createDirectoryTarget } from './services/backup/directory-target.ts'
import { createServices } from './services/create-services.ts'
import { DEFAULT_SETTINGS, type ServiceSettings } from './services/settings.ts'
import { VdiClient } from './vdi/client.ts'
import { createSocketTransport, SHEEP_SOCKET } from './vdi/socket-transport.ts'

export interface AppOptions {
  config: Config
  log: Log
  /** To the store side, which must be up. */
  control: ControlCaller
}

export interface RunningApp {
  addresses: Record<string, string>
  close(): Promise<void>
}

/** Name of the one backend, and of its pool. */
const BACKEND = 'sheepdog'
const BACKUP_DIRECTORY = 'backups'
const DATABASE_FILE = 'collie.db'
const HEALTH_TIMEOUT_MS = 2000

/**
 * The root of the service side: the only place that knows api, identity, services, database and drivers. Volumes are reached
 * through the store's own socket, so that it makes no difference which thread or process the store is in.
 */
export async function startApp({ config, log, control }: AppOptions): Promise<RunningApp> {
  const db = await openDatabase({ file: path.resolve(config.data_dir, DATABASE_FILE) })
  const settings = serviceSettings(config)
  const address = path.resolve(config.data_dir, SHEEP_SOCKET)
  const { addresses } = await control.call('info', {})
  const driver = createSheepdogDriver({
    vdis: new VdiClient(createSocketTransport({ network: systemNetwork, address })),
    random: systemRandom,
    poolName: BACKEND,
    nbd: reachable(addresses.nbd ?? config.nbd_listen, config.advertise),
    drained: async (attachmentId) => {
      await control.call('export_drained', { attachment_id: attachmentId })
    },
  })
  const backupDisk = await openBackupDirectory(config)
  const services = createServices({
    db,
    backends: [{ name: BACKEND, availabilityZone: config.availability_zone, driver }],
    backupTarget: createDirectoryTarget(backupDisk),
    clock: systemClock,
    random: systemRandom,
    log,
    settings,
  })
  await services.start()

  const { authenticator, local } = await identityOf(config, config.listen, log)
  const lag = new LoopLag(systemClock)
  const server = createApiServer({
    services,
    authenticator,
    log,
    random: systemRandom,
    unready: () => whyUnready(control),
    metrics: createMetricsDoor({
      http: new HttpMeter(),
      counts: services.counts,
      control,
      lag,
      roles: config.roles,
      clock: systemClock,
      log,
    }),
    settings: { availabilityZones: [config.availability_zone], publicEndpoint: config.public_endpoint },
  })
  if (local) {
    addLocalIdentity(server, local, config.public_endpoint)
    addImageDiscovery(server, config.public_endpoint)
  }
  const listen = parseAddress(config.listen)
  await server.listen(listen)
  const bound = server.addresses()[0]
  const listening = bound && typeof bound === 'object' ? formatAddress(bound.address, bound.port) : config.listen
  if (local && listening !== config.listen) await identityOf(config, listening, log) // port 0: the files name the real one

  return {
    addresses: { api: 'path' in listen ? listening : `http://${listening}/v3` },
    close: async () => {
      lag.stop()
      const served = server.close() // waits for requests, of which some wait for work
      await services.stop()
      await served
      await backupDisk.close()
      await db.destroy()
    },
  }
}

/** What keeps requests from being served: a store that does not answer. */
async function whyUnready(control: ControlCaller): Promise<string | null> {
  const tooLate = systemClock.sleep(HEALTH_TIMEOUT_MS).then(() => 'The store does not answer.')
  const answer = control.call('ping', {}).then(
    () => null,
    (error: Error) => `The store cannot be reached: ${error.message}`,
  )
  return Promise.race([answer, tooLate])
}

async function identityOf(
  config: Config,
  listening: string,
  log: Log,
): Promise<{ authenticator: Authenticator; local: LocalIdentity | null }> {
  const publicEndpoint = config.public_endpoint
  if (config.auth === 'noauth') return { authenticator: createNoauth({ publicEndpoint }), local: null }
  const { host, port } = reachable(listening, config.advertise)
  const baseUrl = publicEndpoint ?? `http://${formatAddress(host, port)}`
  const account = await ensureLocalIdentity({ dataDir: config.data_dir, baseUrl, random: systemRandom, log })
  const local = createLocalIdentity({ account, clock: systemClock, random: systemRandom, publicEndpoint })
  return { authenticator: local.authenticator, local }
}

async function openBackupDirectory({ backup, data_dir }: Config): Promise<ReturnType<typeof openSystemDisk>> {
  const disk = openSystemDisk(path.resolve(backup.directory ?? path.join(data_dir, BACKUP_DIRECTORY)))
  await disk.makeDirectory('.')
  return disk
}

function serviceSettings(config: Config): ServiceSettings {
  const { quota } = config
  return {
    ...DEFAULT_SETTINGS,
    hostName: hostname(),
    availabilityZone: config.availability_zone,
    quota: {
      volumes: quota.volumes,
      snapshots: quota.snapshots,
      gigabytes: quota.gigabytes,
      perVolumeGigabytes: quota.per_volume_gigabytes,
      backups: quota.backups,
      backupGigabytes: quota.backup_gigabytes,
    },
  }
}

/** Where others reach what listens on `address`: a listener on all addresses is reached by the advertised one. */
function reachable(address: string, advertise: string | null): { host: string; port: number } {
  const parsed = parseAddress(address)
  if ('path' in parsed) return { host: advertise ?? 'localhost', port: 0 }
  const everywhere = ['', '0.0.0.0', '::'].includes(parsed.host)
  return { host: advertise ?? (everywhere ? hostname() : parsed.host), port: parsed.port }
}
