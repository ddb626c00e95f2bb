import type { Route } from '../route.ts'
import { attachmentRoutes } from './attachments.ts'
import { availabilityZoneRoutes } from './availability-zones.ts'
import { backupRoutes } from './backups.ts'
import { extensionRoutes } from './extensions.ts'
import { limitRoutes } from './limits.ts'
import { snapshotMetadataRoutes, volumeMetadataRoutes } from './metadata.ts'
import { snapshotRoutes } from './snapshots.ts'
import { typeRoutes } from './types.ts'
import { volumeActionRoutes } from './volume-actions.ts'
import { volumeRoutes } from './volumes.ts'

/** Everything that the Cinder API serves, in the order of the document. */
export const ROUTES: readonly Route[] = [
  ...volumeRoutes,
  ...volumeActionRoutes,
  ...volumeMetadataRoutes,
  ...snapshotRoutes,
  ...snapshotMetadataRoutes,
  ...attachmentRoutes,
  ...backupRoutes,
  ...typeRoutes,
  ...limitRoutes,
  ...availabilityZoneRoutes,
  ...extensionRoutes,
]
