import { runsPostgres } from '../tools/postgres.ts'
import { describeCuts } from './cuts.ts'
import { describeReencryptionCuts } from './reencryption-cuts.ts'
import { describeSwapCuts } from './swap-cuts.ts'

describeCuts('SQLite', { share: 1 })
describeSwapCuts('SQLite', { share: 1 })
describeReencryptionCuts({ sizeGib: 9, share: 1 })
if (runsPostgres) {
  describeCuts('PostgreSQL', { share: 1 })
  describeSwapCuts('PostgreSQL', { share: 1 })
}
