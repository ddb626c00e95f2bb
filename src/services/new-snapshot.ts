import type { SnapshotRow } from '../db/snapshots.ts'
import type { VolumeRow } from '../db/volumes.ts'
import type { RequestContext } from './context.ts'
import type { Parts } from './parts.ts'

/** The row of a snapshot that is being made of a volume, for whoever asks. `own` is what differs with the way it is made. */
export function newSnapshot(
  { random, stamp }: Pick<Parts, 'random' | 'stamp'>,
  context: RequestContext,
  volume: VolumeRow,
  own: Pick<SnapshotRow, 'name' | 'description' | 'metadata' | 'image_metadata' | 'group_snapshot_id'>,
): SnapshotRow {
  return {
    ...own,
    id: random.uuid(),
    project_id: context.projectId,
    user_id: context.userId,
    volume_id: volume.id,
    size_gib: volume.size_gib,
    status: 'creating',
    previous_status: null,
    status_reason: null,
    progress: '0%',
    created_at: stamp(),
    updated_at: null,
  }
}

/** The column of its snapshots: they have the image metadata of a volume that machines start from, and of no other. */
export const imageMetadataOf = (volume: VolumeRow): string => (volume.bootable ? volume.image_metadata : '{}')
