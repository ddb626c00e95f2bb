import assert from 'node:assert/strict'
import { expect, onTestFinished, vi } from 'vitest'
import { type DatabaseOptions, type Db, openDatabase } from '../../src/db/database.ts'
import type { VolumeDriver } from '../../src/drivers/driver.ts'
import { createMemoryBackend, createMemoryDriver, type MemoryBackend } from '../../src/drivers/memory.ts'
import { type CallMatcher, type DriverFilter, wrapDriver } from '../../src/drivers/wrappers.ts'
import { ServiceError, type ServiceErrorCode } from '../../src/errors.ts'
import { createLog } from '../../src/runtime/log.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import type { Backend } from '../../src/services/backends.ts'
import type { BackupTarget } from '../../src/services/backup/target.ts'
import type { ComputeService } from '../../src/services/compute/compute-service.ts'
import type { RequestContext } from '../../src/services/context.ts'
import { createServices, type KeyOptions, type RunningServices } from '../../src/services/create-services.ts'
import type { ImageOptions } from '../../src/services/images/images.ts'
import type { BackupCreate, ListQuery, VolumeCreate } from '../../src/services/model.ts'
import { createSeal, SEAL_KEY_BYTES } from '../../src/services/seal.ts'
import { DEFAULT_SETTINGS, type ServiceSettings } from '../../src/services/settings.ts'
import { type Dialect, newDatabase } from '../db/harness.ts'
import { openBackupTarget } from '../tools/backup-target.ts'
import { PausableClock } from '../tools/pausable-clock.ts'

/** Services on a real database and the memory driver, as the program builds them, with short waits. */
export interface Harness {
  services: RunningServices
  db: Db
  backend: MemoryBackend
  backups: BackupTarget
  /** Where the database is. */
  location: DatabaseOptions
  /** A second process on the same database and backend, while the first one is left where it is. */
  reopen(options?: HarnessOptions): Promise<Harness>
  /** Lets this process stand still, as a signal or a swapping host would, and go on. */
  clock: PausableClock
  /** Lets it stand still until the others give it up, as if it had been killed; what it awaits never comes. */
  die(): Promise<void>
  /** Ends all processes on this database, which otherwise end with the test. */
  end(): Promise<void>
  /** Resolves when there is no work left, whichever process has it. */
  settled(): Promise<void>
}

export interface HarnessOptions {
  dialect?: Dialect
  /** A database that is there, instead of a new one. */
  location?: DatabaseOptions
  filters?: readonly DriverFilter[]
  settings?: Partial<ServiceSettings>
  /** What stands between the services and the database. */
  wrapDatabase?: (db: Db) => Db
  /** Of the backend `memory`; 1 when absent. */
  copiesMax?: number
  /** Beside the backend `memory`. */
  others?: readonly Backend[]
  /** Another than one of its own. */
  backupTarget?: BackupTarget
  images?: ImageOptions
  /** Another key manager than the database; null: none. */
  keys?: KeyOptions | null
  /** None: nobody tells servers. */
  compute?: ComputeService
  /** False leaves `start` to the test. */
  start?: boolean
}

/** `COLLIE_TEST_DATABASE=PostgreSQL` runs on it what else runs on SQLite alone. */
const DEFAULT_DIALECT: Dialect = process.env.COLLIE_TEST_DATABASE === 'PostgreSQL' ? 'PostgreSQL' : 'SQLite'

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
    heartbeatMs: 20,
    deadAfterMs: 5000,
  },
  stopGraceMs: 5_000,
}

