import type { Db } from '../db/database.ts'
import type { Random } from '../runtime/random.ts'
import type { Backends } from './backends.ts'
import type { BackupTarget } from './backup/target.ts'
import type { ComputeService } from './compute/compute-service.ts'
import type { Images } from './images/images.ts'
import type { Keys } from './keys/volume-keys.ts'
import type { Pools } from './pools.ts'
import type { ServiceStates } from './service-states.ts'
import type { ServiceSettings } from './settings.ts'
import type { Stamp } from './stamp.ts'
import type { WorkEngine } from './work/engine.ts'

/** What every service is made of. */
export interface Parts {
  db: Db
  backends: Backends
  backupTarget: BackupTarget
  /** Null without an image service. */
  images: Images | null
  /** Null when nobody tells servers of their volumes. */
  compute: ComputeService | null
  /** Null without a key manager: no volume can be encrypted. */
  keys: Keys | null
  pools: Pools
  states: ServiceStates
  random: Random
  stamp: Stamp
  settings: ServiceSettings
  work: WorkEngine
}
