import type { Db } from '../db/database.ts'
import * as services from '../db/services.ts'
import { ServiceError } from '../errors.ts'
import { splitHost } from '../scheduler/place.ts'

/** In upstream's names of programs, though here all are one process. */
export type Binary = 'cinder-scheduler' | 'cinder-volume' | 'cinder-backup'

export interface ServiceState {
  disabled: boolean
  disabledReason: string | null
  frozen: boolean
  /** When somebody last changed it; null for never. */
  changedAt: string | null
}

const UNTOUCHED: ServiceState = { disabled: false, disabledReason: null, frozen: false, changedAt: null }

/**
 * What administrators said of services. Kept in memory, since every new volume asks; a change is seen at once in the
 * process that was told, and in others when they `load` again.
 */
export interface ServiceStates {
  load(): Promise<void>
  of(binary: Binary, name: string): ServiceState
  setDisabled(binary: Binary, name: string, disabled: boolean, reason: string | null): Promise<void>
  /** Answers false when the backend was frozen, or not, already. Frozen is also disabled. */
  setFrozen(backend: string, frozen: boolean): Promise<boolean>
  /** Throws InvalidInput while the backend that `host` names is frozen. */
  refuseFrozen(host: string | null): void
}

export function createServiceStates(db: Db, stamp: () => string): ServiceStates {
  let states = new Map<string, ServiceState>()
  const keyOf = (binary: Binary, name: string) => `${binary}@${name}`

  async function load(): Promise<void> {
    const rows = await services.list(db)
    states = new Map(
      rows.map((row) => [
        keyOf(row.binary as Binary, row.name),
        {
          disabled: Boolean(row.disabled),
          disabledReason: row.disabled_reason,
          frozen: Boolean(row.frozen),
          changedAt: row.updated_at,
        },
      ]),
    )
  }

  const of = (binary: Binary, name: string) => states.get(keyOf(binary, name)) ?? UNTOUCHED

  return {
    load,
    of,
    setDisabled: async (binary, name, disabled, disabledReason) => {
      const columns = { disabled, disabled_reason: disabledReason, updated_at: stamp() }
      await services.setDisabled(db, { binary, name }, columns)
      await load()
    },
    setFrozen: async (backend, frozen) => {
      const reason = frozen ? 'frozen' : ''
      const columns = { frozen, disabled: frozen, disabled_reason: reason, updated_at: stamp() }
      const changed = await services.setFrozen(db, { binary: 'cinder-volume', name: backend }, columns)
      await load()
      return changed
    },
    refuseFrozen: (host) => {
      if (host === null || !of('cinder-volume', splitHost(host).backend).frozen) return
      const reason = 'Invalid input received: Modification operations are not allowed on frozen storage backends.'
      throw new ServiceError('InvalidInput', { reason })
    },
  }
}
