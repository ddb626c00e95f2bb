import type { Db } from '../db/database.ts'
import type { GroupSnapshotRow } from '../db/group-snapshots.ts'
import type { GroupTypeRow } from '../db/group-types.ts'
import * as groups from '../db/groups.ts'
import type { Group, GroupSnapshot, GroupSnapshotStatus, GroupStatus, GroupType } from './model.ts'
import { toPairs } from './rows.ts'

/** Rows of groups in the words of the model, with what belongs to them. */

export async function toGroup(db: Db, row: groups.GroupRow): Promise<Group> {
  return (await toGroups(db, [row]))[0]!
}

/** With two queries for all of a page. */
export async function toGroups(db: Db, rows: readonly groups.GroupRow[]): Promise<Group[]> {
  const ids = rows.map(({ id }) => id)
  const [types, volumes] = [await groups.typesOf(db, ids), await groups.volumesOf(db, ids)]
  return rows.map((row) => ({
    id: row.id,
    projectId: row.project_id,
    userId: row.user_id,
    name: row.name,
    description: row.description,
    status: row.status as GroupStatus,
    host: row.host,
    availabilityZone: row.availability_zone,
    groupTypeId: row.group_type_id,
    volumeTypeIds: types.get(row.id) ?? [],
    volumeIds: volumes.get(row.id) ?? [],
    groupSnapshotId: row.group_snapshot_id,
    sourceGroupId: row.source_group_id,
    isConsistencyGroup: Boolean(row.is_consistency_group),
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }))
}

export function toGroupSnapshot(row: GroupSnapshotRow): GroupSnapshot {
  return {
    id: row.id,
    projectId: row.project_id,
    userId: row.user_id,
    groupId: row.group_id,
    groupTypeId: row.group_type_id,
    name: row.name,
    description: row.description,
    status: row.status as GroupSnapshotStatus,
    isConsistencyGroup: Boolean(row.is_consistency_group),
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }
}

export function toGroupType(row: GroupTypeRow): GroupType {
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    isPublic: Boolean(row.is_public),
    groupSpecs: toPairs(row.group_specs),
  }
}
