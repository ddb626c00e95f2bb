import { hostname } from 'node:os'
import path from 'node:path'
import type { Config } from './config.ts'
import { CONTROL_SOCKET, ControlError } from './control/messages.ts'
import { type ControlCaller, SocketControl } from './control/socket-client.ts'
import type { VolumeDriver } from './drivers/driver.ts'
import { parseFault } from './drivers/faults.ts'
import { createSheepdogDriver } from './drivers/sheepdog/driver.ts'
import { breakerFilter, onMethod, otherThan, timeoutFilter, wrapDriver } from './drivers/wrappers.ts'
import { ServiceError } from './errors.ts'
import { isOwnStore } from './own-store.ts'
import { systemClock } from './runtime/clock.ts'
import { parseAddress, systemNetwork } from './runtime/network.ts'
import { systemRandom } from './runtime/random.ts'
import type { Backend } from './services/backends.ts'
import { VdiClient } from './vdi/client.ts'
import { createSocketTransport, SHEEP_SOCKET } from './vdi/socket-transport.ts'

type BackendConfig = Config['backends'][number]

/** A backend that does not answer in this time is reported as down; nobody is to wait longer for a list of pools. */
const STATS_TIMEOUT_MS = 5000

/**
 * The backends of the settings. A store is reached over sockets wherever it is, also in this process; `own` is asked for
 * what the store of this data directory knows, and the control sockets of the others for what those do.
 */
export function createConfiguredBackends(config: Config, own: ControlCaller): Backend[] {
  return config.backends.map((backend) => {
    const driver = wrapDriver(
      isOwnStore(backend, config) ? sheepdog(backend, config, own) : elsewhere(backend, config),
      timeoutFilter(
        onMethod('start', 'stats'),
        systemClock,
        Math.min(STATS_TIMEOUT_MS, backend.timeout_seconds * 1000),
      ),
      timeoutFilter(otherThan(onMethod('start', 'stats')), systemClock, backend.timeout_seconds * 1000),
      ...backend.faults.map((fault) => parseFault(fault, systemClock)),
    )
    return {
      name: backend.name,
      availabilityZone: backend.availability_zone ?? config.availability_zone,
      volumeBackendName: backend.volume_backend_name ?? backend.name,
      driver: wrapDriver(
        driver,
        breakerFilter(() => driver.stats()),
      ),
    }
  })
}

/** The store of another node, whose control connection ends with the driver. */
function elsewhere(backend: BackendConfig, config: Config): VolumeDriver {
  const dataDir = path.resolve(backend.data_dir ?? config.data_dir)
  const control = new SocketControl(systemNetwork, backend.control ?? path.join(dataDir, CONTROL_SOCKET))
  const driver = sheepdog(backend, config, control)
  return {
    ...driver,
    stop: async () => {
      control.close()
      await driver.stop()
    },
  }
}

function sheepdog(backend: BackendConfig, config: Config, control: ControlCaller): VolumeDriver {
  const dataDir = path.resolve(backend.data_dir ?? config.data_dir)
  const address = backend.store ?? path.join(dataDir, SHEEP_SOCKET)
  return createSheepdogDriver({
    vdis: new VdiClient(createSocketTransport({ network: systemNetwork, address })),
    random: systemRandom,
    pool: {
      name: backend.pool ?? backend.name,
      reservedPercentage: backend.reserved_percentage,
      maxOverSubscriptionRatio: backend.max_over_subscription_ratio,
      thin: backend.thin,
    },
    gateway: async () => {
      const { addresses, nbd_tls } = await reached(control.call('info', {}))
      const scheme = nbd_tls === 'required' ? 'nbds' : 'nbd'
      if (backend.nbd !== null) return { scheme, ...reachable(backend.nbd, null) }
      if (addresses.nbd !== undefined) return { scheme, ...reachable(addresses.nbd, config.advertise) }
      throw new ServiceError('BackendFailure', { reason: `the node of backend ${backend.name} runs no NBD gateway` })
    },
    drained: async (attachmentId) => {
      await reached(control.call('export_drained', { attachment_id: attachmentId }))
    },
  })
}

/** A node that is away may be back soon. */
async function reached<T>(call: Promise<T>): Promise<T> {
  try {
    return await call
  } catch (error) {
    if (!(error instanceof ControlError) || error.code !== 'Disconnected') throw error
    throw new ServiceError('ServiceUnavailable', { reason: error.message }, { cause: error })
  }
}

/** Where others reach what listens on `address`: a listener on all addresses is reached by the advertised one. */
export function reachable(address: string, advertise: string | null): { host: string; port: number } {
  const parsed = parseAddress(address)
  if ('path' in parsed) return { host: advertise ?? 'localhost', port: 0 }
  const everywhere = ['', '0.0.0.0', '::'].includes(parsed.host)
  return { host: advertise ?? (everywhere ? hostname() : parsed.host), port: parsed.port }
}
