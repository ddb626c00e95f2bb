import assert from 'node:assert/strict'
import { availableParallelism } from 'node:os'
import path from 'node:path'
import { HttpMeter } from './api/metrics.ts'
import { Pace } from './api/pace.ts'
import { createApiServer } from './api/server.ts'
import { createConfiguredBackends, reachable } from './app-backends.ts'
import { openBackupTarget } from './app-backup-target.ts'
import { createMetricsDoor } from './app-metrics.ts'
import { policyOf } from './app-policy.ts'
import { serviceSettings } from './app-settings.ts'
import type { Config } from './config.ts'
import { listenAsApi } from './control/api-sockets.ts'
import { whyNoAnswer } from './control/health.ts'
import type { ControlCaller } from './control/socket-client.ts'
import { type Db, openDatabase } from './db/database.ts'
import { databaseId, exclusively } from './db/installation.ts'
import { databaseOf } from './db/location.ts'
import { createTokenVault } from './db/tokens.ts'
import { ServiceError, StartRefused } from './errors.ts'
import type { Authenticator } from './identity/authenticator.ts'
import { ensureLocalIdentity } from './identity/credentials.ts'
import { createKeystoneAuthenticator } from './identity/keystone.ts'
import { createLocalIdentity, type LocalIdentity } from './identity/local.ts'
import { createNoauth } from './identity/noauth.ts'
import { addLocalIdentity } from './identity/routes.ts'
import { addImageDiscovery } from './identity/versions.ts'
import { createKeystoneAccount, type KeystoneAccount } from './keystone/account.ts'
import { createKeystoneTokens } from './keystone/tokens.ts'
import { isOwnStore } from './own-store.ts'
import { systemClock } from './runtime/clock.ts'
import { DamagedFile, readTextFile, writeTextFile } from './runtime/files.ts'
import { createHttp, type HttpClient } from './runtime/http-client.ts'
import type { Log } from './runtime/log.ts'
import { LoopLag } from './runtime/loop-lag.ts'
import { formatAddress, parseAddress, systemNetwork } from './runtime/network.ts'
import { busySeconds } from './runtime/process-usage.ts'
import { systemRandom } from './runtime/random.ts'
import { openSystemDisk } from './runtime/system-disk.ts'
import { loadAuthorities } from './runtime/tls.ts'
import { serviceHandlers } from './service-control.ts'
import type { Backend } from './services/backends.ts'
import type { BackupTarget } from './services/backup/target.ts'
import type { ComputeService } from './services/compute/compute-service.ts'
import { computeRefusal, createNova } from './services/compute/nova.ts'
import { createServices, type RunningServices } from './services/create-services.ts'
import { createGlance } from './services/images/glance.ts'
import type { ImageOptions } from './services/images/images.ts'
import { createSpool } from './services/images/spool.ts'
import { createBarbican } from './services/keys/barbican.ts'
import type { KeyManager } from './services/keys/key-manager.ts'
import { createSeal, SEAL_KEY_BYTES, type Seal } from './services/seal.ts'
import type { VolumeCopies } from './services/volume-copies.ts'
import type { StatusDoor } from './status-listener.ts'

export interface AppOptions {
  config: Config
  log: Log
  /** To the store side of this data directory, if it has one. */
  control: ControlCaller
  /** Who moves the bytes of volumes. */
  volumeCopies: VolumeCopies
  /** Calls `listener` now and when disks of this process become busy, or quiet. */
  onDisksBusy(listener: (isBusy: boolean) => void): void
}

export interface RunningApp {
  addresses: Record<string, string>
  /** What it shows of itself, for another listener. */
  door: StatusDoor
  close(): Promise<void>
}

/** Of an attempt at a transfer: after that it is written down how far it came. */
const TRANSFER_SLICE_MS = 4000

/** What requests to the API get of a processor while disks are busy, where there are not enough for disks, the API, and the clients of both. */
const BUSY_SHARE = 0.3
const PROCESSORS_ENOUGH = 4

const SEAL_KEY_FILE = 'seal.key'
const PRIVATE = 0o600

/**
 * The root of the service side: the only place that knows api, identity, services, database and drivers. Volumes are reached
 * through the sockets of their stores, so that it makes no difference which thread or process a store is in.
 */
