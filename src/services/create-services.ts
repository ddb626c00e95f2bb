import type { Db } from '../db/database.ts'
import * as groupTypes from '../db/group-types.ts'
import * as volumeTypes from '../db/volume-types.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import type { Random } from '../runtime/random.ts'
import { createAttachmentService } from './attachments.ts'
import { createBackendService } from './backend-admin.ts'
import { type Backend, createBackends } from './backends.ts'
import type { BackupTarget } from './backup/target.ts'
import { createBackupService } from './backups.ts'
import type { ComputeService } from './compute/compute-service.ts'
import { createConnectionService } from './connections.ts'
import { createCounts, type ServiceCounts } from './counts.ts'
import { createDefaultTypeService } from './default-types.ts'
import { createInspection, type Inspection } from './explain.ts'
import { createGroupSnapshotService } from './group-snapshots.ts'
import { createGroupTypeService } from './group-types.ts'
import { createGroupService } from './groups.ts'
import { createImages, type ImageOptions } from './images/images.ts'
import type { KeyManager } from './keys/key-manager.ts'
import { createKeyService } from './keys/key-service.ts'
import { createLocalKeys } from './keys/local-keys.ts'
import type { Keys } from './keys/volume-keys.ts'
import { createManageService } from './manageable.ts'
import { createMessageService, createMessageSweep, failureRecorder } from './messages.ts'
import type { Parts } from './parts.ts'
import { createPools } from './pools.ts'
import { createQosSpecService } from './qos-specs.ts'
import { createQuotaService } from './quota-sets.ts'
import type { Seal } from './seal.ts'
import { createServiceStates } from './service-states.ts'
import type { Services } from './services.ts'
import type { ServiceSettings } from './settings.ts'
import { createSnapshotService } from './snapshots.ts'
import { createStamp } from './stamp.ts'
import { createTypeEncryptionService } from './type-encryption.ts'
import { createTypeService } from './types.ts'
import { createVolumeCopies, type VolumeCopies } from './volume-copies.ts'
import { createVolumeTransferService } from './volume-transfers.ts'
import { createVolumeService } from './volumes.ts'
import { createWorkEngine } from './work/engine.ts'
import { createWorkKinds } from './work/kinds.ts'
import { createMembership } from './work/membership.ts'

export interface ServicesOptions {
  /** Stays open until `stop` has resolved; the caller closes it. */
  db: Db
  backends: readonly Backend[]
  /** Where backups are kept. */
  backupTarget: BackupTarget
  /** Who moves the bytes of volumes; when absent, this thread. The caller closes it as it closes the target. */
  volumeCopies?: VolumeCopies
  /** None: volumes are neither made from images nor made into such. */
  images?: ImageOptions | null
  /** Who tells servers that a volume of theirs has changed; null: nobody. */
  compute?: ComputeService | null
  /** None: no volume can be encrypted. */
  keys?: KeyOptions | null
  clock: Clock
  random: Random
  log: Log
  settings: ServiceSettings
}

export interface KeyOptions {
  /** Of keys, or of what waits to be made of them, in the database. */
  seal: Seal
  /** Who keeps the keys; null: the database. */
  manager: KeyManager | null
}

export interface RunningServices extends Services, Inspection {
  /** Starts the drivers, takes up the work of an earlier run. Requests made before this are kept, but not worked on. */
  start(): Promise<void>
  /** Waits for the work that runs, as long as `settings.stopGraceMs`; the rest resumes at the next start. */
  stop(): Promise<void>
  /** Resolves when no work runs or waits. */
  idle(): Promise<void>
  counts(): Promise<ServiceCounts>
  /** Why nothing can be done with volumes now; null while a backend answers. */
  whyUnready(): Promise<string | null>
}

