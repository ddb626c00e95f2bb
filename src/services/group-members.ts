import type { Db } from '../db/database.ts'
import * as groups from '../db/groups.ts'
import * as volumes from '../db/volumes.ts'
import { ServiceError } from '../errors.ts'
import { splitHost } from '../scheduler/place.ts'
import type { RequestContext } from './context.ts'
import type { GroupUpdate } from './model.ts'
import { refuseMoving } from './moving.ts'
import { canSee } from './visibility.ts'
import { mayIn, VOLUME_PERMISSIONS, type VolumePermission } from './volume-status.ts'

/**
 * Puts volumes into a group that the caller has locked, and takes others out; the backend is not asked, since a group is nothing to
 * it. Answers whether that changes anything. Throws InvalidVolume for the first volume that cannot come or go.
 */
export async function changeMembers(
  trx: Db,
  context: RequestContext,
  group: groups.GroupRow,
  { addVolumes, removeVolumes }: GroupUpdate,
  updatedAt: string,
): Promise<boolean> {
  const inBoth = addVolumes.filter((id) => removeVolumes.includes(id))
  if (inBoth.length > 0) {
    const list = inBoth.map((id) => `'${id}'`).join(', ')
    throw invalidVolume(`UUIDs [${list}] are in both add and remove volume list.`)
  }
  const rows = new Map<string, volumes.VolumeRow>()
  for (const id of [...new Set([...addVolumes, ...removeVolumes])].sort()) {
    const row = await volumes.lock(trx, id)
    if (row !== undefined && canSee(context, row)) rows.set(id, row)
  }
  const typeIds = (await groups.typesOf(trx, [group.id])).get(group.id) ?? []
  const added = [...new Set(addVolumes)].filter((id) => rows.get(id)?.group_id !== group.id)
  for (const id of added) checkAddition(group, id, rows.get(id), typeIds)
  const removed = [...new Set(removeVolumes)]
  for (const id of removed) checkRemoval(group, id, rows.get(id))
  const consistencyGroupId = group.is_consistency_group ? group.id : null
  for (const id of added) {
    const columns = { group_id: group.id, consistencygroup_id: consistencyGroupId, updated_at: updatedAt }
    await volumes.update(trx, id, columns)
  }
  for (const id of removed) {
    await volumes.update(trx, id, { group_id: null, consistencygroup_id: null, updated_at: updatedAt })
  }
  return added.length + removed.length > 0
}

function checkAddition(
  group: groups.GroupRow,
  id: string,
  row: volumes.VolumeRow | undefined,
  typeIds: readonly string[],
): void {
  const refuse = (why: string) => invalidVolume(`Cannot add volume ${id} to group ${group.id} ${why}`)
  if (row === undefined) throw refuse('because volume cannot be found.')
  if (row.group_id !== null) throw refuse(`because it is already in group ${row.group_id}.`)
  if (row.project_id !== group.project_id) throw refuse('as they belong to different projects.')
  if (!typeIds.includes(row.volume_type_id)) {
    throw refuse(`because volume type ${row.volume_type_id} is not supported by the group.`)
  }
  refuseMoving(row)
  if (!mayIn(row.status, 'addToGroup')) throw refuse(badState(row.status, 'addToGroup'))
  const isLocal = row.host !== null && group.host !== null && placeOf(row.host) === placeOf(group.host)
  if (!isLocal) throw invalidVolume('Volume is not local to this node.')
}

function checkRemoval(group: groups.GroupRow, id: string, row: volumes.VolumeRow | undefined): void {
  const refuse = (why: string) => invalidVolume(`Cannot remove volume ${id} from group ${group.id} because ${why}`)
  if (row?.group_id !== group.id) throw refuse('it is not in the group.')
  if (!mayIn(row.status, 'removeFromGroup'))
    throw refuse(badState(row.status, 'removeFromGroup').slice('because '.length))
}

function badState(status: string, permission: VolumePermission): string {
  const valid = VOLUME_PERMISSIONS[permission].map((word) => `'${word}'`).join(', ')
  return `because volume is in an invalid state: ${status}. Valid states are: (${valid}).`
}

/** Volumes of one backend can be frozen together, whichever of its pools they are in. */
const placeOf = (host: string): string => splitHost(host).backend

function invalidVolume(reason: string): ServiceError {
  return new ServiceError('InvalidVolume', { reason })
}
