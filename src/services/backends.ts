import type { VolumeDriver } from '../drivers/driver.ts'
import { ServiceError } from '../errors.ts'
import { splitHost } from '../scheduler/place.ts'

/** A storage backend that this process drives. */
export interface Backend {
  /** The middle of a volume's `host`: `host@name#pool`. */
  name: string
  availabilityZone: string
  /** By which types ask for it (`volume_backend_name`); its name when absent. */
  volumeBackendName?: string
  driver: VolumeDriver
}

/** Which driver has a volume. The host in front says nothing: volumes stay where they are when the machine is renamed. */
export interface Backends {
  readonly all: readonly Backend[]
  /**
   * The driver of the backend that `host`, as a volume has it, names. Throws ServiceUnavailable when no such backend is
   * configured: it may be again, and until then nobody can say what became of its volumes.
   */
  driverOf(host: string): VolumeDriver
  /** As `driverOf`, with what is said of the backend. */
  backendOf(host: string): Backend
}

export function createBackends(all: readonly Backend[]): Backends {
  const byName = new Map(all.map((backend) => [backend.name, backend]))

  function backendOf(host: string): Backend {
    const name = splitHost(host).backend
    const backend = byName.get(name)
    if (backend !== undefined) return backend
    const reason = `There is no backend ${name} here. Configured are: ${[...byName.keys()].join(', ')}.`
    throw new ServiceError('ServiceUnavailable', { reason })
  }

  return { all, backendOf, driverOf: (host) => backendOf(host).driver }
}
