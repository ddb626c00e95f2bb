import type { Clock } from '../runtime/clock.ts'
import type { Db } from './database.ts'

/** Beyond so many revoked tokens that have not ended yet, all tokens end. */
export const REVOKED_MAX = 10_000

/** Key and revocations of the tokens of `auth: local`: see `TokenVault` in src/identity/tokens.ts, which this implements. */
export function createTokenVault(db: Db, clock: Pick<Clock, 'now'>) {
  return {
    read: async (newKey: string): Promise<{ key: string; revoked: string[] }> => {
      let [{ token_key: key }] = await db('installation').select('token_key')
      if (key === null) {
        await db('installation').whereNull('token_key').update({ token_key: newKey }) // of several processes, one wins
        ;[{ token_key: key }] = await db('installation').select('token_key')
      }
      return { key, revoked: await db('revoked_tokens').where('expires_at_ms', '>', clock.now()).pluck('id') }
    },
    /** When there are too many to remember each, `newKey` replaces the key: nothing that the old one signed counts any more. */
    revoke: (token: { id: string; expiresAtMs: number }, newKey: string): Promise<void> =>
      db.transaction(async (trx) => {
        await trx('revoked_tokens').where('expires_at_ms', '<=', clock.now()).delete()
        await trx('revoked_tokens').insert({ id: token.id, expires_at_ms: token.expiresAtMs }).onConflict('id').ignore()
        const kept = await trx('revoked_tokens').count({ count: '*' }).first()
        if (Number(kept?.count) <= REVOKED_MAX) return
        await trx('installation').update({ token_key: newKey })
        await trx('revoked_tokens').delete()
      }),
  }
}
