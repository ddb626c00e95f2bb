import type { BackupUsage } from '../db/backup-usages.ts'
import type { QuotaLimitRow } from '../db/quota-limits.ts'
import { ceiling, type RESOURCES, USAGE_MAX, type Usage, type UsageLimits } from '../db/quotas.ts'
import { ServiceError } from '../errors.ts'

/** Limits of a project that nobody has set any for; -1 is no limit. The class `default` in the database goes before them. */
export interface QuotaSettings extends UsageLimits {
  perVolumeGigabytes: number
  backups: number
  backupGigabytes: number
  groups: number
}

/** Cinder's defaults. A local install without an administrator wants larger ones. */
export const DEFAULT_QUOTA: QuotaSettings = {
  volumes: 10,
  snapshots: 10,
  gigabytes: 1000,
  perVolumeGigabytes: -1,
  backups: 10,
  backupGigabytes: 1000,
  groups: 10,
}

/** The quotas of a project in Cinder's words, and the settings that have their defaults. */
export const QUOTAS = {
  volumes: 'volumes',
  snapshots: 'snapshots',
  gigabytes: 'gigabytes',
  per_volume_gigabytes: 'perVolumeGigabytes',
  backups: 'backups',
  backup_gigabytes: 'backupGigabytes',
  groups: 'groups',
} as const satisfies Record<string, keyof QuotaSettings>

export type QuotaName = keyof typeof QUOTAS

export const NOTHING: Usage = { volumes: 0, snapshots: 0, gigabytes: 0 }

/** A type has no limits of its own until somebody sets one. */
const UNLIMITED: UsageLimits = { volumes: -1, snapshots: -1, gigabytes: -1 }

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

/** A project's own limit goes before that of a class. Undefined when nobody has set one. */
export function limitAmong(
  rows: readonly QuotaLimitRow[],
  resource: string,
  typeId: string | null,
): number | undefined {
  const matching = rows.filter((row) => row.resource === resource && row.volume_type_id === typeId)
  const row = matching.find(({ scope }) => scope === 'project') ?? matching[0]
  return row?.hard_limit
}

/** The limit of a quota that is not of a type. */
export function limitOf(rows: readonly QuotaLimitRow[], name: QuotaName, settings: QuotaSettings): number {
  return limitAmong(rows, name, null) ?? settings[QUOTAS[name]]
}

/** The limits of what is counted: of a project as a whole, or of what it has of one type. */
export function usageLimits(
  rows: readonly QuotaLimitRow[],
  typeId: string | null,
  settings: QuotaSettings,
): UsageLimits {
  const fallback = typeId === null ? settings : UNLIMITED
  const limit = (resource: keyof Usage) => limitAmong(rows, resource, typeId) ?? fallback[resource]
  return { volumes: limit('volumes'), snapshots: limit('snapshots'), gigabytes: limit('gigabytes') }
}

/** Throws QuotaExceeded when a single volume of that size is too large. */
export function checkPerVolume(sizeGib: number, limitGib: number): void {
  if (limitGib < 0 || sizeGib <= limitGib) return
  throw exceeded(
    'VolumeSizeExceedsLimit',
    `Requested volume size ${sizeGib}G is larger than maximum allowed limit ${limitGib}G.`,
  )
}

/** What is used under one set of limits. */
export interface Counter {
  /** Null: of all types. */
  typeName: string | null
  usage: Usage
  limits: UsageLimits
}

/** Why `charge` does not fit on top of what the counters have, in Cinder's words and order; null when it fits. */
export function explainOver(counters: readonly Counter[], charge: Usage): ServiceError | null {
  const names = (isOver: (counter: Counter, resource: keyof Usage) => boolean) =>
    (['gigabytes', 'snapshots', 'volumes'] as const).flatMap((resource) =>
      counters
        .filter((counter) => charge[resource] > 0 && isOver(counter, resource))
        .map((counter) => ({ resource, counter, name: quotaName(resource, counter.typeName) })),
    )
  const overflows = names(({ usage }, resource) => usage[resource] + charge[resource] > USAGE_MAX)
  if (overflows.length > 0) {
    return exceeded(
      'QuotaUsageOverflow',
      `Quota usage would overflow for resources: [${overflows.map(({ name }) => `'${name}'`).join(', ')}]. ` +
        `The requested operation would exceed the maximum allowed value (${USAGE_MAX}) for quota tracking.`,
    )
  }
  const [first] = names(({ usage, limits }, resource) => usage[resource] + charge[resource] > ceiling(limits[resource]))
  if (first === undefined) return null
  const { resource, name, counter } = first
  const limit = counter.limits[resource]
  switch (resource) {
    case 'gigabytes':
      return exceeded(
        'VolumeSizeExceedsAvailableQuota',
        `Requested volume or snapshot exceeds allowed ${name} quota. Requested ${charge.gigabytes}G, ` +
          `quota is ${limit}G and ${counter.usage.gigabytes}G has been consumed.`,
      )
    case 'snapshots':
      return exceeded('SnapshotLimitExceeded', `Maximum number of snapshots allowed (${limit}) exceeded`)
    case 'volumes':
      return exceeded(
        'VolumeLimitExceeded',
        `Maximum number of volumes allowed (${limit}) exceeded for quota '${name}'.`,
      )
  }
}

/** Why another backup of that size does not fit; null when it does. */
export function explainBackupsOver(usage: BackupUsage, sizeGib: number, limits: BackupUsage): ServiceError | null {
  if (usage.backup_gigabytes + sizeGib > ceiling(limits.backup_gigabytes)) {
    return exceeded(
      'VolumeBackupSizeExceedsAvailableQuota',
      `Requested backup exceeds allowed Backup gigabytes quota. Requested ${sizeGib}G, quota is ` +
        `${limits.backup_gigabytes}G and ${usage.backup_gigabytes}G has been consumed.`,
    )
  }
  if (usage.backups + 1 > ceiling(limits.backups)) {
    return exceeded('BackupLimitExceeded', `Maximum number of backups allowed (${limits.backups}) exceeded`)
  }
  return null
}

export function groupsExceeded(limit: number): ServiceError {
  return exceeded('GroupLimitExceeded', `Maximum number of groups allowed (${limit}) exceeded`)
}

/** `volumes`, or `volumes_fast` for what is counted of the type `fast`. */
export function quotaName(resource: (typeof RESOURCES)[number], typeName: string | null): string {
  return typeName === null ? resource : `${resource}_${typeName}`
}

function exceeded(kind: string, reason: string): ServiceError {
  return new ServiceError('QuotaExceeded', { kind, reason })
}
