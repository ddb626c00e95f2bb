import { afterAll, beforeAll, describe, expect, vi } from 'vitest'
import { printLogOfFailures } from '../tools/collie.ts'
import { SuiteCloud, withSuiteCloud } from '../tools/suite-cloud.ts'

/** The functional tests of openstacksdk that are about block storage, as Debian packages them. */

vi.setConfig({ testTimeout: 600_000, hookTimeout: 240_000 })

/** Tests that say nothing of block storage here. */
const NOT_OURS = [
  'block_storage\\.v2\\.', // the second version of the API, which Cinder itself has not had for years
  'cloud\\.test_volume(_backup)?\\.', // "temporarily disabled" by the project itself
  'cloud\\.test_volume_type\\.', // look for a private type in a list that has, upstream too, only public ones unless asked for all
]

let cloud: SuiteCloud | null = null

printLogOfFailures(() => cloud?.collie)

beforeAll(async () => {
  cloud = await SuiteCloud.start()
})
afterAll(() => cloud?.stop())

describe('openstacksdk', () => {
  withSuiteCloud('finds the resources of block storage as it knows them', async () => {
    const tests = 'openstack/tests/functional/block_storage'
    const { passed, skipped, failed } = await cloud!.run({ tests, include: ['.'], exclude: NOT_OURS })
    expect({ skipped, failed }).toEqual({ skipped: [], failed: [] })
    expect(passed).toBe(13)
  })

  withSuiteCloud('finds quotas and limits in its cloud layer', async () => {
    const include = ['test_volume_', 'test_quotas\\.TestVolumeQuotas', 'test_limits\\..*volume']
    const tests = 'openstack/tests/functional/cloud'
    const { passed, skipped, failed } = await cloud!.run({ tests, include, exclude: NOT_OURS })
    expect({ skipped, failed }).toEqual({ skipped: [], failed: [] })
    expect(passed).toBe(3)
  })
})
