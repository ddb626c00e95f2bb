import { z } from 'zod'
import type { RequestContext } from '../../services/context.ts'
import type { Volume, VolumeStatus } from '../../services/model.ts'
import { Link } from '../fields.ts'
import type { Links } from '../links.ts'
import { adminOnly, before, since } from '../microversion.ts'

const nullableText = z.string().nullable()

const VolumeAttachment = z.object({
  id: z.string(),
  attachment_id: z.string(),
  volume_id: z.string(),
  server_id: nullableText,
  host_name: nullableText,
  device: nullableText,
  attached_at: nullableText,
})

/** What create and update answer; the lists and show add the attributes below. */
export const VolumeDetail = z.object({
  id: z.string(),
  name: nullableText,
  description: nullableText,
  size: z.int(),
  status: z.string(),
  availability_zone: nullableText,
  volume_type: nullableText,
  bootable: z.enum(['true', 'false']),
  multiattach: z.boolean(),
  encrypted: z.boolean(),
  snapshot_id: nullableText,
  source_volid: nullableText,
  consistencygroup_id: nullableText,
  replication_status: nullableText,
  migration_status: adminOnly(nullableText),
  user_id: z.string(),
  metadata: z.record(z.string(), z.string()),
  attachments: z.array(VolumeAttachment),
  links: z.array(Link),
  created_at: z.string(),
  updated_at: nullableText,
  group_id: since('3.13', nullableText),
  provider_id: since('3.21', adminOnly(nullableText)),
  // Null says that only some initiators need a lock; before 3.69 that had to be said as true.
  shared_targets: since(
    '3.48',
    before('3.69', (value) => value ?? true, z.boolean().nullable()),
  ),
  service_uuid: since('3.48', nullableText),
  cluster_name: since('3.61', adminOnly(nullableText)),
  volume_type_id: since('3.63', nullableText),
  /** Only of volumes that are encrypted. */
  encryption_key_id: since('3.64', z.string().optional()),
  consumes_quota: since('3.65', z.boolean()),
})

/** Attributes of upstream's extensions, which show and the detailed list have and create has not. */
export const VolumeFull = VolumeDetail.extend({
  'os-vol-tenant-attr:tenant_id': z.string(),
  'os-vol-host-attr:host': adminOnly(nullableText),
  'os-vol-mig-status-attr:migstat': adminOnly(nullableText),
  'os-vol-mig-status-attr:name_id': adminOnly(nullableText),
  /** Only of volumes that have any. */
  volume_image_metadata: z.record(z.string(), z.string()).optional(),
})

/** Statuses that are told in older words. */
const SHOWN_AS: Partial<Record<VolumeStatus, VolumeStatus>> = { managing: 'creating', error_managing: 'error' }

/** What the service notes about a volume for users to see, among what they noted themselves. */
const VISIBLE_ADMIN_METADATA = ['readonly', 'attached_mode']

function visibleOf(adminMetadata: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(adminMetadata).filter(([key]) => VISIBLE_ADMIN_METADATA.includes(key)))
}

export const VolumeSummary = z.object({ id: z.string(), name: nullableText, links: z.array(Link) })

export function volumeSummary(volume: Volume, links: Links): z.input<typeof VolumeSummary> {
  return { id: volume.id, name: volume.name, links: linksOf(volume, links) }
}

function linksOf({ id }: Volume, links: Links): z.input<typeof Link>[] {
  const path = `/volumes/${id}`
  return [
    { rel: 'self', href: links.self(path) },
    { rel: 'bookmark', href: links.bookmark(path) },
  ]
}

/*
 * A page shows a thousand volumes, and V8 makes a slow dictionary of an object that is copied into a large literal. So a
 * view is one literal, and what is added to it is assigned.
 */

export function volumeDetail(volume: Volume, context: RequestContext, links: Links): z.input<typeof VolumeDetail> {
  const seesHosts = context.isAdmin || context.roles.includes('service')
  return {
    id: volume.id,
    name: volume.name,
    links: linksOf(volume, links),
    description: volume.description,
    size: volume.sizeGib,
    status: SHOWN_AS[volume.status] ?? volume.status,
    availability_zone: volume.availabilityZone,
    volume_type: volume.volumeTypeName,
    bootable: volume.bootable ? 'true' : 'false',
    multiattach: volume.multiattach,
    encrypted: volume.encryptionKeyId !== null,
    snapshot_id: volume.snapshotId,
    source_volid: volume.sourceVolid,
    consistencygroup_id: volume.consistencyGroupId,
    replication_status: null,
    migration_status: volume.migrationStatus,
    user_id: volume.userId,
    metadata: { ...volume.metadata, ...visibleOf(volume.adminMetadata) },
    attachments: volume.attachments
      .filter((attachment) => attachment.status === 'attached')
      .map((attachment) => ({
        id: volume.id,
        attachment_id: attachment.id,
        volume_id: volume.id,
        server_id: attachment.instanceId,
        host_name: seesHosts ? attachment.attachedHost : null,
        device: attachment.mountpoint,
        attached_at: attachment.attachedAt,
      })),
    created_at: volume.createdAt,
    updated_at: volume.updatedAt,
    group_id: volume.groupId,
    provider_id: null,
    // Every attachment has a target of its own, so a compute host need not lock before it disconnects one. Before a backend has made
    // the volume, nobody knows.
    shared_targets: volume.status === 'creating',
    service_uuid: null,
    cluster_name: null,
    volume_type_id: volume.volumeTypeId,
    encryption_key_id: volume.encryptionKeyId ?? undefined,
    consumes_quota: volume.consumesQuota,
  }
}

export function volumeFull(volume: Volume, context: RequestContext, links: Links): z.input<typeof VolumeFull> {
  const seesImages = context.allows('volume_extension:volume_image_metadata:show')
  return Object.assign(volumeDetail(volume, context, links), {
    'os-vol-tenant-attr:tenant_id': volume.projectId,
    'os-vol-host-attr:host': volume.host,
    'os-vol-mig-status-attr:migstat': volume.migrationStatus,
    'os-vol-mig-status-attr:name_id': volume.nameId,
    volume_image_metadata:
      seesImages && Object.keys(volume.imageMetadata).length > 0 ? volume.imageMetadata : undefined,
  })
}