export async function startApp({ config, log, control, volumeCopies, onDisksBusy }: AppOptions): Promise<RunningApp> {
  const policy = policyOf(config.policy_file, log)
  const db = await openDatabase(databaseOf(config))
  const settings = serviceSettings(config)
  const backends = createConfiguredBackends(config, control)
  await refuseSecondDatabase(db, backends, log)
  const backupTarget = await openBackupTarget(config)
  void sayIfAway(backupTarget, log)
  const seal = createSeal(await exclusively(db, async () => sealKeyOf(config.data_dir)), systemRandom)
  const images = imageOptions(config, seal)
  const services = createServices({
    db,
    backends,
    backupTarget,
    volumeCopies,
    images: images?.options ?? null,
    compute: computeService(config, log),
    keys: { seal, manager: keyManagerOf(config, log) },
    clock: systemClock,
    random: systemRandom,
    log,
    settings,
  })
  await services.start()

  const { authenticator, local } = await identityOf(config, db, config.listen, log)
  const lag = new LoopLag(systemClock)
  const unready = () => whyUnready(config, control, services)
  const share = shareOf(config)
  const pace = new Pace({ clock: systemClock, busyMs: () => busySeconds() * 1000, share })
  if (share < 1) onDisksBusy((isBusy) => pace.bound(isBusy))
  const metrics = createMetricsDoor({
    http: new HttpMeter(),
    counts: services.counts,
    control,
    lag,
    pace,
    roles: config.roles,
    clock: systemClock,
    log,
  })
  const server = createApiServer({
    services,
    authenticator,
    policy,
    log,
    random: systemRandom,
    unready,
    metrics,
    pace,
    settings: { publicEndpoint: config.public_endpoint },
    servesKeys: config.key_manager === 'local',
  })
  if (local) {
    addLocalIdentity(server, local, { publicEndpoint: config.public_endpoint, imageUrl: config.image_service.url })
    if (config.image_service.url === null) addImageDiscovery(server, config.public_endpoint)
  }
  const listen = parseAddress(config.listen)
  await server.listen(listen)
  const bound = server.addresses()[0]
  const listening = bound && typeof bound === 'object' ? formatAddress(bound.address, bound.port) : config.listen
  if (local && listening !== config.listen) await identityOf(config, db, listening, log) // port 0: the files name the real one

  const onDefect = (error: unknown, method: string) => log.error({ err: error, method }, 'a control call failed')
  const handlers = serviceHandlers(services)
  const door = await listenAsApi(systemNetwork, systemRandom, config.data_dir, handlers, { onDefect })

  return {
    door: { unready, metrics: metrics.page },
    addresses: { api: 'path' in listen ? listening : `http://${listening}/v3` },
    close: async () => {
      lag.stop()
      void door.close() // a command that stays connected does not hold the process up
      const served = server.close() // waits for requests, of which some wait for work
      await services.stop()
      await served
      await backupTarget.close()
      await images?.disk.close()
      await db.destroy()
    },
  }
}

/**
 * Two databases over one store would each take for free what the other one uses: the store remembers the one that drives it.
 * A store that is away is not asked: nothing of it is changed until it has been, by whoever starts when it is there.
 */
async function refuseSecondDatabase(db: Db, backends: readonly Backend[], log: Log): Promise<void> {
  const id = await databaseId(db)
  for (const { name, driver } of backends) {
    let driving: string | undefined
    try {
      driving = await driver.drive?.(id, { replace: false })
    } catch (error) {
      log.warn({ err: error, backend: name }, 'whether another database drives this store could not be asked')
    }
    if (driving === undefined || driving === id) continue
    await db.destroy()
    throw new StartRefused(
      `another database (${driving}) says what the store of backend ${name} holds, and not this one (${id}); run one node with the role ` +
        'api, or give all of them the same PostgreSQL with `database: postgres://…`. When the other database is lost for good: collie db adopt',
    )
  }
}

/** What keeps requests from being served: the own store does not answer, or, without one, no backend does. */
async function whyUnready(config: Config, control: ControlCaller, services: RunningServices): Promise<string | null> {
  if (!config.backends.some((backend) => isOwnStore(backend, config))) return services.whyUnready()
  return whyNoAnswer(control, systemClock)
}

async function identityOf(
  config: Config,
  db: Db,
  listening: string,
  log: Log,
): Promise<{ authenticator: Authenticator; local: LocalIdentity | null }> {
  const publicEndpoint = config.public_endpoint
  if (config.auth === 'noauth') return { authenticator: createNoauth({ publicEndpoint }), local: null }
  if (config.auth === 'keystone') return { authenticator: keystoneAuthenticator(config.keystone, log), local: null }
  const { host, port } = reachable(listening, config.advertise)
  const baseUrl = publicEndpoint ?? `http://${formatAddress(host, port)}`
  const { data_dir: dataDir } = config
  const account = await exclusively(db, () => ensureLocalIdentity({ dataDir, baseUrl, random: systemRandom, log }))
  const vault = createTokenVault(db, systemClock)
  const local = createLocalIdentity({ account, vault, clock: systemClock, random: systemRandom, publicEndpoint })
  return { authenticator: local.authenticator, local }
}

