import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import { defineRoute, type Route } from '../route.ts'

/** The extensions of upstream whose resources, attributes or actions exist here; clients probe for them by alias. */
const EXTENSIONS = [
  extension('os-availability-zone', 'AvailabilityZones', 'Describe Availability Zones.', '2013-06-27'),
  extension('os-services', 'Services', 'Services support.', '2012-10-28', '-00:00'),
  extension('os-extended-services', 'ExtendedServices', 'Extended services support.', '2014-01-10', '-00:00'),
  extension('os-hosts', 'Hosts', 'Admin-only host administration.', '2011-06-29'),
  extension('scheduler-stats', 'Scheduler_stats', 'Scheduler stats support.', '2014-09-07'),
  extension('capabilities', 'Capabilities', 'Capabilities support.', '2015-08-31'),
  extension('OS-SCH-HNT', 'SchedulerHints', 'Pass arbitrary key/value pairs to the scheduler.', '2013-04-18'),
  extension('os-admin-actions', 'AdminActions', 'Enable admin actions.', '2012-08-25'),
  extension('os-volume-actions', 'VolumeActions', 'Enable volume actions.', '2012-05-31'),
  extension('os-volume-unmanage', 'VolumeUnmanage', 'Enable volume unmanage operation.', '2012-05-31'),
  extension('os-volume-transfer', 'VolumeTransfer', 'Volume transfer management support.', '2013-05-29'),
  extension(
    'os-vol-image-meta',
    'VolumeImageMetadata',
    'Show image metadata associated with the volume.',
    '2012-12-07',
  ),
  extension('consistencygroups', 'Consistencygroups', 'consistency groups support.', '2014-08-18'),
  extension('cgsnapshots', 'Cgsnapshots', 'cgsnapshots support.', '2014-08-18'),
  extension(
    'os-volume-manage',
    'VolumeManage',
    "Allows existing backend storage to be 'managed' by Cinder.",
    '2014-02-10',
  ),
  extension(
    'os-snapshot-manage',
    'SnapshotManage',
    "Allows existing backend storage to be 'managed' by Cinder.",
    '2014-12-31',
  ),
  extension('backups', 'Backups', 'Backups support.', '2012-12-12'),
  extension('os-snapshot-actions', 'SnapshotActions', 'Enable snapshot manager actions.', '2013-07-16'),
  extension('os-snapshot-unmanage', 'SnapshotUnmanage', 'Enable volume unmanage operation.', '2014-12-31'),
  extension('os-types-manage', 'TypesManage', 'Types manage support.', '2011-08-24'),
  extension('os-types-extra-specs', 'TypesExtraSpecs', 'Type extra specs support.', '2011-08-24'),
  extension('os-volume-type-access', 'VolumeTypeAccess', 'Volume type access support.', '2014-06-26', 'Z'),
  extension('encryption', 'VolumeTypeEncryption', 'Encryption support for volume types.', '2013-07-01'),
  extension('qos-specs', 'Qos_specs_manage', 'QoS specs support.', '2013-08-02'),
  extension('os-quota-sets', 'Quotas', 'Quota management support.', '2011-08-08'),
  extension('os-quota-class-sets', 'QuotaClasses', 'Quota classes management support.', '2012-03-12'),
  extension('os-used-limits', 'UsedLimits', 'Provide data on limited resources that are being used.', '2013-10-03'),
  extension(
    'os-volume-encryption-metadata',
    'VolumeEncryptionMetadata',
    'Volume encryption metadata retrieval support.',
    '2013-07-10',
  ),
  extension(
    'os-extended-snapshot-attributes',
    'ExtendedSnapshotAttributes',
    'Extended SnapshotAttributes support.',
    '2012-06-19',
  ),
  extension('os-vol-host-attr', 'VolumeHostAttribute', 'Expose host as an attribute of a volume.', '2011-11-03'),
  extension(
    'os-vol-tenant-attr',
    'VolumeTenantAttribute',
    'Expose the internal project_id as an attribute of a volume.',
    '2011-11-03',
  ),
  extension(
    'os-vol-mig-status-attr',
    'VolumeMigStatusAttribute',
    'Expose migration_status as an attribute of a volume.',
    '2013-08-08',
  ),
]

const Extension = z.object({
  alias: z.string(),
  name: z.string(),
  description: z.string(),
  updated: z.string(),
  links: z.array(z.never()),
})

export const extensionRoutes: Route[] = [
  defineRoute({
    method: 'GET',
    url: '/extensions',
    operation: 'list_extensions',
    summary: 'List the extensions of the API',
    policy: null,
    response: z.object({ extensions: z.array(Extension) }),
    handler: () => ({ extensions: EXTENSIONS }),
  }),
  defineRoute({
    method: 'GET',
    url: '/extensions/:alias',
    operation: 'show_extension',
    summary: 'Show an extension of the API',
    policy: null,
    response: z.object({ extension: Extension }),
    handler: ({ params }) => {
      const extension = EXTENSIONS.find(({ alias }) => alias === params.alias)
      if (extension === undefined) throw new ServiceError('ResourceNotFound')
      return { extension }
    },
  }),
]

/** Upstream writes UTC in three ways. */
type Zone = '+00:00' | '-00:00' | 'Z'

function extension(alias: string, name: string, description: string, day: string, zone: Zone = '+00:00') {
  return { alias, name, description, updated: `${day}T00:00:00${zone}`, links: [] }
}
