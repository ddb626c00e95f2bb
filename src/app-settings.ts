import { hostname } from 'node:os'
import type { Config } from './config.ts'
import { DEFAULT_SCHEDULER, DEFAULT_SETTINGS, type ServiceSettings } from './services/settings.ts'

/** What of the settings of a process matters to the services. */
export function serviceSettings(config: Config): ServiceSettings {
  const { quota, scheduler } = config
  return {
    ...DEFAULT_SETTINGS,
    hostName: config.host ?? hostname(),
    availabilityZone: config.availability_zone,
    defaultGroupType: config.default_group_type,
    scheduler: {
      ...DEFAULT_SCHEDULER,
      weights: {
        capacity: scheduler.capacity_weight,
        allocatedCapacity: scheduler.allocated_capacity_weight,
        volumeNumber: scheduler.volume_number_weight,
        goodness: scheduler.goodness_weight,
      },
      poolsMax: scheduler.max_attempts,
    },
    protectInstances: config.auth === 'keystone', // there is a cloud around, and so there may be a Nova
    swapTimeoutMs: config.compute_service.swap_timeout_minutes * 60_000,
    messageTtlMs: config.message_ttl_days * 86_400_000,
    quota: {
      volumes: quota.volumes,
      snapshots: quota.snapshots,
      gigabytes: quota.gigabytes,
      perVolumeGigabytes: quota.per_volume_gigabytes,
      backups: quota.backups,
      backupGigabytes: quota.backup_gigabytes,
      groups: quota.groups,
    },
  }
}
