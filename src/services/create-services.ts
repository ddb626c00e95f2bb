import type { Db } from '../db/database.ts'
import * as quotas from '../db/quotas.ts'
import * as volumeTypes from '../db/volume-types.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import type { Random } from '../runtime/random.ts'
import { createAttachmentService } from './attachments.ts'
import { type Backend, createBackends } from './backends.ts'
import { createCounts, type ServiceCounts } from './counts.ts'
import { createInspection, type Inspection } from './explain.ts'
import { createMessageService, createMessageSweep, failureRecorder } from './messages.ts'
import type { Limits } from './model.ts'
import type { Parts } from './parts.ts'
import { createPools } from './pools.ts'
import type { Services } from './services.ts'
import type { ServiceSettings } from './settings.ts'
import { createSnapshotService } from './snapshots.ts'
import { createStamp } from './stamp.ts'
import { createTypeService } from './types.ts'
import { createVolumeService } from './volumes.ts'
import { createWorkEngine } from './work/engine.ts'
import { createWorkKinds } from './work/kinds.ts'

/**
 * Who claims work. One name, whatever the host is called today: on SQLite there is one API process at a time, and what an
 * earlier one left is its own.
 */
const WORK_OWNER = 'api'

export interface ServicesOptions {
  /** Stays open until `stop` has resolved; the caller closes it. */
  db: Db
  backends: readonly Backend[]
  clock: Clock
  random: Random
  log: Log
  settings: ServiceSettings
}

export interface RunningServices extends Services, Inspection {
  /** Starts the drivers, takes up the work of an earlier run. Requests made before this are kept, but not worked on. */
  start(): Promise<void>
  /** Waits for the work that runs, as long as `settings.stopGraceMs`; the rest resumes at the next start. */
  stop(): Promise<void>
  /** Resolves when no work runs or waits. */
  idle(): Promise<void>
  counts(): Promise<ServiceCounts>
}

export function createServices({ db, clock, random, log, settings, ...options }: ServicesOptions): RunningServices {
  const backends = createBackends(options.backends)
  const stamp = createStamp(clock)
  const pools = createPools(backends, settings, clock, log)
  const work = createWorkEngine({
    db,
    clock,
    random,
    log,
    stamp,
    owner: WORK_OWNER,
    settings: settings.work,
    kinds: createWorkKinds({ db, backends, pools, stamp }),
    recordFailure: failureRecorder({ clock, random, stamp, settings }),
  })
  const messageSweep = createMessageSweep({ db, clock, log })
  const parts: Parts = { db, backends, pools, random, stamp, settings, work }

  return {
    volumes: createVolumeService(parts),
    snapshots: createSnapshotService(parts),
    attachments: createAttachmentService(parts),
    types: createTypeService(parts),
    messages: createMessageService(parts),
    limits: async (context) => {
      context.authorize('limits_extension:used_limits', { projectId: context.projectId })
      return toLimits(await quotas.usage(db, context.projectId), settings)
    },
    start: async () => {
      for (const { driver } of backends.all) await driver.start()
      await ensureDefaultType(parts)
      await pools.refresh().catch(() => {}) // logged; a backend may come later
      await work.start()
      messageSweep.start()
    },
    stop: async () => {
      await messageSweep.stop()
      await work.stop(settings.stopGraceMs)
      for (const { driver } of backends.all) await driver.stop()
    },
    idle: () => work.idle(),
    ...createInspection(db),
    counts: createCounts(db, clock, work),
  }
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

/** Backups are not counted until there are any. */
function toLimits(usage: quotas.Usage, { quota }: ServiceSettings): Limits {
  return {
    maxTotalVolumes: quota.volumes,
    maxTotalSnapshots: quota.snapshots,
    maxTotalVolumeGigabytes: quota.gigabytes,
    maxTotalBackups: quota.backups,
    maxTotalBackupGigabytes: quota.backupGigabytes,
    totalVolumesUsed: usage.volumes,
    totalSnapshotsUsed: usage.snapshots,
    totalGigabytesUsed: usage.gigabytes,
    totalBackupsUsed: 0,
    totalBackupGigabytesUsed: 0,
  }
}
