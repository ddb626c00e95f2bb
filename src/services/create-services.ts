import * as attachments from '../db/attachments.ts'
import * as backups from '../db/backups.ts'
import type { Db } from '../db/database.ts'
import * as quotas from '../db/quotas.ts'
import * as snapshots from '../db/snapshots.ts'
import * as volumeTypes from '../db/volume-types.ts'
import * as volumes from '../db/volumes.ts'
import * as workRows from '../db/work.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Log } from '../runtime/log.ts'
import type { Random } from '../runtime/random.ts'
import { createAttachmentService } from './attachments.ts'
import { type Backend, createBackends } from './backends.ts'
import type { BackupTarget } from './backup/target.ts'
import { createBackupService } from './backups.ts'
import { createCounts, type ServiceCounts } from './counts.ts'
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
  /** Where backups are kept. */
  backupTarget: BackupTarget
  clock: Clock
  random: Random
  log: Log
  settings: ServiceSettings
}

export interface RunningServices extends Services {
  /** Starts the drivers, takes up the work of an earlier run. Requests made before this are kept, but not worked on. */
  start(): Promise<void>
  /** Waits for the work that runs, as long as `settings.stopGraceMs`; the rest resumes at the next start. */
  stop(): Promise<void>
  /** Resolves when no work runs or waits. */
  idle(): Promise<void>
  /** Why a volume, snapshot or attachment is in the state it is in: for operators. Null when there is no such thing. */
  explain(resourceId: string): Promise<Explanation | null>
  counts(): Promise<ServiceCounts>
}

export interface Explanation {
  status: string
  /** Why the last work on it failed. */
  reason: string | null
  work: {
    kind: string
    step: string
    attempt: number
    lastError: string | null
    /** Milliseconds since 1970. */
    dueAtMs: number
    deadlineAtMs: number
    owner: string
  } | null
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
    kinds: createWorkKinds({ db, backends, backupTarget, pools, stamp }),
  })
  const parts: Parts = { db, backends, backupTarget, pools, random, stamp, settings, work }

  return {
    volumes: createVolumeService(parts),
    snapshots: createSnapshotService(parts),
    attachments: createAttachmentService(parts),
    types: createTypeService(parts),
    backups: createBackupService(parts),
    limits: async (context) => {
      context.authorize('limits_extension:used_limits', { projectId: context.projectId })
      return toLimits(await quotas.usage(db, context.projectId), settings)
    },
    start: async () => {
      for (const { driver } of backends.all) await driver.start()
      await ensureDefaultType(parts)
      await pools.refresh().catch(() => {}) // logged; a backend may come later
      await work.start()
    },
    stop: async () => {
      await work.stop(settings.stopGraceMs)
      for (const { driver } of backends.all) await driver.stop()
    },
    idle: () => work.idle(),
    explain: (resourceId) => explain(db, resourceId),
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

async function explain(db: Db, resourceId: string): Promise<Explanation | null> {
  const row =
    (await volumes.find(db, resourceId)) ??
    (await snapshots.find(db, resourceId)) ??
    (await backups.find(db, resourceId)) ??
    (await attachments.find(db, resourceId))
  if (row === undefined) return null
  const unit = await workRows.findByResource(db, resourceId)
  return {
    status: row.status,
    reason: row.status_reason,
    work:
      unit === undefined
        ? null
        : {
            kind: unit.kind,
            step: unit.next_step,
            attempt: unit.attempt,
            lastError: unit.last_error,
            dueAtMs: unit.due_at_ms,
            deadlineAtMs: unit.deadline_at_ms,
            owner: unit.owner,
          },
  }
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
