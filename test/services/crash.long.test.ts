import { runsPostgres } from '../tools/postgres.ts'
import { describeCuts } from './cuts.ts'

if (runsPostgres) describeCuts('PostgreSQL', { share: 1 })
