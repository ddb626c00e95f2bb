import { runsPostgres } from '../tools/postgres.ts'
import { describeBrokenCommits } from './broken-commits.ts'

// All faults of all steps are in the long form. The commits are the same on both; what PostgreSQL has besides are the lanes that
// processes share.
describeBrokenCommits('SQLite', { scenarios: 1, faults: 3 })
if (runsPostgres) describeBrokenCommits('PostgreSQL', { scenarios: 6, faults: 3 })
