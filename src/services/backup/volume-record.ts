import { z } from 'zod'
import type { VolumeRow } from '../../db/volumes.ts'
import { toPairs } from '../rows.ts'

const Pairs = z.record(z.string(), z.string())

/** What a backup tells of its volume besides its bytes. */
export const VolumeRecord = z.strictObject({
  name: z.string().nullable(),
  description: z.string().nullable(),
  metadata: Pairs,
  image_metadata: Pairs,
  bootable: z.boolean(),
})
export type VolumeRecord = z.infer<typeof VolumeRecord>

export function recordOf(volume: VolumeRow): VolumeRecord {
  return {
    name: volume.name,
    description: volume.description,
    metadata: toPairs(volume.metadata),
    image_metadata: toPairs(volume.image_metadata),
    bootable: Boolean(volume.bootable),
  }
}

/** As upstream names a volume that is made for a restore, unless the user does. */
export const restoredName = (backupId: string): string => `${RESTORED}${backupId}`
const RESTORED = 'restore_backup_'

/**
 * The columns that a volume takes over with the bytes, by upstream's rules: names unless it has one of its own, and metadata of either kind
 * in the place of its own where there was any. What has an image boots; upstream forgets that others did.
 */
export function restoredColumns(record: VolumeRecord, { name }: Pick<VolumeRow, 'name'>) {
  const takesName = Boolean(record.name) && (!name || name.startsWith(RESTORED))
  const hasImage = Object.keys(record.image_metadata).length > 0
  return {
    ...(takesName ? { name: record.name, description: record.description } : {}),
    ...(Object.keys(record.metadata).length > 0 ? { metadata: JSON.stringify(record.metadata) } : {}),
    ...(hasImage ? { image_metadata: JSON.stringify(record.image_metadata) } : {}),
    ...(hasImage || record.bootable ? { bootable: true } : {}),
  }
}
