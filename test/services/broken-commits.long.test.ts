import { runsPostgres } from '../tools/postgres.ts'
import { describeBrokenCommits } from './broken-commits.ts'

describeBrokenCommits('SQLite', { scenarios: 1, faults: 1 })
if (runsPostgres) describeBrokenCommits('PostgreSQL', { scenarios: 1, faults: 1 })
