import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { type Db, openDatabase } from '../../src/db/database.ts'
import type { VolumeDriver } from '../../src/drivers/driver.ts'
import { createMemoryBackend, createMemoryDriver, type MemoryBackend } from '../../src/drivers/memory.ts'
import { type CallMatcher, type DriverFilter, wrapDriver } from '../../src/drivers/wrappers.ts'
import { ServiceError, type ServiceErrorCode } from '../../src/errors.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { createLog } from '../../src/runtime/log.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import type { BackupTarget } from '../../src/services/backup/target.ts'
import type { RequestContext } from '../../src/services/context.ts'
import { createServices, type RunningServices } from '../../src/services/create-services.ts'
import type { ListQuery, VolumeCreate } from '../../src/services/model.ts'
import { DEFAULT_SETTINGS, type ServiceSettings } from '../../src/services/settings.ts'
import { openBackupTarget } from '../tools/backup-target.ts'

/** Services on a real database file and the memory driver, as the program builds them, with short waits. */
export interface Harness {
  services: RunningServices
  db: Db
  backend: MemoryBackend
  backups: BackupTarget
  /** A second process on the same file and backend, while the first one is left where it hangs. */
  reopen(options?: HarnessOptions): Promise<Harness>
}

export interface HarnessOptions {
  filters?: readonly DriverFilter[]
  settings?: Partial<ServiceSettings>
  /** Another than one of its own. */
  backupTarget?: BackupTarget
  /** False leaves `start` to the test. */
  start?: boolean
}

export const TEST_SETTINGS: ServiceSettings = {
  ...DEFAULT_SETTINGS,
  hostName: 'test-host',
  quota: { ...DEFAULT_SETTINGS.quota, volumes: 1000, snapshots: 1000, gigabytes: 100_000 },
  work: {
    concurrency: 8,
    attemptsMax: 3,
    outageAttemptsMax: 3,
    attemptTimeoutMs: 20_000,
    backoffMs: 1,
    backoffMaxMs: 4,
  },
  stopGraceMs: 5_000,
}

export async function createHarness(options: HarnessOptions = {}): Promise<Harness> {
  const directory = mkdtempSync(join(tmpdir(), 'collie-services-'))
  const close: (() => Promise<void>)[] = []
  onTestFinished(async () => {
    for (const step of close.reverse()) await step()
    rmSync(directory, { recursive: true, force: true })
  })
  const backend = createMemoryBackend(100_000)
  const backups = options.backupTarget ?? (await openBackupTarget())
  const open = async ({ filters = [], settings = {}, start = true }: HarnessOptions): Promise<Harness> => {
    const db = await openDatabase({ file: join(directory, 'collie.db') })
    const driver: VolumeDriver = wrapDriver(createMemoryDriver(backend, systemRandom), ...filters)
    const services = createServices({
      db,
      backupTarget: backups,
      backends: [{ name: 'memory', availabilityZone: 'nova', driver }],
      clock: systemClock,
      random: systemRandom,
      log: createLog('silent'),
      settings: { ...TEST_SETTINGS, ...settings },
    })
    if (start) await services.start()
    close.push(async () => {
      await services.stop()
      await db.destroy()
    })
    return { services, db, backend, backups, reopen: (again = {}) => open({ ...options, filters: [], ...again }) }
  }
  return open(options)
}

export function contextOf(overrides: Partial<RequestContext> = {}): RequestContext {
  return {
    requestId: 'req-1',
    globalRequestId: null,
    userId: 'user',
    projectId: 'project',
    roles: ['member', 'reader'],
    isAdmin: false,
    isService: false,
    authorize: () => {},
    ...overrides,
  }
}

export const member = contextOf()
export const stranger = contextOf({ projectId: 'other-project' })
export const admin = contextOf({ projectId: 'admin-project', isAdmin: true, roles: ['admin'] })

export function newVolume(overrides: Partial<VolumeCreate> = {}): VolumeCreate {
  return {
    sizeGib: 1,
    name: null,
    description: null,
    volumeType: null,
    snapshotId: null,
    sourceVolid: null,
    availabilityZone: null,
    metadata: {},
    ...overrides,
  }
}

export function newSnapshot(volumeId: string, force = false) {
  return { volumeId, name: null, description: null, force, metadata: {} }
}

export function newAttachment(volumeId: string, overrides: { instanceId?: string; connector?: object } = {}) {
  const { instanceId = null, connector = null } = overrides
  return { volumeId, instanceId, connector: connector as Record<string, unknown> | null, mode: null }
}

export const everything: ListQuery = {
  limit: 1000,
  offset: 0,
  marker: null,
  sort: [{ key: 'created_at', direction: 'desc' }],
  filters: {},
  allProjects: false,
}

/** A volume that is available. */
export async function availableVolume(harness: Harness, overrides: Partial<VolumeCreate> = {}): Promise<string> {
  const { id } = await harness.services.volumes.create(member, newVolume(overrides))
  await harness.services.idle()
  return id
}

/** Usage counted again from the rows, to compare with what was kept. */
export async function recount(
  db: Db,
): Promise<Record<string, { volumes: number; snapshots: number; gigabytes: number }>> {
  const counts: Record<string, { volumes: number; snapshots: number; gigabytes: number }> = {}
  const of = (projectId: string) => {
    counts[projectId] ??= { volumes: 0, snapshots: 0, gigabytes: 0 }
    return counts[projectId]
  }
  for (const row of await db('volumes')) {
    of(row.project_id).volumes += 1
    of(row.project_id).gigabytes += row.pending_size_gib ?? row.size_gib
  }
  for (const row of await db('snapshots')) {
    of(row.project_id).snapshots += 1
    of(row.project_id).gigabytes += row.size_gib
  }
  return counts
}

/** What was kept, without projects that use nothing. */
export async function keptUsage(db: Db): ReturnType<typeof recount> {
  const rows = await db('usages')
  return Object.fromEntries(
    rows
      .filter((row) => row.volumes + row.snapshots + row.gigabytes > 0)
      .map(({ project_id, volumes, snapshots, gigabytes }) => [project_id, { volumes, snapshots, gigabytes }]),
  )
}

/** The code of the ServiceError that the promise rejects with, or `done`. */
export async function outcome(promise: Promise<unknown>): Promise<ServiceErrorCode | 'done'> {
  try {
    await promise
    return 'done'
  } catch (error) {
    if (error instanceof ServiceError) return error.code
    throw error
  }
}

/** Holds the calls that match until it is opened; `reached` tells of the first. */
export function createGate(matcher: CallMatcher): { filter: DriverFilter; open: () => void; reached: Promise<void> } {
  let open = () => {}
  let arrive = () => {}
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  const reached = new Promise<void>((resolve) => {
    arrive = resolve
  })
  const filter: DriverFilter = {
    around: async (call, next) => {
      if (matcher.matches(call)) {
        arrive()
        await opened
      }
      return next()
    },
    toString: () => `gate(${matcher})`,
  }
  return { filter, open, reached }
}
