import type { SnapshotRow } from '../db/snapshots.ts'
import type { VolumeRow } from '../db/volumes.ts'
import type { NewVolume, SnapshotRef, VolumeRef } from '../drivers/driver.ts'
import { copiesOf } from '../scheduler/copies.ts'

/**
 * Rows as backends know them: the only place that says under which id. A volume that was moved while it was in use goes on, in its
 * new backend, under the id of the volume that it was moved to.
 */
export function nameOf({ id, name_id }: Pick<VolumeRow, 'id' | 'name_id'>): string {
  return name_id ?? id
}

export function volumeRef(row: Pick<VolumeRow, 'id' | 'name_id' | 'size_gib'>): VolumeRef {
  return { id: nameOf(row), sizeGib: row.size_gib }
}

/** The same of one that is to be made, with what its type says. */
export function newVolumeRef(
  row: Pick<VolumeRow, 'id' | 'name_id' | 'size_gib'>,
  extraSpecs: Readonly<Record<string, string>>,
): NewVolume {
  return { ...volumeRef(row), copies: copiesOf(extraSpecs) }
}

/** A snapshot of the volume; also one that has no row, under an id of its own. */
export function snapshotRefOf(
  { id, size_gib: sizeGib }: Pick<SnapshotRow, 'id' | 'size_gib'>,
  volume: Pick<VolumeRow, 'id' | 'name_id'>,
): SnapshotRef {
  return { id, volumeId: nameOf(volume), sizeGib }
}
