import { expect, it } from 'vitest'
import {
  checkVolumeSize,
  DEFAULT_QUOTA,
  explainOver,
  growthCharge,
  snapshotCharge,
  volumeCharge,
} from '../../src/services/quota.ts'

const unlimited = { ...DEFAULT_QUOTA, volumes: -1, snapshots: -1, gigabytes: -1 }
const full = { volumes: 10, snapshots: 10, gigabytes: 1000 }

it('fits up to the limit and not beyond', () => {
  const usage = { volumes: 9, snapshots: 9, gigabytes: 999 }
  expect(explainOver(usage, volumeCharge(1), DEFAULT_QUOTA)).toBeNull()
  expect(explainOver(usage, snapshotCharge(1), DEFAULT_QUOTA)).toBeNull()
  expect(explainOver(usage, growthCharge(2), DEFAULT_QUOTA)).not.toBeNull()
})

it('has no limit below zero', () => {
  expect(explainOver(full, volumeCharge(1_000_000), unlimited)).toBeNull()
})

it("says in Cinder's words what is exceeded", () => {
  expect(explainOver(full, volumeCharge(1), { ...DEFAULT_QUOTA, gigabytes: -1 })?.message).toBe(
    "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded for quota 'volumes'.",
  )
  expect(explainOver(full, volumeCharge(1), DEFAULT_QUOTA)?.message).toBe(
    'VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes quota. ' +
      'Requested 1G, quota is 1000G and 1000G has been consumed.',
  )
  expect(explainOver(full, snapshotCharge(1), { ...DEFAULT_QUOTA, gigabytes: -1 })?.message).toBe(
    'SnapshotLimitExceeded: Maximum number of snapshots allowed (10) exceeded',
  )
})

it('bounds the size of one volume', () => {
  expect(() => checkVolumeSize(1_000_000, DEFAULT_QUOTA)).not.toThrow()
  expect(() => checkVolumeSize(5, { ...DEFAULT_QUOTA, perVolumeGigabytes: 5 })).not.toThrow()
  expect(() => checkVolumeSize(6, { ...DEFAULT_QUOTA, perVolumeGigabytes: 5 })).toThrow(
    'VolumeSizeExceedsLimit: Requested volume size 6G is larger than maximum allowed limit 5G.',
  )
})
