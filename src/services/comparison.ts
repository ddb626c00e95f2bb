import * as attachments from '../db/attachments.ts'
import type { Db } from '../db/database.ts'
import { readOneMoment } from '../db/dialect.ts'
import * as snapshots from '../db/snapshots.ts'
import * as volumes from '../db/volumes.ts'
import * as work from '../db/work.ts'
import type { Discovered } from '../drivers/driver.ts'
import { nameOf } from './refs.ts'

/** What the database and a backend say of each other that cannot both be true, and what to do about it. */
export interface Finding {
  kind:
    | 'volume-lost'
    | 'volume-unknown'
    | 'volume-size'
    | 'snapshot-lost'
    | 'snapshot-unknown'
    | 'export-lost'
    | 'export-unknown'
    | 'backup-lost'
    | 'backup-damaged'
    | 'backup-unknown'
    | 'usage-wrong'
    | 'type-usage-wrong'
    | 'backup-usage-wrong'
    | 'group-usage-wrong'
    | 'status-stuck'
  /** Of the volume, snapshot, attachment, backup or project. */
  id: string
  detail: string
  advice: string
  /** The backend, or the backup target, that was compared; absent for what the database says of itself. */
  backend?: string
  /** For an export: the volume that it leads to. */
  volumeId?: string
}

/** What the database says, read in one moment. */
export interface Records {
  /** By the names that backends have for them. */
  volumes: ReadonlyMap<string, Pick<volumes.VolumeRow, 'id' | 'status' | 'size_gib' | 'pending_size_gib' | 'host'>>
  snapshots: ReadonlyMap<string, Pick<snapshots.SnapshotRow, 'status' | 'volume_id'>>
  attachments: ReadonlyMap<string, { volume_id: string; isConnected: boolean }>
  /** Resources, and lanes, of which something is under way. */
  busy: ReadonlySet<string>
}

/** What may be true of both: the backend was never asked, or has not ended, or nobody knows what it did. */
const UNCERTAIN = /^(creating|deleting|extending|error)/

/** Volumes of other backends than the one that `isHere` accepts hosts of are left out. */
export async function readRecords(db: Db, isHere: (host: string) => boolean): Promise<Records> {
  return db.transaction(async (trx) => {
    await readOneMoment(trx)
    const busy = await work.allConcerned(trx)
    const rows = (await volumes.all(trx)).filter(({ host }) => host === null || isHere(host))
    const ids = new Set(rows.map(({ id }) => id))
    return {
      volumes: new Map(rows.map((row) => [nameOf(row), row])),
      snapshots: new Map(
        (await snapshots.all(trx)).filter((row) => ids.has(row.volume_id)).map((row) => [row.id, row]),
      ),
      attachments: new Map(
        (await attachments.all(trx))
          .filter((row) => ids.has(row.volume_id))
          .map(({ id, volume_id, connection_info }) => [id, { volume_id, isConnected: connection_info !== null }]),
      ),
      busy,
    }
  })
}

/**
 * Compares what a backend holds with what the database said before and after it was asked: what changed meanwhile is no finding.
 * Pure.
 */
export function compare(before: Records, found: Discovered, after: Records): Finding[] {
  const findings: Finding[] = []
  const stored = {
    volumes: new Map(found.volumes.map((volume) => [volume.id, volume])),
    snapshots: new Set(found.snapshots.map(({ id }) => id)),
    exports: new Set(found.exports.map(({ attachmentId }) => attachmentId)),
  }
  const isQuiet = (id: string) => !before.busy.has(id) && !after.busy.has(id)

  for (const [name, row] of after.volumes) {
    const { id } = row
    if (!isQuiet(id) || before.volumes.get(name)?.id !== id || UNCERTAIN.test(row.status) || row.host === null) continue
    const volume = stored.volumes.get(name)
    if (volume === undefined) {
      findings.push({
        kind: 'volume-lost',
        id,
        detail: `volume ${id} is ${row.status} and not in the store`,
        advice: `bring the store back from a backup, or give the volume up: openstack volume delete --force ${id}`,
      })
    } else if (volume.sizeGib !== row.size_gib && before.volumes.get(name)?.size_gib === row.size_gib) {
      findings.push({
        kind: 'volume-size',
        id,
        detail: `volume ${id} has ${row.size_gib} GiB, and ${volume.sizeGib} GiB in the store`,
        advice:
          volume.sizeGib < row.size_gib
            ? `make it as large in the store: collie vdi resize volume-${name} ${row.size_gib}G`
            : `extend it to at least that size: openstack volume set --size ${Math.ceil(volume.sizeGib)} ${id}`,
      })
    }
  }
  for (const { id } of found.volumes) {
    if (!isQuiet(id) || before.volumes.has(id) || after.volumes.has(id)) continue // a busy one may be on its way here
    findings.push({
      kind: 'volume-unknown',
      id,
      detail: `the store has volume-${id}, which the database does not know`,
      advice: `bring back the database that knows it, or look into it and delete it: collie vdi delete volume-${id}`,
    })
  }
  for (const [id, { status, volume_id }] of after.snapshots) {
    if (!isQuiet(id) || !isQuiet(volume_id) || !before.snapshots.has(id) || UNCERTAIN.test(status)) continue
    if (stored.snapshots.has(id)) continue
    findings.push({
      kind: 'snapshot-lost',
      id,
      detail: `snapshot ${id} of volume ${volume_id} is ${status} and not in the store`,
      advice: `bring the store back from a backup, or give the snapshot up: openstack volume snapshot delete ${id}`,
    })
  }
  for (const { id, volumeId } of found.snapshots) {
    if (!isQuiet(id) || before.snapshots.has(id) || after.snapshots.has(id)) continue // a backup that is made has one
    if (before.volumes.has(id) || after.volumes.has(id)) continue // of a group that is copied, for the new volume
    findings.push({
      kind: 'snapshot-unknown',
      id,
      detail: `the store has snapshot-${id} of volume-${volumeId}, which the database does not know`,
      advice: `delete it, or the volume cannot be deleted: collie vdi delete volume-${volumeId} --snapshot snapshot-${id}`,
    })
  }
  for (const [id, { volume_id, isConnected }] of after.attachments) {
    if (!isConnected || !isQuiet(id) || !isQuiet(volume_id) || before.attachments.get(id)?.isConnected !== true)
      continue
    if (stored.exports.has(id)) continue
    findings.push({
      kind: 'export-lost',
      id,
      detail: `attachment ${id} of volume ${volume_id} is connected, and has no right in the store`,
      advice: `detach and attach it again: openstack volume attachment delete ${id}`,
      volumeId: volume_id,
    })
  }
  for (const { attachmentId: id, volumeId } of found.exports) {
    if (before.attachments.has(id) || after.attachments.has(id)) continue
    findings.push({
      kind: 'export-unknown',
      id,
      detail: `attachment ${id}, which the database does not know, has a right to volume ${volumeId}`,
      advice: 'take the right back: collie db check --repair',
      volumeId,
    })
  }
  return findings
}
