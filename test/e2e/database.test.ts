import { randomUUID } from 'node:crypto'
import { readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import BetterSqlite3 from 'better-sqlite3'
import { afterEach, expect, it } from 'vitest'
import { EXIT } from '../../src/cli/command.ts'
import { CinderApi } from '../tools/cinder-api.ts'
import { Collie, runCollie } from '../tools/collie.ts'
import { createPostgresDatabase, missingPostgres } from '../tools/postgres.ts'
import { testUnless } from '../tools/require-command.ts'

interface Check {
  sound: boolean
  checked: Record<string, number>
  findings: { kind: string; id: string; detail: string; advice: string; repaired: boolean }[]
}

const started: Collie[] = []

afterEach(async () => {
  for (const collie of started.splice(0).reverse()) await collie.dispose()
})

async function create(...flags: string[]): Promise<Collie> {
  const collie = await Collie.create(...flags)
  started.push(collie)
  return collie
}

const check = async (collie: Collie, ...flags: string[]): Promise<Check & { code: number | null }> => {
  const { code, out, err } = await collie.command('db', 'check', '--json', ...flags)
  expect(err).toBe('')
  return { code, ...JSON.parse(out) }
}

it('compares the database with the store, says what to do, and repairs what is only a count or a right', async () => {
  const collie = await create()
  await collie.start()
  const cinder = new CinderApi(`${collie.dataDir}/openrc`)
  const [kept, lost] = [await cinder.createVolume({ size: 2 }), await cinder.createVolume()]
  for (const id of [kept, lost]) await cinder.until('volume', id, 'available')
  const attachment = await cinder.attach(kept)
  expect(await check(collie)).toMatchObject({
    code: EXIT.OK,
    sound: true,
    checked: { volumes: 2, snapshots: 0, attachments: 1, vdis: 2, foreign_vdis: 0 },
    findings: [],
  })

  const unknown = randomUUID()
  await collie.ask('vdi', 'create', `volume-${unknown}`, '1G')
  await collie.ask('vdi', 'create', 'a-disk-of-qemu', '1G')
  await collie.ask('vdi', 'delete', `volume-${lost}`)
  const other = new BetterSqlite3(`${collie.dataDir}/collie.db`)
  other.prepare('update usages set gigabytes = gigabytes + 7').run()
  other.prepare('delete from attachments').run()
  other.close()

  const broken = await check(collie)
  expect([broken.code, broken.sound, broken.checked.foreign_vdis]).toEqual([EXIT.DATA_UNSOUND, false, 1])
  expect(broken.findings.map(({ kind, id }) => [kind, id])).toEqual([
    ['volume-lost', lost],
    ['volume-unknown', unknown],
    ['export-unknown', attachment.id],
    ['usage-wrong', expect.any(String)],
  ])
  for (const { advice } of broken.findings) expect(advice).toMatch(/collie|openstack/)

  const repaired = await check(collie, '--repair')
  expect(repaired.findings.filter((finding) => finding.repaired).map(({ kind }) => kind)).toEqual([
    'export-unknown',
    'usage-wrong',
  ])
  await collie.ask('vdi', 'delete', `volume-${unknown}`)
  const left = await check(collie)
  expect(left.findings.map(({ kind, id }) => [kind, id])).toEqual([['volume-lost', lost]])
  const { code, out } = await collie.command('db', 'check')
  expect([code, out]).toEqual([EXIT.DATA_UNSOUND, expect.stringContaining('Database and store do NOT agree.')])
})

it('backs the database up while it is used, into a file that is nobody else’s', async () => {
  const collie = await create()
  await collie.start()
  const cinder = new CinderApi(`${collie.dataDir}/openrc`)
  const id = await cinder.createVolume({ name: 'kept' })
  await cinder.until('volume', id, 'available')
  const file = collie.file('backup.db')
  let isDone = false
  const busy = (async () => {
    while (!isDone) await cinder.request('PUT', `/volumes/${id}`, { volume: { description: randomUUID() } })
  })()
  expect(await collie.command('db', 'backup', file)).toMatchObject({ code: EXIT.OK, err: '' })
  isDone = true
  await busy
  expect(statSync(file).mode & 0o777).toBe(0o600)
  const copy = new BetterSqlite3(file, { readonly: true })
  expect(copy.prepare('select id, name, status from volumes').all()).toEqual([
    { id, name: 'kept', status: 'available' },
  ])
  copy.close()
  const again = await collie.command('db', 'backup', file)
  expect([again.code, again.err]).toEqual([EXIT.CANNOT_CREATE, expect.stringContaining('exists')])
  const nothing = await runCollie('db', 'backup', collie.file('other'), `--data-dir=${collie.file('no-data')}`)
  expect([nothing.code, nothing.err]).toEqual([EXIT.NO_INPUT, expect.stringContaining('there is no database')])
})

testUnless(missingPostgres)('goes on with what an API process leaves that is killed, over one PostgreSQL', async () => {
  const url = await createPostgresDatabase({ migrated: false })
  const store = await create('--roles=store,gateway')
  await store.start()
  const startApi = async () => {
    const api = await create('--roles=api', `--data-dir=${store.dataDir}`, `--database=${url}`)
    await api.start()
    return { api, cinder: new CinderApi(`${store.dataDir}/openrc`) }
  }
  const a = await startApi()
  const b = await startApi()

  const shared = await a.cinder.createVolume({ name: 'shared' })
  await b.cinder.until('volume', shared, 'available')
  // Killed in the middle of many: some are done, some have begun, of some only the row is there.
  const ids: string[] = []
  const burst = Array.from({ length: 40 }, async (_, turn) => {
    const id = await a.cinder.createVolume()
    ids.push(id)
    if (turn % 4 === 0) await a.cinder.request('DELETE', `/volumes/${id}`).catch(() => {})
  })
  const settled = Promise.allSettled(burst)
  await Promise.race(burst)
  await a.api.kill('SIGKILL')
  await settled
  expect(ids.length).toBeGreaterThan(0)

  for (;;) {
    const { volumes } = await b.cinder.request<{ volumes: { id: string; status: string }[] }>('GET', '/volumes/detail')
    if (volumes.every(({ status }) => status === 'available')) {
      expect(volumes.map(({ id }) => id)).toContain(shared)
      for (const { id } of volumes) await b.cinder.delete('volume', id)
      for (const { id } of volumes) await b.cinder.untilGone('volume', id)
      break
    }
    expect(volumes.map(({ status }) => status)).not.toContain('error')
  }
  const { code, out } = await store.command('db', 'check', '--json', `--database=${url}`)
  expect([code, JSON.parse(out)]).toEqual([EXIT.OK, expect.objectContaining({ sound: true, findings: [] })])
  expect(await store.ask('cluster', 'audit')).toMatchObject({ sound: true, checked: { objects: 0 } })
  const file = store.file('backup')
  expect(await store.command('db', 'backup', file, `--database=${url}`)).toMatchObject({ code: EXIT.OK, err: '' })
  expect(readFileSync(file).subarray(0, 5).toString()).toBe('PGDMP')
  const { limits } = await b.cinder.request<{ limits: { absolute: Record<string, number> } }>('GET', '/limits')
  expect(limits.absolute).toMatchObject({ totalVolumesUsed: 0, totalGigabytesUsed: 0 })
  expect(await b.api.kill('SIGTERM')).toBe(0)
})

testUnless(missingPostgres)('answers commands and honours tokens whichever of two API processes lives', async () => {
  const url = await createPostgresDatabase({ migrated: false })
  const store = await create('--roles=store,gateway')
  await store.start()
  const newApi = () => create('--roles=api', `--data-dir=${store.dataDir}`, `--database=${url}`)
  const [a, b] = [await newApi(), await newApi()]
  await Promise.all([a.start(), b.start()]) // one makes the account, and both have it
  const statusAt = async ({ info }: Collie, token: string) =>
    (await fetch(`${info.addresses.api}/volumes`, { headers: { 'x-auth-token': token } })).status
  const listed = async () => (await store.ask<{ name: string }[]>('volume', 'list')).map(({ name }) => name)

  const cinder = new CinderApi(`${store.dataDir}/openrc`)
  const token = await cinder.token()
  expect([await statusAt(a, token), await statusAt(b, token), await statusAt(a, `${token}A`)]).toEqual([200, 200, 401])
  const id = await cinder.createVolume({ name: 'kept' })
  await cinder.until('volume', id, 'available')
  for (const [left, other] of [
    [a, b],
    [b, a],
  ] as const) {
    await other.kill('SIGKILL')
    expect(await listed()).toEqual(['kept'])
    expect((await store.command('volume', 'explain', id)).out).toContain('available')
    expect(await statusAt(left, token)).toBe(200)
    await other.start()
    expect(await statusAt(other, token)).toBe(200)
    expect(readdirSync(`${store.dataDir}/api`)).toHaveLength(2)
  }
  await b.kill('SIGTERM')
  expect(await listed()).toEqual(['kept'])
  const revoked = await fetch(new URL('/identity/v3/auth/tokens', a.info.addresses.api), {
    method: 'DELETE',
    headers: { 'x-auth-token': token, 'x-subject-token': token },
  })
  expect(revoked.status).toBe(204)
  await b.start()
  expect([await statusAt(a, token), await statusAt(b, token)]).toEqual([401, 401])
  await Promise.all([a.kill('SIGTERM'), b.kill('SIGTERM')])
  expect(readdirSync(`${store.dataDir}/api`)).toEqual([])
  expect((await store.command('volume', 'list')).err).toContain('no block storage API is running')
})

it('refuses a second database over one store, until that is to follow it', async () => {
  const collie = await create()
  await collie.start()
  await collie.kill('SIGTERM')
  for (const file of ['collie.db', 'collie.db-wal', 'collie.db-shm'])
    rmSync(`${collie.dataDir}/${file}`, { force: true })
  await expect(collie.start()).rejects.toThrow(
    /another database \(\S+\) says what the store of backend sheepdog holds.*collie db adopt/,
  )
  const store = await create('--roles=store', `--data-dir=${collie.dataDir}`)
  await store.start()
  expect(await collie.command('db', 'adopt')).toMatchObject({ code: EXIT.OK, err: '' })
  await store.kill('SIGTERM')
  await collie.start()
})

testUnless(missingPostgres)('tells a database that is away from a program that is wrong', async () => {
  const store = await create('--roles=store')
  await store.start()
  const url = 'postgres://collie:hidden@127.0.0.1:9/none'
  const api = await create('--roles=api', `--data-dir=${store.dataDir}`, `--database=${url}`)
  await expect(api.start()).rejects.toThrow(/The database is not available: nobody listens at its address/)
  expect(api.tailOfLog()).not.toContain('hidden')
})