function keystoneAuthenticator(keystone: Config['keystone'], log: Log): Authenticator {
  const account = keystoneAccount(keystone)
  const exchange = {
    http: httpOf('keystone', keystone),
    clock: systemClock,
    timeoutMs: keystone.timeout_seconds * 1000,
  }
  return createKeystoneAuthenticator({
    tokens: createKeystoneTokens({ ...exchange, account, cacheMs: keystone.cache_seconds * 1000 }),
    serviceRoles: keystone.service_roles,
    publicUrl: keystone.public_url ?? keystone.url ?? account.url,
    log,
  })
}

/** The account that validates tokens, and reads the catalog. */
function keystoneAccount(keystone: Config['keystone']): KeystoneAccount {
  const { url, password } = keystone
  assert(url !== null && password !== null, '`auth: keystone` without them is refused')
  return createKeystoneAccount({
    http: httpOf('keystone', keystone),
    clock: systemClock,
    timeoutMs: keystone.timeout_seconds * 1000,
    authUrl: url,
    userName: keystone.username,
    password,
    projectName: keystone.project,
    userDomainName: keystone.user_domain,
    projectDomainName: keystone.project_domain,
    interface: 'public',
    regionName: null,
    refusal: (reason) => new ServiceError('ServiceUnavailable', { reason }),
  })
}

/** For a service that the settings tell of in a group of that name. */
const httpOf = (group: string, { cafile }: { cafile: string | null }): HttpClient =>
  createHttp(loadAuthorities(`${group}.cafile`, cafile))

/** Null: keys are kept in the database. */
function keyManagerOf({ key_manager, barbican, keystone }: Config, log: Log): KeyManager | null {
  if (key_manager === 'local') return null
  const { url: fixedUrl, timeout_seconds } = barbican
  const account = fixedUrl === null ? keystoneAccount(keystone) : null
  const url = async (): Promise<string> => {
    const found = fixedUrl ?? (await account?.enter('key-manager'))?.url
    if (found) return found
    throw new ServiceError('ServiceUnavailable', { reason: "Keystone's catalog has no key manager." })
  }
  return createBarbican({ http: httpOf('barbican', barbican), url, timeoutMs: timeout_seconds * 1000, log })
}

const shareOf = ({ api_share }: Config): number =>
  api_share ?? (availableParallelism() < PROCESSORS_ENOUGH ? BUSY_SHARE : 1)

/** An operator should not hear of a wrong setting only from the first backup. */
async function sayIfAway(target: BackupTarget, log: Log): Promise<void> {
  try {
    await target.list('', 'none')
  } catch (error) {
    log.warn({ err: error }, 'backups cannot be kept')
  }
}

function imageOptions({ data_dir, image_service }: Config, seal: Seal) {
  const { url, timeout_seconds, transfers, conversion_directory, conversion_gib } = image_service
  if (url === null) return null
  const directory = path.resolve(conversion_directory ?? path.join(data_dir, 'conversion'))
  const disk = openSystemDisk(directory)
  const options: ImageOptions = {
    service: createGlance({ http: httpOf('image_service', image_service), url, timeoutMs: timeout_seconds * 1000 }),
    spool: createSpool({ disk, directory, bytesMax: conversion_gib * 1024 ** 3, random: systemRandom }),
    seal,
    transfersMax: transfers,
    sliceMs: TRANSFER_SLICE_MS,
  }
  return { disk, options }
}

function computeService({ compute_service: compute }: Config, log: Log): ComputeService | null {
  const { auth_url: authUrl, password, url } = compute
  if (authUrl === null || password === null) return null
  const timeoutMs = compute.timeout_seconds * 1000
  const http = httpOf('compute_service', compute)
  const account = createKeystoneAccount({
    http,
    clock: systemClock,
    authUrl,
    userName: compute.username,
    password,
    projectName: compute.project_name,
    userDomainName: compute.user_domain_name,
    projectDomainName: compute.project_domain_name,
    interface: compute.interface,
    regionName: compute.region_name,
    timeoutMs,
    refusal: computeRefusal,
  })
  return createNova({ http, account, url, timeoutMs, log })
}

/**
 * What keys of volumes are sealed with in the database, and tokens while they wait there. Without it nobody reads an encrypted volume whose
 * key is kept here.
 */
function sealKeyOf(dataDir: string): Buffer {
  const file = path.join(dataDir, SEAL_KEY_FILE)
  const saved = readTextFile(file)
  const key = saved === null ? systemRandom.bytes(SEAL_KEY_BYTES) : Buffer.from(saved, 'base64url')
  if (key.length !== SEAL_KEY_BYTES) throw new DamagedFile(file, new Error(`it has not ${SEAL_KEY_BYTES} bytes`))
  if (saved === null) writeTextFile(file, `${key.toString('base64url')}\n`, PRIVATE)
  return key
}
