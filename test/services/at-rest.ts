import { expect } from 'vitest'
import type { AttachmentRow } from '../../src/db/attachments.ts'
import type { VolumeRow } from '../../src/db/volumes.ts'
import type { MemoryBackend } from '../../src/drivers/memory.ts'
import { type Harness, keptUsage, recount } from './harness.ts'

/** What is true whenever no work goes on, whatever was asked for before. Apart from the scenarios that lead there. */
export async function checkAtRest({ db }: Harness): Promise<void> {
  expect(await db('work')).toEqual([])
  await checkCounts(db)
  await checkNothingWaits(db)
  checkAttachments(await db('volumes'), await db('attachments'))
}

/**
 * The same of the backends by name, unless one has failed, or an administrator has written a status without asking it. A
 * volume is where its host says, and nowhere else, and its snapshots are there with it.
 */
export async function checkBackends(db: Harness['db'], backends: Record<string, MemoryBackend>): Promise<void> {
  const [volumes, snapshots, attachments] = [await db('volumes'), await db('snapshots'), await db('attachments')]
  for (const volume of volumes.filter(({ status }) => ['available', 'in-use'].includes(status))) {
    const { id, name_id, host, size_gib, status_reason } = volume
    const stored = name_id ?? id
    const holders = Object.keys(backends).filter((name) => backends[name]!.volumes.has(stored))
    // Where it came from there may be a snapshot of it that was forgotten, and then it says so.
    const stays = /^What \S+@(\S+)#\S+ had of the volume is still there/.exec(status_reason ?? '')?.[1]
    const expected = Object.keys(backends).filter((name) => name === backendName(host) || name === stays)
    expect(holders, `volume ${id} at ${host}: ${status_reason}`).toEqual(expected)
    const { sizeGib } = backends[backendName(host)]!.volumes.get(stored)!
    expect(sizeGib, `volume ${id} at ${host}`).toBeGreaterThanOrEqual(size_gib)
  }
  const hosts = new Map<string, string>(volumes.map(({ id, host }) => [id, host]))
  for (const { id, volume_id } of snapshots.filter(({ status }) => status === 'available')) {
    const host = hosts.get(volume_id)!
    const holders = Object.keys(backends).filter((name) => backends[name]!.snapshots.has(id))
    expect(holders, `snapshot ${id} of volume ${volume_id} at ${host}`).toEqual([backendName(host)])
  }
  const known = new Set(attachments.map(({ id }) => id))
  for (const [id, { rights }] of Object.values(backends).flatMap((backend) => [...backend.volumes])) {
    expect(
      [...rights.keys()].filter((right) => !known.has(right)),
      `rights to volume ${id} of nobody`,
    ).toEqual([])
  }
}

/** Of `host@backend#pool`. */
function backendName(host: string): string {
  return /@(.*)#/.exec(host)![1]!
}

async function checkCounts(db: Harness['db']): Promise<void> {
  expect(await keptUsage(db)).toEqual(await recount(db))
  const kept = await db('backup_usages').orderBy('project_id')
  const counted = await db('backups')
    .select('project_id')
    .count({ backups: '*' })
    .sum({ backup_gigabytes: 'size_gib' })
    .groupBy('project_id')
    .orderBy('project_id')
  const numbers = (rows: Record<string, unknown>[]) =>
    rows
      .map((row) => [row.project_id, Number(row.backups), Number(row.backup_gigabytes)])
      .filter(([, backups]) => backups !== 0)
  expect(numbers(kept)).toEqual(numbers(counted))
  const groups = await db('group_usages').where('groups', '>', 0).orderBy('project_id')
  const countedGroups = await db('volume_groups')
    .select('project_id')
    .count({ groups: '*' })
    .groupBy('project_id')
    .orderBy('project_id')
  const groupNumbers = (rows: Record<string, unknown>[]) => rows.map((row) => [row.project_id, Number(row.groups)])
  expect(groupNumbers(groups)).toEqual(groupNumbers(countedGroups))
}

/** No status that only work could end, and nothing that is kept for work. */
async function checkNothingWaits(db: Harness['db']): Promise<void> {
  const passing = {
    volumes: [
      'creating',
      'deleting',
      'extending',
      'retyping',
      'reverting',
      'unmanaging',
      'maintenance',
      'backing-up',
      'restoring-backup',
      'managing',
    ],
    snapshots: ['creating', 'deleting', 'restoring', 'backing-up', 'unmanaging'],
    backups: ['creating', 'deleting', 'restoring'],
    volume_groups: ['creating', 'deleting'],
    group_snapshots: ['creating', 'deleting'],
  }
  for (const [table, statuses] of Object.entries(passing)) {
    expect(await db(table).whereIn('status', statuses).select('id', 'status'), table).toEqual([])
  }
  const pending = db('volumes').whereNotNull('pending_volume_type_id').orWhereNotNull('pending_size_gib')
  expect(await pending.orWhereIn('migration_status', ['starting', 'migrating', 'completing'])).toEqual([])
  expect(await db('backups').whereNotNull('restore_volume_id')).toEqual([])
}

/** One connection to a volume, and a status that tells of it. An administrator may have written `error`. */
function checkAttachments(volumes: readonly VolumeRow[], attachments: readonly AttachmentRow[]): void {
  for (const volume of volumes) {
    const own = attachments.filter(({ volume_id }) => volume_id === volume.id)
    const connected = own.filter(({ connection_info }) => connection_info !== null)
    expect(connected.length, `connections of volume ${volume.id}`).toBeLessThanOrEqual(1)
    const told = own.filter(({ status }) => status !== 'error_attaching')
    if (volume.status === 'available') expect(told, `attachments of available volume ${volume.id}`).toEqual([])
    if (volume.status === 'in-use') expect(told, `attachments of volume ${volume.id} in use`).not.toEqual([])
  }
}