export async function createHarness(options: HarnessOptions = {}): Promise<Harness> {
  const location = options.location ?? (await newDatabase(options.dialect ?? DEFAULT_DIALECT))
  const close: (() => Promise<void>)[] = []
  const end = async () => {
    for (const step of close.splice(0).reverse()) await step()
  }
  onTestFinished(end)
  const backend = createMemoryBackend(100_000, options)
  const backups = options.backupTarget ?? (await openBackupTarget())
  const seal = createSeal(systemRandom.bytes(SEAL_KEY_BYTES), systemRandom) // all processes have the same
  const open = async ({
    filters = [],
    settings = {},
    others = [],
    start = true,
    wrapDatabase,
    images,
    compute,
    keys = { seal, manager: null },
  }: HarnessOptions): Promise<Harness> => {
    const db = await openDatabase(location)
    const clock = new PausableClock()
    const driver: VolumeDriver = wrapDriver(createMemoryDriver(backend, systemRandom), ...filters)
    const services = createServices({
      db: wrapDatabase?.(db) ?? db,
      backupTarget: backups,
      images: images ?? null,
      compute: compute ?? null,
      keys,
      backends: [{ name: 'memory', availabilityZone: 'nova', driver }, ...others],
      clock,
      random: systemRandom,
      log: createLog('silent'),
      settings: { ...TEST_SETTINGS, ...settings },
    })
    const before = new Set(await db('processes').pluck('id'))
    if (start) await services.start()
    close.push(async () => {
      clock.goOn()
      await services.stop()
      await db.destroy()
    })
    const die = async () => {
      clock.pause()
      await db('processes')
        .whereNotIn('id', [...before])
        .update({ seen_at_ms: 0 })
    }
    const settled = async () => {
      await services.idle()
      await vi.waitFor(async () => expect(await db('work')).toEqual([]), { timeout: 30_000, interval: 10 })
    }
    const reopen = (again: HarnessOptions = {}) =>
      open({ ...options, filters: [], wrapDatabase: undefined, ...again } as HarnessOptions)
    return { services, db, backend, backups, location, clock, reopen, die, end, settled }
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
    token: 'token',
    authorize: () => {},
    allows: () => true,
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

export function newBackup(volumeId: string, overrides: Partial<BackupCreate> = {}): BackupCreate {
  return {
    volumeId,
    snapshotId: null,
    name: null,
    description: null,
    container: null,
    availabilityZone: null,
    incremental: false,
    force: false,
    metadata: {},
    ...overrides,
  }
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

interface Usage {
  volumes: number
  snapshots: number
  gigabytes: number
}

/** Usage by project, counted again from the rows, to compare with what was kept. */
export async function recount(db: Db): Promise<Record<string, Usage>> {
  return recountBy(db, ({ project_id }) => project_id)
}

/** As `recount`, by `project/type`. */
export async function recountTypes(db: Db): Promise<Record<string, Usage>> {
  return recountBy(db, ({ project_id, volume_type_id }) => `${project_id}/${volume_type_id}`)
}

interface Counted {
  project_id: string
  volume_type_id: string
  /** The type that it is being changed to, under which it counts as well. */
  pending_volume_type_id: string | null
}

async function recountBy(
  db: Db,
  keyOf: (row: Pick<Counted, 'project_id' | 'volume_type_id'>) => string,
): Promise<Record<string, Usage>> {
  const counts: Record<string, Usage> = {}
  const add = (row: Counted, kind: 'volumes' | 'snapshots', sizeGib: number) => {
    const { project_id, volume_type_id, pending_volume_type_id } = row
    const types = pending_volume_type_id === null ? [volume_type_id] : [volume_type_id, pending_volume_type_id]
    for (const key of new Set(types.map((type) => keyOf({ project_id, volume_type_id: type })))) {
      counts[key] ??= { volumes: 0, snapshots: 0, gigabytes: 0 }
      counts[key][kind] += 1
      counts[key].gigabytes += sizeGib
    }
  }
  for (const row of await db('volumes').where({ consumes_quota: true }))
    add(row, 'volumes', row.pending_size_gib ?? row.size_gib)
  const snapshots = db('snapshots').join('volumes', 'volumes.id', 'snapshots.volume_id')
  const types = ['volumes.volume_type_id', 'volumes.pending_volume_type_id']
  for (const row of await snapshots.select('snapshots.*', ...types)) add(row, 'snapshots', row.size_gib)
  return counts
}

/** What was kept by project, without those that use nothing. What was kept by type must be what the rows have. */
export async function keptUsage(db: Db): Promise<Record<string, Usage>> {
  assert.deepEqual(await keptTypes(db), await recountTypes(db))
  return usedOf(await db('usages'), ({ project_id }) => project_id)
}

/** What was kept by `project/type`. */
export async function keptTypes(db: Db): Promise<Record<string, Usage>> {
  return usedOf(await db('type_usages'), ({ project_id, volume_type_id }) => `${project_id}/${volume_type_id}`)
}

/** PostgreSQL answers sums as text. */
function usedOf<Row extends Usage>(rows: readonly Row[], keyOf: (row: Row) => string): Record<string, Usage> {
  return Object.fromEntries(
    rows
      .map((row) => {
        const [volumes, snapshots, gigabytes] = [row.volumes, row.snapshots, row.gigabytes].map(Number)
        return [keyOf(row), { volumes: volumes!, snapshots: snapshots!, gigabytes: gigabytes! }] as const
      })
      .filter(([, { volumes, snapshots, gigabytes }]) => volumes + snapshots + gigabytes > 0),
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
