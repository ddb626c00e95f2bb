import { defineConfig } from 'vitest/config'

/** What takes longer than minutes: more seeds, torture, fuzzing, guests. */
export default defineConfig({
  test: {
    include: ['test/**/*.long.test.ts'],
    setupFiles: ['test/fast-check.ts', 'test/equal-bytes.ts'],
    testTimeout: 1_800_000,
    hookTimeout: 120_000,
    pool: 'forks',
    maxWorkers: 1,
    passWithNoTests: true,
  },
})
