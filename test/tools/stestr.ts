import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { runCommand } from './run-command.ts'

/** Tests of others that are written in Python, run as their projects run them: by Debian's stestr. */

export const PYTHON = '/usr/bin/python3'
/** Where Debian keeps packages of Python. */
export const PACKAGES = '/usr/lib/python3/dist-packages'

export interface TestSelection {
  /** Where tests are looked for, below `PACKAGES`. */
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

/** Runs the tests in `directory`, which is made, two at a time. What failed has its say on the error output. */
export async function runStestr(
  directory: string,
  { tests, include, exclude }: TestSelection,
  env: Readonly<Record<string, string>>,
): Promise<TestResults> {
  mkdirSync(directory, { recursive: true })
  writeFileSync(path.join(directory, '.stestr.conf'), configuration(path.join(PACKAGES, tests)))
  const options = { cwd: directory, env }
  await runCommand([PYTHON, '-m', 'stestr', 'init'], options)
  const words = ['run', '--concurrency', '2', ...(exclude.length > 0 ? ['--exclude-regex', exclude.join('|')] : [])]
  // It ends with 1 when a test fails: what failed is told by the results.
  const printed = await runCommand([PYTHON, '-m', 'stestr', ...words, include.join('|')], options).catch(String)
  const passed = Number(/^ - Passed: (\d+)$/m.exec(printed)?.[1] ?? 0)
  const skipped = namesIn(printed, /\{\d+\} (.+?)(?: \[[\d.]+s\])? \.\.\. SKIPPED/gm)
  const failed = namesIn(printed, /\{\d+\} (.+) \[[\d.]+s\] \.\.\. FAILED$/gm)
  if (failed.length > 0 || passed === 0) console.error(printed.slice(-20_000))
  return { passed, skipped, failed }
}

/** Tests of one class come one after the other, as the projects have it: some use the same names. */
const configuration = (testPath: string): string => `
[DEFAULT]
test_path=${testPath}
top_dir=${PACKAGES}
group_regex=([^\\.]+\\.)+
`

/** What failed is told twice, where it failed and at the end. */
const namesIn = (printed: string, line: RegExp): string[] =>
  [...new Set([...printed.matchAll(line)].map(([, name]) => name!))].toSorted()
