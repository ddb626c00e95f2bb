import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { test } from 'vitest'

type TestBody = () => void | Promise<void>
type Test = (title: string, body: TestBody) => void

/**
 * `test` for tests that need a program which not every host has. Without the program the test is skipped under a name
 * that tells which Debian package brings it; with CI=true it fails instead, so that nothing is left out unseen.
 *
 *     requireCommand('nbdinfo', 'libnbd-bin')('lists no export', async () => …)
 */
export function requireCommand(name: string, debianPackage: string): Test {
  return requireCommands({ [name]: debianPackage })
}

/** The same for tests that need several: Debian packages by the names of their programs. */
export function requireCommands(packages: Readonly<Record<string, string>>): Test {
  const missing = Object.keys(packages).filter((name) => !commandExists(name))
  const names = missing.join(', ')
  const wanted = [...new Set(missing.map((name) => packages[name]))].join(' ')
  const message = `${names} ${missing.length === 1 ? 'is' : 'are'} missing: apt-get install ${wanted}`
  return testUnless(missing.length > 0 && message)
}

/** `test`, unless something is `missing`: then the test is skipped under a name that tells what, or fails with CI=true. */
export function testUnless(missing: string | false): Test {
  if (missing === false || process.env.CI !== 'true') return skipUnless(missing)
  return (title) =>
    test(title, () => {
      throw new Error(missing)
    })
}

/** As `testUnless`, for what CI does without: with CI=true it is skipped too. */
export function skipUnless(missing: string | false): Test {
  if (missing === false) return (title, body) => test(title, body)
  return (title) => test.skip(`${title} (${missing})`)
}

/** Whether `name` is a program on the path, or the path of one. */
export function commandExists(name: string): boolean {
  return pathOfCommand(name) !== null
}

/** Where the program `name` is, or null. A path is one itself. */
export function pathOfCommand(name: string): string | null {
  const directories = name.includes('/') ? [''] : (process.env.PATH ?? '').split(delimiter)
  const paths = directories.map((directory) => join(directory, name))
  return paths.find(isExecutable) ?? null
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
