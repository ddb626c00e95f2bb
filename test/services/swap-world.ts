import { createMemoryBackend, createMemoryDriver, type MemoryBackend } from '../../src/drivers/memory.ts'
import { createKeystoneAccount } from '../../src/keystone/account.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { systemHttp } from '../../src/runtime/http-client.ts'
import { createLog } from '../../src/runtime/log.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { computeRefusal, createNova } from '../../src/services/compute/nova.ts'
import { type FakeNova, NOVA_ACCOUNT, startFakeNova } from '../tools/fake-nova.ts'
import type { BlockStorage, SwapStage } from '../tools/nova-swap.ts'
import { checkAtRest, checkBackends } from './at-rest.ts'
import { admin, type Harness, type HarnessOptions, member, newAttachment, newVolume } from './harness.ts'

/** Two backends, `memory` and `other`, and a Nova over HTTP with one server that has a volume of the first. */
export interface SwapWorld {
  nova: FakeNova
  other: MemoryBackend
  /** For a harness that has both, and that Nova. */
  options(more?: HarnessOptions): HarnessOptions
  /** Nova has its volumes from there; `enter` is called before each stage of a swap. */
  serve(harness: Harness, enter?: (stage: SwapStage) => Promise<void>): void
  /** Volumes of both backends by the names that these have for them. */
  stored(harness: Harness): { memory: string[]; other: string[] }
  /** Once the work is done, and Nova too. */
  settled(harness: Harness): Promise<void>
  expectAtRest(harness: Harness): Promise<void>
}

export const SERVER = '22222222-2222-4222-8222-222222222222'
export const HOME = 'test-host@memory#memory'
export const OTHER = 'test-host@other#memory'
/** What the server writes at the start of its volume while that is copied. */
export const BLOCK = Buffer.alloc(4096, 7)

export const driverOf = (backend: MemoryBackend) => createMemoryDriver(backend, systemRandom)

export async function createSwapWorld(): Promise<SwapWorld> {
  const nova = await startFakeNova()
  const other = createMemoryBackend(100)
  const account = createKeystoneAccount({
    http: systemHttp,
    clock: systemClock,
    authUrl: nova.authUrl,
    ...NOVA_ACCOUNT,
    interface: 'public',
    regionName: null,
    timeoutMs: 20_000,
    refusal: computeRefusal,
  })
  const compute = createNova({ http: systemHttp, account, url: null, timeoutMs: 20_000, log: createLog('silent') })
  return {
    nova,
    other,
    options: (more = {}) => ({
      compute,
      others: [{ name: 'other', availabilityZone: 'nova', driver: driverOf(other) }],
      ...more,
    }),
    serve: (harness, enter = async () => {}) => {
      nova.world = {
        storage: storageOf(harness),
        enter,
        copy: async (_before, _after, { oldId, newId }) => {
          const rows = await harness.db('volumes').whereIn('id', [oldId, newId])
          const contentOf = (id: string) => {
            const row = rows.find((one) => one.id === id)!
            return (row.host === OTHER ? other : harness.backend).volumes.get(row.name_id ?? row.id)!
          }
          contentOf(oldId).blocks.set(0, BLOCK)
          for (const [block, bytes] of contentOf(oldId).blocks) contentOf(newId).blocks.set(block, bytes)
        },
      }
    },
    stored: ({ backend }) => ({ memory: [...backend.volumes.keys()].sort(), other: [...other.volumes.keys()].sort() }),
    settled: async (harness) => {
      await harness.settled()
      await nova.swapped()
      await harness.settled()
    },
    expectAtRest: async (harness) => {
      await checkAtRest(harness)
      await checkBackends(harness.db, { memory: harness.backend, other })
    },
  }
}

/** What Nova asks for. */
export function storageOf({ services }: Harness): BlockStorage {
  const { attachments, volumes } = services
  return {
    beginDetaching: (id) => volumes.beginDetaching(admin, id),
    rollDetaching: (id) => volumes.rollDetaching(admin, id),
    createAttachment: async (volumeId, instanceId) =>
      (await attachments.create(admin, newAttachment(volumeId, { instanceId }))).id,
    updateAttachment: async (id) => (await attachments.update(admin, id, { host: 'compute-1' })).connectionInfo!,
    completeAttachment: (id) => attachments.complete(admin, id),
    deleteAttachment: async (id) => {
      await attachments.delete(admin, id)
    },
    completeMigration: (oldId, newVolumeId, failed) => volumes.completeMigration(admin, oldId, { newVolumeId, failed }),
  }
}

/** A volume on the backend `memory` that the server has, or a host alone. */
export async function attachedVolume(
  { services }: Harness,
  nova: FakeNova,
  instanceId: string | null = SERVER,
): Promise<string> {
  await services.types.create(admin, {
    name: 'on-memory',
    description: null,
    isPublic: true,
    extraSpecs: { volume_backend_name: 'memory' },
  })
  const { id } = await services.volumes.create(member, newVolume({ volumeType: 'on-memory', sizeGib: 2 }))
  await services.idle()
  await services.volumes.retype(member, id, { newType: '__DEFAULT__', migrationPolicy: 'never' })
  await services.idle()
  const connector = { host: 'compute-1' }
  const overrides = instanceId === null ? { connector } : { connector, instanceId }
  const made = await services.attachments.create(member, newAttachment(id, overrides))
  await services.attachments.complete(member, made.id)
  nova.servers.set(SERVER, new Map([[id, { attachmentId: made.id, connection: made.connectionInfo! }]]))
  return id
}

export const migrate = ({ services }: Harness, id: string, host = OTHER) =>
  services.volumes.migrate(admin, id, { host, cluster: null })
