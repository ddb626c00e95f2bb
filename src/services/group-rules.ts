import { ServiceError } from '../errors.ts'

/** What upstream says of groups, to the letter. */

export function invalidGroup(reason: string): ServiceError {
  return new ServiceError('InvalidGroup', { reason })
}

/** To who works on a consistency group as on any other. */
export function reservedType(groupTypeId: string, advice: string): ServiceError {
  const reason = `Group_type ${groupTypeId} is reserved for migrating CGs to groups. ${advice}`
  return new ServiceError('InvalidInput', { reason })
}
