import type { Usage, UsageLimits } from '../db/quotas.ts'
import { ServiceError } from '../errors.ts'

/** Limits of every project; -1 is no limit. */
export interface QuotaSettings extends UsageLimits {
  perVolumeGigabytes: number
  backups: number
  backupGigabytes: number
}

/** Cinder's defaults. A local install without an administrator wants larger ones. */
export const DEFAULT_QUOTA: QuotaSettings = {
  volumes: 10,
  snapshots: 10,
  gigabytes: 1000,
  perVolumeGigabytes: -1,
  backups: 10,
  backupGigabytes: 1000,
}

export const NOTHING: Usage = { volumes: 0, snapshots: 0, gigabytes: 0 }

export function volumeCharge(sizeGib: number): Usage {
  return { volumes: 1, snapshots: 0, gigabytes: sizeGib }
}

/** A snapshot counts with the size of its volume, whatever it takes in the store. */
export function snapshotCharge(sizeGib: number): Usage {
  return { volumes: 0, snapshots: 1, gigabytes: sizeGib }
}

/** Growth of a volume, in GiB. */
export function growthCharge(growthGib: number): Usage {
  return { ...NOTHING, gigabytes: growthGib }
}

/** Throws QuotaExceeded when a single volume of that size is too large. */
export function checkVolumeSize(sizeGib: number, limits: QuotaSettings): void {
  const limit = limits.perVolumeGigabytes
  if (limit < 0 || sizeGib <= limit) return
  throw exceeded(
    'VolumeSizeExceedsLimit',
    `Requested volume size ${sizeGib}G is larger than maximum allowed limit ${limit}G.`,
  )
}

/** Why `charge` does not fit on top of `usage`, in Cinder's words and order; null when it fits. */
export function explainOver(usage: Usage, charge: Usage, limits: UsageLimits): ServiceError | null {
  const over = (resource: keyof Usage) =>
    charge[resource] > 0 && limits[resource] >= 0 && usage[resource] + charge[resource] > limits[resource]
  if (over('gigabytes')) {
    return exceeded(
      'VolumeSizeExceedsAvailableQuota',
      `Requested volume or snapshot exceeds allowed gigabytes quota. Requested ${charge.gigabytes}G, ` +
        `quota is ${limits.gigabytes}G and ${usage.gigabytes}G has been consumed.`,
    )
  }
  if (over('snapshots')) {
    return exceeded('SnapshotLimitExceeded', `Maximum number of snapshots allowed (${limits.snapshots}) exceeded`)
  }
  if (over('volumes')) {
    return exceeded(
      'VolumeLimitExceeded',
      `Maximum number of volumes allowed (${limits.volumes}) exceeded for quota 'volumes'.`,
    )
  }
  return null
}

function exceeded(kind: string, reason: string): ServiceError {
  return new ServiceError('QuotaExceeded', { kind, reason })
}
