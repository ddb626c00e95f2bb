import type { Db } from '../db/database.ts'
import * as hostUsage from '../db/host-usage.ts'
import * as volumeTypes from '../db/volume-types.ts'
import * as volumes from '../db/volumes.ts'
import * as workRows from '../db/work.ts'
import { invalidInput, ServiceError } from '../errors.ts'
import type { Log } from '../runtime/log.ts'
import { capabilitiesOf } from '../scheduler/capabilities.ts'
import type { Capability } from '../scheduler/extra-specs.ts'
import { splitHost } from '../scheduler/place.ts'
import { NO_HINTS, type Pool, place } from '../scheduler/scheduler.ts'
import type { RequestContext } from './context.ts'
import type { Parts } from './parts.ts'
import { zonesOf } from './placement.ts'
import { toPairs } from './rows.ts'
import type { Binary } from './service-states.ts'
import type {
  BackendCapabilities,
  BackendService,
  CleanedService,
  CleanupRequest,
  HostResources,
  ServiceInfo,
} from './services.ts'

/** Upstream's names of the levels that a log can be set to, and those of ours. */
const LEVELS: Readonly<Record<string, string>> = { DEBUG: 'debug', INFO: 'info', WARNING: 'warn', ERROR: 'error' }

/** The one logger of the process, by the name that `prefix` is compared with. */
const LOGGER = 'collie'

/** Services that are there once, whatever the backends. */
const SINGLE_SERVICES = ['cinder-scheduler', 'cinder-backup'] as const satisfies readonly Binary[]

type AdminParts = Pick<Parts, 'db' | 'backends' | 'pools' | 'states' | 'settings' | 'stamp' | 'work'> & { log: Log }

/**
 * The services, hosts and pools that administrators know from upstream. Here all are one process: a scheduler and a backup service
 * that are up while it answers, and for each backend a volume service that is up while the backend is.
 */