export function createServices({
  db,
  backupTarget,
  clock,
  random,
  log,
  settings,
  ...options
}: ServicesOptions): RunningServices {
  const backends = createBackends(options.backends)
  const images = options.images ? createImages(clock, options.images) : null
  const compute = options.compute ?? null
  const stamp = createStamp(clock)
  const keys = options.keys ? createKeys(options.keys, { db, random, stamp }) : null
  const states = createServiceStates(db, stamp)
  const pools = createPools({ db, backends, states, settings, clock, stamp, log })
  const work = createWorkEngine({
    db,
    clock,
    random,
    log,
    stamp,
    membership: createMembership({
      db,
      random,
      log,
      stamp,
      host: settings.hostName,
      pid: process.pid,
      settings: settings.work,
    }),
    settings: settings.work,
    kinds: createWorkKinds({
      db,
      backends,
      backupTarget,
      copies: options.volumeCopies ?? createVolumeCopies({ backends, target: async () => backupTarget, clock }),
      images,
      compute,
      keys,
      random,
      pools,
      settings,
      stamp,
      clock,
      log,
    }),
    recordFailure: failureRecorder({ clock, random, stamp, settings }),
  })
  const messageSweep = createMessageSweep({ db, clock, log })
  const parts: Parts = {
    db,
    backends,
    backupTarget,
    images,
    compute,
    keys,
    pools,
    states,
    random,
    stamp,
    settings,
    work,
  }

  return {
    volumes: createVolumeService(parts),
    snapshots: createSnapshotService(parts),
    attachments: createAttachmentService(parts),
    connections: createConnectionService(parts),
    transfers: createVolumeTransferService({ ...parts, log }),
    types: createTypeService(parts),
    backups: createBackupService(parts),
    typeEncryption: createTypeEncryptionService(parts),
    qosSpecs: createQosSpecService(parts),
    defaultTypes: createDefaultTypeService(parts),
    quotas: createQuotaService(parts),
    backends: createBackendService({ ...parts, log }),
    messages: createMessageService(parts),
    groups: createGroupService(parts),
    groupSnapshots: createGroupSnapshotService(parts),
    groupTypes: createGroupTypeService(parts),
    manageable: createManageService(parts),
    keys: createKeyService(parts),
    start: async () => {
      await ensureDefaultType(parts)
      await ensureConsistencyGroupType(parts)
      await images?.spool.start()
      await pools.refresh().catch(() => {}) // logged; a backend that is away is asked again, and its work waits
      await work.start()
      messageSweep.start()
    },
    stop: async () => {
      await messageSweep.stop()
      await work.stop(settings.stopGraceMs)
      await Promise.all([images?.fills.close(), images?.sends.close()])
      await Promise.allSettled(backends.all.map(({ driver }) => driver.stop()))
    },
    idle: () => work.idle(),
    ...createInspection(db),
    counts: createCounts(db, clock, work),
    whyUnready: async () => {
      await pools.current()
      const health = backends.all.map(({ name }) => pools.health(name))
      return health.some(({ up }) => up) ? null : `No backend answers: ${health[0]?.reason}`
    },
  }
}

function createKeys({ seal, manager }: KeyOptions, parts: Pick<Parts, 'db' | 'random' | 'stamp'>): Keys {
  return { seal, manager: manager ?? createLocalKeys({ ...parts, seal }) }
}

async function ensureDefaultType({ db, random, settings, stamp }: Parts): Promise<void> {
  if ((await volumeTypes.findByName(db, settings.defaultVolumeType)) !== undefined) return
  await volumeTypes.insert(db, {
    id: random.uuid(),
    name: settings.defaultVolumeType,
    description: 'Default Volume Type',
    is_public: true,
    extra_specs: '{}',
    created_at: stamp(),
    updated_at: null,
  })
}

/** The type of groups that are made as consistency groups. Of processes that start together one makes it. */
async function ensureConsistencyGroupType({ db, random, stamp }: Parts): Promise<void> {
  const name = groupTypes.CONSISTENCY_GROUP_TYPE
  if ((await groupTypes.findByName(db, name)) !== undefined) return
  await groupTypes.insert(db, {
    id: random.uuid(),
    name,
    description: 'Default group type for migrating cgsnapshot',
    is_public: true,
    group_specs: JSON.stringify({ consistent_group_snapshot_enabled: '<is> True' }),
    created_at: stamp(),
    updated_at: null,
  })
}
