import { afterAll, beforeAll, describe, expect, vi } from 'vitest'
import { printLogOfFailures } from '../tools/collie.ts'
import { SuiteCloud, withSuiteCloud } from '../tools/suite-cloud.ts'

/** The functional tests of `openstack volume`, as Debian packages them. */

vi.setConfig({ testTimeout: 1_200_000, hookTimeout: 240_000 }) // each command starts a Python and logs in

/** Tests that say nothing of block storage here. */
const NOT_OURS = [
  'volume\\.v[12]\\.', // versions of the API which Cinder itself has not had for years
  'VolumeTypeTests\\.test_volume_type_create_list', // wants the default type to have the name that DevStack gives it
]

let cloud: SuiteCloud | null = null

printLogOfFailures(() => cloud?.collie)

beforeAll(async () => {
  cloud = await SuiteCloud.start()
})
afterAll(() => cloud?.stop())

describe('openstackclient', () => {
  withSuiteCloud('finds block storage as it should be', async () => {
    const tests = 'openstackclient/tests/functional/volume'
    const { passed, skipped, failed } = await cloud!.run({ tests, include: ['.'], exclude: NOT_OURS })
    expect({ skipped, failed }).toEqual({ skipped: [], failed: [] })
    expect(passed).toBe(18)
  })
})
