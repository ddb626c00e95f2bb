import { describe, expect, it } from 'vitest'
import { createTokenVault, REVOKED_MAX } from '../../src/db/tokens.ts'
import { createTokenStore, REVOCATION_AGE_MS, TOKEN_LIFETIME_MS } from '../../src/identity/tokens.ts'
import { DIALECTS, insertMany, openTestDatabase } from '../db/harness.ts'
import { SimClock } from '../sim/clock.ts'
import { SeededRandom } from '../sim/random.ts'

const ACCOUNT = { userId: 'a'.repeat(32), passwordHash: 'scrypt$salt$key' }
const NEW = { methods: ['password'], scoped: true, parent: null }

describe.each(DIALECTS)('tokens of processes that share %s', (dialect) => {
  async function installation() {
    const { db } = await openTestDatabase(dialect)
    const random = new SeededRandom(7)
    const sim = new SimClock(random)
    const clock = sim.mount()
    const vault = createTokenVault(db, clock)
    const process = (account = ACCOUNT) => createTokenStore({ account, vault, clock, random })
    return { db, clock, process, pass: (milliseconds: number) => sim.run(clock.sleep(milliseconds)) }
  }

  it('are honoured by all of them, whichever gave them out, also after a restart', async () => {
    const { process } = await installation()
    const [a, b] = [process(), process()]
    const issued = await Promise.all([a.issue(NEW), b.issue({ ...NEW, scoped: false, methods: ['password', 'token'] })])
    for (const { token, session } of issued) {
      expect(token).toMatch(/^[\w-]+\.[\w-]{43}$/)
      expect(token.length).toBeLessThanOrEqual(255)
      for (const store of [a, b, process()]) expect(await store.find(token)).toEqual(session)
    }
  })

  it('are worth nothing once revoked: at once here, soon in the others, and for good', async () => {
    const { process, pass } = await installation()
    const [a, b] = [process(), process()]
    const { token } = await a.issue(NEW)
    const other = await a.issue(NEW)
    expect(await b.find(token)).not.toBeNull()
    expect(await a.revoke(token)).toBe(true)
    expect(await a.find(token)).toBeNull()
    expect(await a.revoke(token)).toBe(false)
    await pass(REVOCATION_AGE_MS)
    expect(await b.find(token)).toBeNull()
    expect(await process().find(token)).toBeNull()
    expect(await b.find(other.token)).toEqual(other.session)
  })

  it('end all together when more are revoked than are remembered', async () => {
    const { db, clock, process, pass } = await installation()
    const [a, b] = [process(), process()]
    const [kept, revoked] = [await a.issue(NEW), await a.issue(NEW)]
    const row = (index: number) => ({ id: `revoked ${index}`, expires_at_ms: clock.now() + TOKEN_LIFETIME_MS })
    await insertMany(
      db,
      'revoked_tokens',
      Array.from({ length: REVOKED_MAX }, (_, index) => row(index)),
      500,
    )
    expect(await a.revoke(revoked.token)).toBe(true)
    expect(await db('revoked_tokens')).toEqual([])
    await pass(REVOCATION_AGE_MS)
    for (const store of [a, b]) {
      for (const { token } of [kept, revoked]) expect(await store.find(token)).toBeNull()
    }
    const { token } = await b.issue(NEW)
    expect(await a.find(token)).not.toBeNull()
  })

  it('are forgotten when they would have ended anyway', async () => {
    const { db, process, pass } = await installation()
    const store = process()
    await store.revoke((await store.issue(NEW)).token)
    await pass(TOKEN_LIFETIME_MS)
    await store.revoke((await store.issue(NEW)).token)
    expect(await db('revoked_tokens')).toHaveLength(1)
  })

  it('do not outlive the password', async () => {
    const { process } = await installation()
    const { token } = await process().issue(NEW)
    expect(await process({ ...ACCOUNT, passwordHash: 'scrypt$salt$other' }).find(token)).toBeNull()
    expect(await process({ ...ACCOUNT, userId: 'b'.repeat(32) }).find(token)).toBeNull()
  })
})

it('a token is found by all of its characters only, and nobody can change what it says', async () => {
  const { db } = await openTestDatabase()
  const random = new SeededRandom(8)
  const clock = new SimClock(random).mount()
  const store = createTokenStore({ account: ACCOUNT, vault: createTokenVault(db, clock), clock, random })
  const { token } = await store.issue({ ...NEW, scoped: false })
  const [payload = '', signature = ''] = token.split('.')
  const fields = JSON.parse(Buffer.from(payload, 'base64url').toString())
  const written = (changed: unknown) => Buffer.from(JSON.stringify(changed)).toString('base64url')
  const scoped = written(fields.with(4, 1))
  const longer = written(fields.with(3, fields[3] + 1))
  const forged = [
    ...Array.from(token, (_, index) => token.slice(0, index)),
    ...Array.from(
      token,
      (character, index) => token.slice(0, index) + (character === 'A' ? 'B' : 'A') + token.slice(index + 1),
    ),
    `${token}A`,
    `${token}.`,
    `${scoped}.${signature}`,
    `${longer}.${signature}`,
    `${written([])}.`,
    `.${signature}`,
    `${'x'.repeat(300)}.${signature}`,
  ]
  for (const wrong of forged) expect([wrong, await store.find(wrong)]).toEqual([wrong, null])
  expect(await store.revoke('')).toBe(false)
  expect(await store.revoke(token)).toBe(true)
})

it('what is being read while one is revoked does not bring it back', async () => {
  const random = new SeededRandom(9)
  const sim = new SimClock(random)
  const clock = sim.mount()
  const [reading, revoking] = [gate(), gate()]
  const revoked: string[] = []
  const vault = {
    read: async () => {
      const found = { key: 'a key', revoked: [...revoked] }
      await reading.passed()
      return found
    },
    revoke: async ({ id }: { id: string }) => {
      await revoking.passed()
      revoked.push(id)
    },
  }
  const store = createTokenStore({ account: ACCOUNT, vault, clock, random })
  const { token } = await store.issue(NEW)
  revoking.close()
  const revocation = store.revoke(token)
  await sim.run(clock.sleep(REVOCATION_AGE_MS))
  reading.close()
  const early = store.find(token)
  revoking.open()
  expect(await revocation).toBe(true)
  reading.open()
  expect(await early).not.toBeNull()
  expect(await store.find(token)).toBeNull()
})

function gate() {
  let open = () => {}
  let opened: Promise<void> = Promise.resolve()
  return {
    close: () => {
      opened = new Promise((resolve) => {
        open = resolve
      })
    },
    open: () => open(),
    passed: () => opened,
  }
}