export function createBackendService(parts: AdminParts): BackendService {
  const { db, backends, pools, states, settings, stamp, work, log } = parts
  const hostOfBackend = (name: string) => `${settings.hostName}@${name}`
  const backendOfHost = (host: string) => backends.all.find(({ name }) => hostOfBackend(name) === host)
  /** To be looked at, a host is the first of its backends, as upstream takes the first service that is found. */
  const shownBackend = (host: string) => backends.all.find(({ name }) => matchesHost(hostOfBackend(name), host))

  function listServices(): ServiceInfo[] {
    return [
      singleService('cinder-scheduler'),
      ...backends.all.map(({ name, availabilityZone }): ServiceInfo => {
        const { disabled, disabledReason, frozen } = states.of('cinder-volume', name)
        const { up, heardAt } = pools.health(name)
        return {
          binary: 'cinder-volume',
          host: hostOfBackend(name),
          zone: availabilityZone,
          disabled,
          disabledReason,
          up,
          updatedAt: heardAt,
          frozen,
        }
      }),
      singleService('cinder-backup'),
    ]
  }

  function singleService(binary: (typeof SINGLE_SERVICES)[number]): ServiceInfo {
    const { disabled, disabledReason } = states.of(binary, '')
    const { hostName: host, availabilityZone: zone } = settings
    return { binary, host, zone, disabled, disabledReason, up: true, updatedAt: stamp(), frozen: null }
  }

  /** The name under which a service's state is kept. Throws ServiceNotFound. */
  function nameOf(host: string, binary: string): { binary: Binary; name: string } {
    const single = SINGLE_SERVICES.find((name) => name === binary)
    if (single !== undefined && host === settings.hostName) return { binary: single, name: '' }
    const backend = backendOfHost(host)
    if (binary === 'cinder-volume' && backend !== undefined) return { binary, name: backend.name }
    throw new ServiceError('ServiceNotFound', { service_id: binary, host })
  }

  async function setFrozen(context: RequestContext, host: string, frozen: boolean): Promise<void> {
    context.authorize(frozen ? 'volume:freeze_host' : 'volume:thaw_host', { projectId: context.projectId })
    const backend = servedBackend(host)
    if (await states.setFrozen(backend.name, frozen)) {
      log.info({ backend: backend.name }, frozen ? 'the backend is frozen' : 'the backend is thawed')
      return
    }
    throw unchangeable('frozen', host, frozen ? 'False' : 'True', '')
  }

  /** The volume service that work on a resource goes to. */
  async function hostOfWork(resourceId: string): Promise<string> {
    const unit = await workRows.findByResource(db, resourceId)
    if (unit === undefined) throw invalidInput(`There is no resource with UUID ${resourceId} pending cleanup.`)
    const host = (await volumes.find(db, unit.lane))?.host
    return host ? hostOfBackend(splitHost(host).backend) : settings.hostName // one that is not placed yet is the scheduler's
  }

  function servedBackend(host: string) {
    const backend = backendOfHost(host)
    if (backend !== undefined) return backend
    throw new ServiceError('InvalidInput', { reason: `No service found with host=${host}` })
  }

  return {
    zones: async () => {
      await states.load()
      return zonesOf(backends, states)
    },
    services: async (context, { host, binary }) => {
      authorize(context, 'volume_extension:services:index')
      await pools.current()
      return listServices().filter(
        (service) =>
          (host === null || matchesHost(service.host, host)) && (binary === null || service.binary === binary),
      )
    },
    setDisabled: async (context, { host, binary }, disabled, reason) => {
      authorize(context, 'volume_extension:services:update')
      const key = nameOf(host, binary)
      await states.setDisabled(key.binary, key.name, disabled, reason)
      log.info({ binary, host, reason }, disabled ? 'the service is disabled' : 'the service is enabled')
    },
    freeze: (context, host) => setFrozen(context, host, true),
    thaw: (context, host) => setFrozen(context, host, false),
    failOver: async (context, host) => {
      context.authorize('volume:failover_host', { projectId: context.projectId })
      servedBackend(host)
      // No backend is replicated to a second one that could take over.
      throw unchangeable('replication_status', host, "['enabled', 'failed-over']", 'and must be up ')
    },
    logLevels: async (context, { binary, server, prefix }) => {
      authorize(context, 'volume_extension:services:update')
      const level = Object.entries(LEVELS).find(([, ours]) => ours === log.level)?.[0] ?? log.level.toUpperCase()
      const levels = LOGGER.startsWith(prefix) ? { [LOGGER]: level } : {}
      const api = { binary: 'cinder-api', host: settings.hostName }
      await pools.current()
      const services = [api, ...listServices().filter(({ up }) => up)]
      return services
        .filter((service) => isAny(binary) || service.binary === binary)
        .filter(({ host }) => server === '' || host === server)
        .map((service) => ({ binary: service.binary, host: service.host, levels }))
    },
    setLogLevel: async (context, { prefix }, level) => {
      authorize(context, 'volume_extension:services:update')
      const ours = LEVELS[level.toUpperCase()]
      if (ours === undefined) throw invalidInput(`${level} is not a valid log level.`)
      if (!LOGGER.startsWith(prefix)) return
      log.level = ours
      log.info({ level: ours }, 'the log level was set')
    },
    cleanUp: async (context, which) => {
      authorize(context, 'workers:cleanup')
      const workHost = which.resourceId === null ? null : await hostOfWork(which.resourceId)
      await pools.current()
      const services = listServices()
        .map((service, index): CleanedService => ({ ...service, id: index + 1 }))
        .filter((service) => isMeant(service, which) && (workHost === null || service.host === workHost))
      await work.takeOver()
      return { cleaning: services.filter(({ up }) => up), unavailable: services.filter(({ up }) => !up) }
    },
    hosts: async (context, zone) => {
      authorize(context, 'volume_extension:hosts')
      await pools.current()
      return listServices().filter((service) => !service.disabled && (zone === null || service.zone === zone))
    },
    setHostEnabled: async (context, host, enabled) => {
      authorize(context, 'volume_extension:hosts')
      const service = listServices().find((one) => one.host === host)
      if (service === undefined) throw new ServiceError('HostNotFound', { host })
      const key = nameOf(host, service.binary)
      await states.setDisabled(key.binary, key.name, !enabled, null)
    },
    hostResources: async (context, host) => {
      authorize(context, 'volume_extension:hosts')
      const backend = shownBackend(host)
      if (backend === undefined) throw new ServiceError('ServiceNotFound', { service_id: 'cinder-volume', host })
      return resourcesOf(db, backend.name)
    },
    pools: async (context, { volumeType, matching }) => {
      authorize(context, 'scheduler_extension:scheduler_stats:get_pools')
      const open = (await pools.current()).filter(({ closed }) => closed === null)
      const wanted = volumeType === null ? open : await fittingType(db, open, volumeType)
      return wanted.map((pool) => ({ name: pool.name, capabilities: reportOf(pool) })).filter(matching)
    },
    capabilities: async (context, host) => {
      authorize(context, 'volume_extension:capabilities')
      const backend = shownBackend(host)
      if (backend === undefined) throw new ServiceError('BackendNotFound', { host })
      const pool = (await pools.current()).find(({ backendName }) => backendName === backend.name)
      return describeBackend(backend.name, backend.volumeBackendName ?? backend.name, pool, backend.driver.capabilities)
    },
  }
}

