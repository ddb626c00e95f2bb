import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { test } from 'vitest'

type TestBody = () => void | Promise<void>

/**
 * `test` for tests that need a program which not every host has. Without the program the test is skipped under a name
 * that tells which Debian package brings it; with CI=true it fails instead, so that nothing is left out unseen.
 *
 *     requireCommand('nbdinfo', 'libnbd-bin')('lists no export', async () => …)
 */
export function requireCommand(name: string, debianPackage: string): (title: string, body: TestBody) => void {
  if (commandExists(name)) return (title, body) => test(title, body)
  const missing = `${name} is missing: apt-get install ${debianPackage}`
  if (process.env.CI === 'true') {
    return (title) =>
      test(title, () => {
        throw new Error(missing)
      })
  }
  return (title) => test.skip(`${title} (${missing})`)
}

function commandExists(name: string): boolean {
  return (process.env.PATH ?? '').split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, name), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}
