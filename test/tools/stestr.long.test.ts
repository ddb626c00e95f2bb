import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, describe, expect } from 'vitest'
import { requireCommand } from './require-command.ts'
import { scratchDirectory } from './scratch.ts'
import { runStestr, type TestResults } from './stestr.ts'

/** That the suites of others are counted as they are, whatever way their tests end. */

const withStestr = requireCommand('stestr', 'python3-stestr')

const GOOD = `
import unittest
class Good(unittest.TestCase):
    def test_one(self): pass
    def test_two(self): pass
    @unittest.skip('not here')
    def test_three(self): pass
class NoService(unittest.TestCase):
    @classmethod
    def setUpClass(cls): raise unittest.SkipTest('not there')
    def test_one(self): pass
`
const BAD = `
import unittest
class Bad(unittest.TestCase):
    def test_one(self): pass
    def test_two(self): self.fail()
class NoCloud(unittest.TestCase):
    @classmethod
    def setUpClass(cls): raise RuntimeError('no cloud')
    def test_one(self): pass
`
const DIES = `
import os, unittest
class Dies(unittest.TestCase):
    def test_one(self): os._exit(0)
    def test_two(self): pass
`
const BROKEN = 'import no_such_module'

const scratch = scratchDirectory('collie-stestr-')
afterAll(() => rmSync(scratch, { recursive: true }))

/** Runs what the modules have, which are given by their names. */
function run(title: string, modules: Readonly<Record<string, string>>): Promise<TestResults> {
  const tests = path.join(scratch, title, 'package')
  mkdirSync(tests, { recursive: true })
  for (const [name, source] of Object.entries({ __init__: '', ...modules })) {
    writeFileSync(path.join(tests, `${name}.py`), source)
  }
  return runStestr(path.join(scratch, title, 'run'), { tests, include: ['.'], exclude: ['test_nothing'] }, {})
}

describe('a suite', () => {
  withStestr('passes with what it has left out', async () => {
    expect(await run('passes', { test_good: GOOD })).toEqual({
      passed: 2,
      skipped: ['package.test_good.Good.test_three', 'setUpClass (package.test_good.NoService)'],
      failed: [],
    })
  })

  withStestr('fails with a test, or with what a class begins with', async () => {
    expect(await run('fails', { test_good: GOOD, test_bad: BAD })).toMatchObject({
      passed: 3,
      failed: ['package.test_bad.Bad.test_two', 'setUpClass (package.test_bad.NoCloud)'],
    })
  })

  withStestr('fails when tests are lost', async () => {
    await expect(run('lost', { test_good: GOOD, test_dies: DIES })).rejects.toThrow('did not run all tests')
    await expect(run('unread', { test_good: GOOD, test_broken: BROKEN })).rejects.toThrow('no_such_module')
    await expect(run('empty', {})).rejects.toThrow('did not run all tests')
  })
})