/** Whether upstream's filters let a service pass. */
function isMeant(service: CleanedService, which: CleanupRequest): boolean {
  const { serviceId, cluster, host, binary, isUp, disabled } = which
  if (cluster !== null) return false // there is none
  return (
    (serviceId === null || service.id === serviceId) &&
    (host === null || matchesHost(service.host, host)) &&
    (binary === null || service.binary === binary) &&
    (isUp === null || service.up === isUp) &&
    (disabled === null || service.disabled === disabled)
  )
}

async function resourcesOf(db: Db, backend: string): Promise<HostResources[]> {
  const projects = await hostUsage.byProject(db, backend)
  const total = { projectId: '(total)', volumes: 0, volumesGib: 0, snapshots: 0, snapshotsGib: 0 }
  for (const { volumes, volumesGib, snapshots, snapshotsGib } of projects) {
    total.volumes += volumes
    total.volumesGib += volumesGib
    total.snapshots += snapshots
    total.snapshotsGib += snapshotsGib
  }
  return [total, ...projects]
}

/** The pools that a volume of the type could come to, were there room. */
async function fittingType(db: Db, pools: readonly Pool[], nameOrId: string): Promise<Pool[]> {
  const type = (await volumeTypes.find(db, nameOrId)) ?? (await volumeTypes.findByName(db, nameOrId))
  if (type === undefined) throw new ServiceError('VolumeTypeNotFound', { volume_type_id: nameOrId })
  const request = {
    sizeGib: 0,
    availabilityZones: [],
    extraSpecs: toPairs(type.extra_specs),
    sourceBackend: null,
    failed: [],
    hints: NO_HINTS,
  }
  const fitting = new Set(place(pools, request).candidates.map(({ pool }) => pool.name))
  return pools.filter(({ name }) => fitting.has(name))
}

function reportOf(pool: Pool): Readonly<Record<string, Capability>> {
  return { ...capabilitiesOf(pool), backend_state: 'up' }
}

function describeBackend(
  name: string,
  volumeBackendName: string,
  pool: Pool | undefined,
  { storageProtocol }: { storageProtocol: string },
): BackendCapabilities {
  return {
    volumeBackendName,
    poolName: pool?.poolName ?? null,
    storageProtocol,
    displayName: `Capabilities of the backend ${name}`,
    properties: {
      compression: { title: 'Compression', description: 'Enables compression.', type: 'boolean' },
      qos: { title: 'QoS', description: 'Enables QoS.', type: 'boolean' },
      replication_enabled: { title: 'Replication', description: 'Enables replication.', type: 'boolean' },
      thin_provisioning: { title: 'Thin Provisioning', description: 'Sets thin provisioning.', type: 'boolean' },
    },
  }
}

/** `host` also names all backends of a host, as upstream's filter does. */
function matchesHost(serviceHost: string, host: string): boolean {
  return serviceHost === host || serviceHost.startsWith(`${host}@`)
}

const isAny = (binary: string) => binary === '' || binary === '*'

function authorize(context: RequestContext, rule: string): void {
  context.authorize(rule, { projectId: context.projectId })
}

/** The sentence is upstream's, also where nothing fails over. */
function unchangeable(field: string, host: string, expected: string, whenUp: string): ServiceError {
  return invalidInput(`No service could be changed: ${field} in ['${host}'] must be ${expected} ${whenUp}to failover.`)
}
