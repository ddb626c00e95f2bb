import { afterAll, beforeAll, describe, expect, vi } from 'vitest'
import { printLogOfFailures } from '../tools/collie.ts'
import { SuiteCloud, withSuiteCloud } from '../tools/suite-cloud.ts'

/** The functional tests of the `cinder` command, as Debian packages them. */

vi.setConfig({ testTimeout: 1_200_000, hookTimeout: 240_000 }) // each command starts a Python and logs in

let cloud: SuiteCloud | null = null

printLogOfFailures(() => cloud?.collie)

beforeAll(async () => {
  cloud = await SuiteCloud.start()
})
afterAll(() => cloud?.stop())

describe('cinderclient', () => {
  withSuiteCloud('finds block storage as it should be', async () => {
    const tests = 'cinderclient/tests/functional'
    const { passed, skipped, failed } = await cloud!.run({ tests, include: ['.'], exclude: [] })
    expect({ skipped, failed }).toEqual({ skipped: [], failed: [] })
    expect(passed).toBe(45)
  })
})
