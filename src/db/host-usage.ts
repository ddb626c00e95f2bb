import type { Db } from './database.ts'
import { whereTextHasPart } from './dialect.ts'
import type { VolumeRow } from './volumes.ts'

/** What the service has on hosts: sums over the rows of volumes and snapshots. */
export interface HostUsage {
  host: string
  count: number
  sizeGib: number
}

/** By `host@backend#pool`. Reads an index only. */
export async function byHost(db: Db): Promise<HostUsage[]> {
  const rows: { host: string; count: number | string; size: number | string }[] = await db('volumes')
    .select('host')
    .whereNotNull('host')
    .count({ count: '*' })
    .sum({ size: 'size_gib' })
    .groupBy('status', 'host') // the order of the index; a host may come several times
  return rows.map(({ host, count, size }) => ({ host, count: Number(count), sizeGib: Number(size) }))
}

export interface HostAndTypeUsage extends HostUsage {
  typeId: string
}

/** As `byHost`, of volumes of these types, by type. Reads an index only, too. */
export async function byHostAndType(db: Db, typeIds: readonly string[]): Promise<HostAndTypeUsage[]> {
  type Row = { host: string; volume_type_id: string; count: number | string; size: number | string }
  const rows: Row[] = await db('volumes')
    .select('host', 'volume_type_id')
    .whereIn('volume_type_id', typeIds)
    .whereNotNull('host')
    .count({ count: '*' })
    .sum({ size: 'size_gib' })
    .groupBy('host', 'volume_type_id')
  return rows.map(({ host, volume_type_id: typeId, count, size }) => ({
    host,
    typeId,
    count: Number(count),
    sizeGib: Number(size),
  }))
}

export interface Pending {
  id: string
  host: string
  sizeGib: number
  /** What it grows to; null for a volume that is being made. */
  newSizeGib: number | null
  typeId: string
}

/** Volumes that are being made or grow. */
export async function pending(db: Db): Promise<Pending[]> {
  type Row = Pick<VolumeRow, 'id' | 'status' | 'size_gib' | 'pending_size_gib' | 'volume_type_id'> & { host: string }
  const rows: Row[] = await db('volumes')
    .select('id', 'host', 'status', 'size_gib', 'pending_size_gib', 'volume_type_id')
    .whereIn('status', ['creating', 'extending'])
    .whereNotNull('host')
  return rows.map(({ id, host, status, size_gib, pending_size_gib, volume_type_id }) => ({
    id,
    host,
    typeId: volume_type_id,
    sizeGib: size_gib,
    newSizeGib: status === 'creating' ? null : (pending_size_gib ?? size_gib),
  }))
}

export interface ProjectUsage {
  projectId: string
  volumes: number
  volumesGib: number
  snapshots: number
  snapshotsGib: number
}

/** What each project has on a backend, whatever the host was called when a volume was made. */
export async function byProject(db: Db, backend: string): Promise<ProjectUsage[]> {
  const part = `@${backend}#`
  type Sum = { project_id: string; count: number | string; size: number | string }
  const volumes = db('volumes').select('project_id').groupBy('project_id').orderBy('project_id')
  whereTextHasPart(volumes, 'host', part)
  volumes.count({ count: '*' }).sum({ size: 'size_gib' })
  const snapshots = db('snapshots').select('snapshots.project_id').groupBy('snapshots.project_id')
  whereTextHasPart(snapshots.join('volumes', 'volumes.id', 'snapshots.volume_id'), 'volumes.host', part)
  snapshots.count({ count: '*' }).sum({ size: 'snapshots.size_gib' })
  const ofSnapshots = new Map(((await snapshots) as Sum[]).map((row) => [row.project_id, row]))
  return ((await volumes) as Sum[]).map(({ project_id: projectId, count, size }) => ({
    projectId,
    volumes: Number(count),
    volumesGib: Number(size),
    snapshots: Number(ofSnapshots.get(projectId)?.count ?? 0),
    snapshotsGib: Number(ofSnapshots.get(projectId)?.size ?? 0),
  }))
}

/** Hosts of the given volumes, as far as they exist, have one, and belong to the project (null: to any). */
export async function hostsOfVolumes(db: Db, projectId: string | null, ids: readonly string[]): Promise<string[]> {
  const query = db('volumes').whereIn('id', ids).whereNotNull('host').select('host')
  if (projectId !== null) query.where({ project_id: projectId })
  return (await query).map(({ host }: { host: string }) => host)
}

/** Hosts that an instance reaches its volumes from, as its attachments say. */
export async function hostsOfInstance(db: Db, projectId: string | null, instanceId: string): Promise<string[]> {
  const query = db('attachments')
    .where({ instance_id: instanceId })
    .whereNotNull('attached_host')
    .distinct('attached_host')
  if (projectId !== null) query.where({ project_id: projectId })
  return (await query).map((row: { attached_host: string }) => row.attached_host)
}
