import { ServiceError } from '../errors.ts'
import type { Parts } from './parts.ts'

/** Whether an administrator disabled the backup service: nothing is begun then, what goes on is finished. */
export function isDisabled({ states }: Pick<Parts, 'states'>): boolean {
  return states.of('cinder-backup', '').disabled
}

/** For everything but a new backup, which upstream takes and then fails to schedule. */
export function requireService(parts: Pick<Parts, 'states'>): void {
  if (isDisabled(parts)) throw new ServiceError('NoService', { service_id: 'cinder-backup' })
}
