import type { Db } from '../../db/database.ts'
import * as typeEncryptions from '../../db/type-encryptions.ts'
import { ServiceError } from '../../errors.ts'
import { type Cipher, parseCipher } from '../../luks/cipher.ts'
import type { Log } from '../../runtime/log.ts'
import type { Random } from '../../runtime/random.ts'
import type { Seal } from '../seal.ts'
import {
  type Key,
  type KeyManager,
  type KeyOwner,
  keyManagerError,
  passphraseOf,
  type StoredKey,
} from './key-manager.ts'

/** What the service needs to give volumes keys. */
export interface Keys {
  manager: KeyManager
  /** Of what waits in the database for the work that writes it into a volume. */
  seal: Seal
}

/** A key that a new volume is to have. */
export interface VolumeKey extends StoredKey {
  /** The type that it was made for. */
  typeId: string
  /** The key that it is a copy of: what it opens is in the volume already, or comes with its content. */
  copyOf: string | null
  /** What is to be written before the volume can be used, in the parameters of the work. */
  header: { sealedHeader: string } | Record<string, never>
}

/** What a LUKS header is made of; see `sealedHeader`. */
export interface HeaderOrder {
  cipher: Cipher
  keyBytes: number
  passphrase: string
}

/** Providers that are LUKS of version 1, by the names that upstream has had for them. */
const LUKS_PROVIDERS = [
  'luks',
  'nova.volume.encryptors.luks.LuksEncryptor',
  'os_brick.encryptors.luks.LuksEncryptor',
  'LuksEncryptor',
]

/**
 * A key for a volume of the type, which is encrypted: a copy of `copyOf`, so that every volume and backup has a key of its own to be
 * deleted with, or a new one. Throws InvalidVolumeType for a type that nothing here could encrypt.
 */
export async function newVolumeKey(
  { keys, random }: { keys: Keys | null; random: Random },
  owner: KeyOwner,
  encryption: typeEncryptions.TypeEncryptionRow,
  copyOf: string | null,
): Promise<VolumeKey> {
  const spec = specOf(encryption)
  if (keys === null) throw keyManagerError()
  const { manager, seal } = keys
  const typeId = encryption.volume_type_id
  const copy = await copyKey(keys, owner, copyOf)
  if (copy !== null) return { ...copy, typeId, header: {} }
  const key = { algorithm: spec.cipher.name, secret: random.bytes(spec.keyBytes) }
  return { ...(await manager.store(owner, key)), typeId, copyOf, header: sealedHeader(seal, spec, key) }
}

/** What a new header is made of that the key opens which a volume has; nothing for a volume that has none. */
export async function headerAgain(
  { db, keys }: { db: Db; keys: Keys | null },
  owner: KeyOwner,
  { volume_type_id, encryption_key_id: keyId }: { volume_type_id: string; encryption_key_id: string | null },
): Promise<VolumeKey['header']> {
  const encryption = await typeEncryptions.ofType(db, volume_type_id)
  if (keyId === null || encryption === undefined) return {}
  if (keys === null) throw keyManagerError()
  return sealedHeader(keys.seal, specOf(encryption), await keys.manager.read(owner, keyId))
}

function sealedHeader(seal: Seal, spec: Omit<HeaderOrder, 'passphrase'>, key: Key): { sealedHeader: string } {
  const order: HeaderOrder = { ...spec, passphrase: passphraseOf(key) }
  return { sealedHeader: seal.seal(JSON.stringify(order)) }
}

/** A key that is made before the transaction of the row that is to name it. */
export interface KeyCopy extends StoredKey {
  copyOf: string
}

/** The same key under an id of its own; null for that of what is not encrypted. */
export async function copyKey(keys: Keys | null, owner: KeyOwner, id: string | null): Promise<KeyCopy | null> {
  if (id === null) return null
  if (keys === null) throw keyManagerError()
  return { ...(await keys.manager.store(owner, await keys.manager.read(owner, id))), copyOf: id }
}

/** Keeps the copy in the transaction, and answers its id. Throws ResourceConflict when what it is to open has another key by now. */
export async function takeCopy(trx: Db, copy: KeyCopy | null, copyOf: string | null): Promise<string | null> {
  if ((copy?.copyOf ?? null) !== copyOf) throw changedMeanwhile()
  await copy?.keep(trx)
  return copy?.id ?? null
}

export function changedMeanwhile(): ServiceError {
  return new ServiceError('ResourceConflict', { reason: 'It has got another encryption key meanwhile. Ask again.' })
}

/** Does `work` with what may be a key that it keeps; when it fails there is no key either. */
export function withKey<K extends StoredKey | null, T>(key: K, work: (key: K) => Promise<T>): Promise<T> {
  return withKeys(key === null ? [] : [key], () => work(key))
}

export async function withKeys<T>(keys: Iterable<StoredKey>, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    // What went wrong is told; a key that nobody uses harms nobody.
    for (const key of keys) await key.discard().catch(() => {})
    throw error
  }
}

function specOf({
  provider,
  control_location,
  cipher,
  key_size,
}: typeEncryptions.TypeEncryptionRow): Omit<HeaderOrder, 'passphrase'> {
  if (cipher === null || key_size === null) throw unusable('Invalid encryption spec')
  if (!LUKS_PROVIDERS.includes(provider)) throw unusable(`Provider ${provider} not supported.`)
  if (control_location !== 'front-end') throw unusable('only the front-end encrypts here, and not the back-end')
  const parsed = parseCipher(cipher, key_size)
  if (parsed === null) throw unusable(`there is no cipher ${cipher} with keys of ${key_size} bits`)
  return { cipher: parsed, keyBytes: key_size / 8 }
}

const unusable = (reason: string) => new ServiceError('InvalidVolumeType', { reason })

/**
 * What work has to know that deletes a volume or a backup: whose token its key is deleted with, when that is kept elsewhere. It goes with
 * the unit, sealed.
 */
export function removalParams(keys: Keys | null, { token }: KeyOwner): { keyToken?: string } {
  return keys?.manager.isElsewhere ? { keyToken: keys.seal.seal(token) } : {}
}

/**
 * Deletes a key that is kept elsewhere, when what it opened is gone. One that cannot be deleted now is left, and logged: it opens
 * nothing any more.
 */
export async function removeKey(
  { keys, log }: { keys: Keys | null; log: Log },
  { params }: { params: Readonly<Record<string, unknown>> },
  id: string | null,
): Promise<void> {
  if (id === null || keys === null || typeof params.keyToken !== 'string') return
  const sealed = params.keyToken
  await removeOrLeave({ keys, log }, id, () => keys.seal.open(sealed))
}

/** The same for whoever has the token at hand. */
export async function removeOrLeave(
  { keys, log }: { keys: Keys; log: Log },
  id: string,
  token: () => string,
): Promise<void> {
  try {
    await keys.manager.remove(token(), id)
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error
    log.warn({ err: error, keyId: id }, 'an encryption key that nothing needs any more was left in the key manager')
  }
}

/** Whether a volume of one type cannot become one of the other as it is. */
export async function encryptionDiffers(db: Db, typeId: string, otherId: string): Promise<boolean> {
  if (typeId === otherId) return false
  const [one, other] = [await typeEncryptions.ofType(db, typeId), await typeEncryptions.ofType(db, otherId)]
  const told = (row: typeEncryptions.TypeEncryptionRow | undefined) =>
    row && [row.provider, row.control_location, row.cipher, row.key_size].join()
  return told(one) !== told(other)
}
