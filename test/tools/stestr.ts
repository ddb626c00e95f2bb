import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { runCommand } from './run-command.ts'

/** Tests of others that are written in Python, run as their projects run them: by Debian's stestr. */

export const PYTHON = '/usr/bin/python3'
/** Where Debian keeps packages of Python. */
export const PACKAGES = '/usr/lib/python3/dist-packages'

const TOLD_CHARACTERS = 20_000

export interface TestSelection {
  /** Where tests are looked for: a directory below `PACKAGES`, or the absolute path of one. */
  tests: string
  /** Expressions: tests of which the name matches one of the first, and none of the second. */
  include: readonly string[]
  exclude: readonly string[]
}

export interface TestResults {
  passed: number
  /** Names of those that found for themselves that they are not meant. */
  skipped: string[]
  failed: string[]
}

/**
 * Runs the tests in `directory`, which is made, two at a time. What failed has its say on the error output. Rejects when the run fails
 * though no test did: a process that ends takes with it the tests that it was still to run, and they are in no count.
 */
export async function runStestr(
  directory: string,
  { tests, include, exclude }: TestSelection,
  env: Readonly<Record<string, string>>,
): Promise<TestResults> {
  mkdirSync(directory, { recursive: true })
  writeFileSync(path.join(directory, '.stestr.conf'), configuration(tests))
  const options = { cwd: directory, env }
  await runCommand([PYTHON, '-m', 'stestr', 'init'], options)
  const words = ['run', '--concurrency', '2', ...(exclude.length > 0 ? ['--exclude-regex', exclude.join('|')] : [])]
  let isGreen = true
  const printed = await runCommand([PYTHON, '-m', 'stestr', ...words, include.join('|')], options).catch((error) => {
    isGreen = false
    return String(error)
  })
  const passed = Number(/^ - Passed: (\d+)$/m.exec(printed)?.[1] ?? 0)
  const skipped = namesIn(printed, /\{\d+\} (.+?)(?: \[[\d.]+s\])? \.\.\. SKIPPED/gm)
  const failed = namesIn(printed, /\{\d+\} (.+) \[[\d.]+s\] \.\.\. FAILED$/gm)
  const told = printed.slice(-TOLD_CHARACTERS)
  if (!isGreen && failed.length === 0) throw new Error(`stestr did not run all tests:\n${told}`)
  if (failed.length > 0) console.error(told)
  return { passed, skipped, failed }
}

/** Tests of one class come one after the other, as the projects have it: some use the same names. */
const configuration = (tests: string): string => `
[DEFAULT]
test_path=${path.resolve(PACKAGES, tests)}
top_dir=${path.isAbsolute(tests) ? path.dirname(tests) : PACKAGES}
group_regex=([^\\.]+\\.)+
`

/** What failed is told twice, where it failed and at the end. */
const namesIn = (printed: string, line: RegExp): string[] =>
  [...new Set([...printed.matchAll(line)].map(([, name]) => name!))].toSorted()
