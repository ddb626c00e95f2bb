import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { expect, test } from 'vitest'

/** Calls one of the benchmarks so that it only says something about itself. */
function call(...words: string[]) {
  const file = path.resolve(import.meta.dirname, '../../bench/nbd.ts')
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', file, ...words], {
    encoding: 'utf8',
    env: { PATH: process.env.PATH },
  })
  return { status, stdout, stderr }
}

test('a benchmark tells what it measures and which options it has', () => {
  const { status, stdout } = call('--help')
  expect(status).toBe(0)
  expect(stdout).toMatch(/^Compares NBD servers .*\nUsage: tsx bench\/nbd\.ts \[--targets [^*]*\n$/s)
})

test('what is no number is refused with its name before anything starts', () => {
  const { status, stdout, stderr } = call('--runs', 'three')
  expect({ status, stdout, stderr }).toEqual({
    status: 2,
    stdout: '',
    stderr: 'nbd.ts: --runs "three": a number, 0 or more\nMore with --help.\n',
  })
})
