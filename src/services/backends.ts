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
}

export function createBackends(all: readonly Backend[]): Backends {
  const byName = new Map(all.map((backend) => [backend.name, backend.driver]))
  return {
    all,
    driverOf: (host) => {
      const name = splitHost(host).backend
      const driver = byName.get(name)
      if (driver !== undefined) return driver
      const reason = `There is no backend ${name} here. Configured are: ${[...byName.keys()].join(', ')}.`
      throw new ServiceError('ServiceUnavailable', { reason })
    },
  }
}
