import { expect, it } from 'vitest'
import type { QuotaLimitRow } from '../../src/db/quota-limits.ts'
import type { Usage } from '../../src/db/quotas.ts'
import {
  checkPerVolume,
  DEFAULT_QUOTA,
  explainOver,
  growthCharge,
  limitOf,
  snapshotCharge,
  usageLimits,
  volumeCharge,
} from '../../src/services/quota.ts'

const unlimited = { volumes: -1, snapshots: -1, gigabytes: -1 }
const full = { volumes: 10, snapshots: 10, gigabytes: 1000 }

const project = (usage: Usage, limits: Usage = DEFAULT_QUOTA) => ({ typeName: null, usage, limits })
const ofType = (usage: Usage, limits: Usage) => ({ typeName: 'fast', usage, limits })

it('fits up to the limit and not beyond', () => {
  const usage = { volumes: 9, snapshots: 9, gigabytes: 999 }
  expect(explainOver([project(usage)], volumeCharge(1))).toBeNull()
  expect(explainOver([project(usage)], snapshotCharge(1))).toBeNull()
  expect(explainOver([project(usage)], growthCharge(2))).not.toBeNull()
})

it('has no limit below zero', () => {
  expect(explainOver([project(full, unlimited)], volumeCharge(1_000_000))).toBeNull()
})

it("says in Cinder's words what is exceeded", () => {
  const withoutGigabytes = { ...DEFAULT_QUOTA, gigabytes: -1 }
  expect(explainOver([project(full, withoutGigabytes)], volumeCharge(1))?.message).toBe(
    "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded for quota 'volumes'.",
  )
  expect(explainOver([project(full)], volumeCharge(1))?.message).toBe(
    'VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes quota. ' +
      'Requested 1G, quota is 1000G and 1000G has been consumed.',
  )
  expect(explainOver([project(full, withoutGigabytes)], snapshotCharge(1))?.message).toBe(
    'SnapshotLimitExceeded: Maximum number of snapshots allowed (10) exceeded',
  )
})

it('names the quota of the type, and of several the first in alphabetical order', () => {
  const counters = (limits: Partial<Usage>) => [project(full, unlimited), ofType(full, { ...unlimited, ...limits })]
  expect(explainOver(counters({ volumes: 10 }), volumeCharge(1))?.message).toBe(
    "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded for quota 'volumes_fast'.",
  )
  expect(explainOver(counters({ volumes: 10, gigabytes: 0 }), volumeCharge(1))?.message).toBe(
    'VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes_fast quota. ' +
      'Requested 1G, quota is 0G and 1000G has been consumed.',
  )
  const both = [project(full), ofType(full, { ...unlimited, gigabytes: 0 })]
  expect(explainOver(both, growthCharge(1))?.message).toContain('allowed gigabytes quota')
})

it('never counts beyond what the database holds', () => {
  const nearlyAll = { volumes: 1, snapshots: 0, gigabytes: 2_147_483_646 }
  const counters = [project(nearlyAll, unlimited), ofType(nearlyAll, unlimited)]
  expect(explainOver(counters, growthCharge(1))).toBeNull()
  expect(explainOver(counters, growthCharge(2))?.message).toBe(
    "QuotaUsageOverflow: Quota usage would overflow for resources: ['gigabytes', 'gigabytes_fast']. " +
      'The requested operation would exceed the maximum allowed value (2147483647) for quota tracking.',
  )
})

it('bounds the size of one volume', () => {
  expect(() => checkPerVolume(1_000_000, -1)).not.toThrow()
  expect(() => checkPerVolume(5, 5)).not.toThrow()
  expect(() => checkPerVolume(6, 5)).toThrow(
    'VolumeSizeExceedsLimit: Requested volume size 6G is larger than maximum allowed limit 5G.',
  )
})

it("takes a project's limit before that of the class, and that before the settings; a type has none by itself", () => {
  const row = (
    scope: 'project' | 'class',
    resource: string,
    hard_limit: number,
    volume_type_id: string | null = null,
  ) => ({ scope, owner: 'o', resource, hard_limit, volume_type_id }) satisfies QuotaLimitRow
  const rows = [
    row('class', 'volumes', 3),
    row('project', 'volumes', 2),
    row('class', 'snapshots', 4),
    row('class', 'volumes', 1, 't'),
    row('class', 'per_volume_gigabytes', 7),
  ]
  expect(usageLimits(rows, null, DEFAULT_QUOTA)).toEqual({ volumes: 2, snapshots: 4, gigabytes: 1000 })
  expect(usageLimits(rows, 't', DEFAULT_QUOTA)).toEqual({ volumes: 1, snapshots: -1, gigabytes: -1 })
  expect(limitOf(rows, 'per_volume_gigabytes', DEFAULT_QUOTA)).toBe(7)
  expect(limitOf(rows, 'backup_gigabytes', DEFAULT_QUOTA)).toBe(1000)
})
