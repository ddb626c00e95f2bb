import type { Route } from '../route.ts'
import { attachmentRoutes } from './attachments.ts'
import { availabilityZoneRoutes } from './availability-zones.ts'
import { backupRoutes } from './backups.ts'
import { clusterRoutes } from './clusters.ts'
import { consistencyGroupRoutes } from './consistency-groups.ts'
import { defaultTypeRoutes } from './default-types.ts'
import { extensionRoutes } from './extensions.ts'
import { groupSnapshotRoutes } from './group-snapshots.ts'
import { groupTypeRoutes } from './group-types.ts'
import { groupRoutes } from './groups.ts'
import { hostRoutes } from './hosts.ts'
import { limitRoutes } from './limits.ts'
import { manageableRoutes } from './manageable.ts'
import { messageRoutes } from './messages.ts'
import { snapshotMetadataRoutes, volumeMetadataRoutes } from './metadata.ts'
import { poolRoutes } from './pools.ts'
import { qosSpecRoutes } from './qos-specs.ts'
import { quotaRoutes } from './quotas.ts'
import { resourceFilterRoutes } from './resource-filters.ts'
import { serviceRoutes } from './services.ts'
import { snapshotActionRoutes } from './snapshot-actions.ts'
import { snapshotRoutes } from './snapshots.ts'
import { typeAccessRoutes } from './type-access.ts'
import { typeEncryptionRoutes } from './type-encryption.ts'
import { typeExtraSpecRoutes } from './type-extra-specs.ts'
import { typeRoutes } from './types.ts'
import { volumeActionRoutes } from './volume-actions.ts'
import { volumeConnectionRoutes } from './volume-connections.ts'
import { volumeImageMetadataRoutes } from './volume-image-metadata.ts'
import { volumeImageRoutes } from './volume-images.ts'
import { volumeTransferRoutes } from './volume-transfers.ts'
import { volumeRoutes } from './volumes.ts'
import { workerRoutes } from './workers.ts'

/** Everything that the Cinder API serves, in the order of the document. */
export const ROUTES: readonly Route[] = [
  ...volumeRoutes,
  ...volumeActionRoutes,
  ...volumeConnectionRoutes,
  ...volumeImageRoutes,
  ...volumeImageMetadataRoutes,
  ...volumeMetadataRoutes,
  ...snapshotRoutes,
  ...snapshotActionRoutes,
  ...snapshotMetadataRoutes,
  ...attachmentRoutes,
  ...volumeTransferRoutes,
  ...messageRoutes,
  ...resourceFilterRoutes,
  ...groupRoutes,
  ...groupSnapshotRoutes,
  ...groupTypeRoutes,
  ...consistencyGroupRoutes,
  ...manageableRoutes,
  ...backupRoutes,
  ...typeRoutes,
  ...typeExtraSpecRoutes,
  ...typeAccessRoutes,
  ...typeEncryptionRoutes,
  ...defaultTypeRoutes,
  ...qosSpecRoutes,
  ...quotaRoutes,
  ...limitRoutes,
  ...availabilityZoneRoutes,
  ...poolRoutes,
  ...serviceRoutes,
  ...hostRoutes,
  ...clusterRoutes,
  ...workerRoutes,
  ...extensionRoutes,
]
