import type { Listing } from '../db/listing.ts'
import { ServiceError } from '../errors.ts'
import type { RequestContext } from './context.ts'
import type { ListQuery } from './model.ts'

/** Whether the caller may know that the row exists. To anyone else it is not found. */
export function canSee(context: RequestContext, row: { project_id: string }): boolean {
  return context.isAdmin || row.project_id === context.projectId
}

/** The rows that the caller may list; `allProjects` is an administrator's. */
export function toListing(context: RequestContext, query: ListQuery): Listing {
  const { limit, offset, marker, sort, filters } = query
  const everything = query.allProjects && context.isAdmin
  return { projectId: everything ? null : context.projectId, limit, offset, marker, sort, filters }
}

/** The volume if the caller may see it, else VolumeNotFound. */
export function visibleVolume<Row extends { project_id: string }>(
  context: RequestContext,
  id: string,
  row: Row | undefined,
): Row {
  if (row === undefined || !canSee(context, row)) throw new ServiceError('VolumeNotFound', { volume_id: id })
  return row
}

export function visibleSnapshot<Row extends { project_id: string }>(
  context: RequestContext,
  id: string,
  row: Row | undefined,
): Row {
  if (row === undefined || !canSee(context, row)) throw new ServiceError('SnapshotNotFound', { snapshot_id: id })
  return row
}

export function visibleGroup<Row extends { project_id: string }>(
  context: RequestContext,
  id: string,
  row: Row | undefined,
): Row {
  if (row === undefined || !canSee(context, row)) throw new ServiceError('GroupNotFound', { group_id: id })
  return row
}

export function visibleGroupSnapshot<Row extends { project_id: string }>(
  context: RequestContext,
  id: string,
  row: Row | undefined,
): Row {
  if (row === undefined || !canSee(context, row)) {
    throw new ServiceError('GroupSnapshotNotFound', { group_snapshot_id: id })
  }
  return row
}

export function visibleBackup<Row extends { project_id: string }>(
  context: RequestContext,
  id: string,
  row: Row | undefined,
): Row {
  if (row === undefined || !canSee(context, row)) throw new ServiceError('BackupNotFound', { backup_id: id })
  return row
}

export function visibleAttachment<Row extends { project_id: string }>(
  context: RequestContext,
  id: string,
  row: Row | undefined,
): Row {
  if (row === undefined || !canSee(context, row)) throw new ServiceError('AttachmentNotFound', { attachment_id: id })
  return row
}
