import { z } from 'zod'
import type { Seal } from '../seal.ts'
import type { KeyOwner } from './key-manager.ts'
import type { Keys } from './volume-keys.ts'

/**
 * The key of a volume that waits for a new owner, where a key manager elsewhere keeps keys as somebody's own: whoever offers the volume can
 * read the key and not give it away, and whoever takes it cannot read it. So it waits in the database, sealed, and with it the token that
 * the old one is deleted with.
 */
const OfferedKey = z.object({ id: z.string(), algorithm: z.string(), secret: z.base64(), token: z.string() })

export type OfferedKey = z.output<typeof OfferedKey>

/** Sealed; null where the key goes along by itself, or there is none. Rejects with InvalidInput for one that the owner may not read. */
export async function offerKey(keys: Keys | null, owner: KeyOwner, id: string | null): Promise<string | null> {
  if (id === null || !keys?.manager.isElsewhere) return null
  const { algorithm, secret } = await keys.manager.read(owner, id)
  const offered: OfferedKey = { id, algorithm, secret: secret.toString('base64'), token: owner.token }
  return keys.seal.seal(JSON.stringify(offered))
}

/** Throws ServiceUnavailable for what was sealed with another key than that of this data directory. */
export function openOffer(seal: Seal, sealed: string): OfferedKey {
  return OfferedKey.parse(JSON.parse(seal.open(sealed)))
}
