import { randomUUID } from 'node:crypto'
import type { VolumeData } from '../../src/drivers/driver.ts'
import { createMemoryDriver, type MemoryBackend } from '../../src/drivers/memory.ts'
import type { DriverFilter } from '../../src/drivers/wrappers.ts'
import { ServiceError } from '../../src/errors.ts'
import { openPlain } from '../../src/luks/plain-data.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import type { RequestContext } from '../../src/services/context.ts'
import { type Key, type KeyManager, keyManagerError } from '../../src/services/keys/key-manager.ts'
import type { Volume, VolumeCreate } from '../../src/services/model.ts'
import { admin, type Harness, member, newVolume } from './harness.ts'

/** Encrypted types and volumes, and who keeps their keys. */

export const IN_CLEAR = '__DEFAULT__'
const LUKS = { provider: 'luks', controlLocation: 'front-end', cipher: 'aes-xts-plain64', keySize: 256 } as const

export async function encryptedType(
  { services }: Harness,
  encryption: object = {},
  name = 'LUKS',
  extraSpecs: Record<string, string> = {},
): Promise<string> {
  const { id } = await services.types.create(admin, { name, description: null, isPublic: true, extraSpecs })
  await services.typeEncryption.create(admin, id, { ...LUKS, ...encryption })
  return name
}

export async function made(
  harness: Harness,
  request: Partial<VolumeCreate>,
  context: RequestContext = member,
): Promise<Volume> {
  const { id } = await harness.services.volumes.create(context, newVolume(request))
  await harness.services.idle()
  return harness.services.volumes.get(context, id)
}

/** A key manager as Barbican is one: each key is its project's own, and whoever deletes it shows a token of that project. */
export function keysElsewhere() {
  const kept = new Map<string, { key: Key; projectId: string; token: string }>()
  const manager: KeyManager = {
    isElsewhere: true,
    store: async ({ projectId, token }, key) => {
      const id = randomUUID()
      kept.set(id, { key, projectId, token })
      return { id, keep: async () => {}, discard: () => manager.remove(token, id) }
    },
    read: async ({ projectId }, id) => {
      const found = kept.get(id)
      if (found?.projectId !== projectId) throw keyManagerError()
      return found.key
    },
    remove: async (token, id) => {
      if (kept.get(id)?.token !== token) throw new ServiceError('ServiceUnavailable', { reason: 'It is not yours.' })
      kept.delete(id)
    },
  }
  return { manager, kept }
}

const SMALLER_BY = 128
/** What volumes have for each GiB, where they are small. */
export const GIB_BYTES = 1024 ** 3 / SMALLER_BY

function small(data: VolumeData): VolumeData {
  return Object.create(data, { sizeBytes: { value: data.sizeBytes / SMALLER_BY } })
}

/** Volumes with 8 MiB for each GiB, so that all of one can be written, and read, in a moment. */
export const smallVolumes: DriverFilter = {
  around: async ({ method }, next) => {
    const answer = await next()
    return method === 'openVolume' || method === 'openSnapshot' ? small(answer as VolumeData) : answer
  },
  toString: () => 'small volumes',
}

/** As it lies in the backend. */
export async function openSmall(backend: MemoryBackend, volume: Volume): Promise<VolumeData> {
  const ref = { id: volume.nameId ?? volume.id, sizeGib: volume.sizeGib }
  return small(await createMemoryDriver(backend, systemRandom).openVolume(ref))
}

/** What opens a volume as Nova would. */
export async function passphraseOf({ services }: Harness, { encryptionKeyId }: Volume): Promise<string> {
  return (await services.keys.payload(member, encryptionKeyId!)).secret.toString('hex')
}

/** As its guest sees it. */
export async function openGuest(harness: Harness, volume: Volume, passphrase?: string): Promise<VolumeData> {
  const data = await openSmall(harness.backend, volume)
  return volume.encryptionKeyId === null ? data : openPlain(data, passphrase ?? (await passphraseOf(harness, volume)))
}

export async function readAll(data: VolumeData): Promise<Buffer> {
  const bytes = Buffer.alloc(data.sizeBytes)
  await data.read(0, bytes)
  return bytes
}
