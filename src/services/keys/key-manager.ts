import type { Db } from '../../db/database.ts'
import { ServiceError } from '../../errors.ts'
import type { RequestContext } from '../context.ts'

/**
 * Keeps the keys of encrypted volumes. A key belongs to a project and is kept in the name of whoever asks for the volume, so that the
 * compute service, which shows the same token, can read it.
 *
 * A key is made before the row that names it: `keep` is called in the transaction of that row, and `discard` when it came to
 * nothing. A process that ends in between leaves at worst a key that nobody uses.
 */
export interface KeyManager {
  /** Keys are not rows of the database, which would go with what they open: `remove` has to be asked. */
  readonly isElsewhere: boolean
  /** Rejects with InvalidInput when the key cannot be kept, in words that tell nothing of it. */
  store(owner: KeyOwner, key: Key): Promise<StoredKey>
  /** Rejects with InvalidInput for a key that there is not, or that the project may not read. */
  read(owner: KeyOwner, id: string): Promise<Key>
  /** With the token of whoever deletes what the key opens. One that there is not is removed. */
  remove(token: string, id: string): Promise<void>
}

export type KeyOwner = Pick<RequestContext, 'projectId' | 'userId' | 'token'>

export interface Key {
  /** The name of the cipher: `aes`. */
  algorithm: string
  /** As long as the type says in bits. */
  secret: Buffer
}

export interface StoredKey {
  id: string
  keep(trx: Db): Promise<void>
  discard(): Promise<void>
}

/** What opens the volume: Nova and os-brick make it of the key in the same way. */
export function passphraseOf({ secret }: Key): string {
  return secret.toString('hex')
}

/** Upstream says no more, so that nothing leaks. */
export function keyManagerError(cause?: unknown): ServiceError {
  return new ServiceError('InvalidInput', { reason: 'Key manager error' }, { cause })
}
