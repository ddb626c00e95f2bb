import { defineConfig } from 'vitest/config'
import { LongestFirst } from './test/longest-first.ts'

const LONG = 'test/**/*.long.test.ts'

/**
 * Tests that have a process each: they start or end processes (a database's server among them), look at what the process has
 * open, take long, or put code of their own in the place of a module's. All others share processes, and the modules that these
 * have loaded: loading them anew takes half a second of CPU a file. Whoever shares leaves the process as it was found.
 */
const ALONE = [
  'test/*.test.ts',
  'test/{bench,cli,contrib,control,db,drivers,e2e,exports,identity,keystone,runtime,services,tools,torture}/**/*.test.ts',
  'test/api/{clients,robustness}.test.ts',
  'test/sheep/{cluster,order}/**/*.test.ts',
  'test/sheep/{engine-rules,object-store}.test.ts',
  'test/sheep/{copies/copies,replicated/replicated}.test.ts',
]

export default defineConfig({
  test: {
    setupFiles: ['test/fast-check.ts', 'test/equal-bytes.ts'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    pool: 'forks',
    projects: [
      { extends: true, test: { name: 'alone', include: ALONE, exclude: [LONG] } },
      {
        extends: true,
        test: { name: 'shared', include: ['test/**/*.test.ts'], exclude: [LONG, ...ALONE], isolate: false },
      },
    ],
    sequence: { sequencer: LongestFirst },
    maxWorkers: 2, // vitest leaves one core free, and much of a test's time is spent waiting
    reporters: process.env.CI ? ['default', ['json', { outputFile: 'coverage/results.json' }]] : ['default'],
  },
})
