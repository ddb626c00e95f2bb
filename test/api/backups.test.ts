import { readdirSync, readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createHarness, type Harness, OTHER_PROJECT } from './harness.ts'

const SAMPLES = new URL('./samples/', import.meta.url)
const sample = (path: string) => JSON.parse(readFileSync(new URL(path, SAMPLES), 'utf8'))
const keys = (value: object) => Object.keys(value).sort()

/** Microversions at which the samples change, with the folder that shows them from then on. */
const STAGES: [version: string, folder: string][] = [
  ['3.0', 'backups'],
  ...readdirSync(new URL('backups', SAMPLES))
    .filter((name) => name.startsWith('v3.'))
    .map((name) => Number(name.slice(3)))
    .sort((a, b) => a - b)
    .map((minor): [string, string] => [`3.${minor}`, `backups/v3.${minor}`]),
]

let api: Harness
let volumeId: string
let backupId: string

const createBackup = async (fields: object = {}, version = '3.71') => {
  const answer = await api.ask('POST', '/v3/backups', { version, body: { backup: { volume_id: volumeId, ...fields } } })
  await api.services.idle()
  return answer
}

beforeAll(async () => {
  api = await createHarness()
  const volume = await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1, name: 'source' } } })
  volumeId = volume.body.volume.id
  await api.services.idle()
  backupId = (await createBackup({ name: 'backup001' })).body.backup.id
})
afterAll(() => api.close())

describe.each(STAGES)('backups at %s look as in the samples', (version, folder) => {
  it('create', async () => {
    const { backup } = sample('backups/backup-create-request.json')
    const { status, body } = await createBackup({ ...backup, volume_id: volumeId }, version)
    expect(status).toBe(202)
    expect(keys(body.backup)).toEqual(keys(sample(`${folder}/backup-create-response.json`).backup))
  })
  it('show', async () => {
    const { body } = await api.ask('GET', `/v3/backups/${backupId}`, { version })
    expect(keys(body.backup)).toEqual(keys(sample(`${folder}/backup-show-response.json`).backup))
    expect(body.backup).toMatchObject({ status: 'available', size: 1, name: 'backup001', volume_id: volumeId })
  })
  it.each(['', '/detail'])('list%s', async (path) => {
    const expected = sample(`${folder}/backups-list${path === '' ? '' : '-detailed'}-response.json`)
    const count = 'count' in expected ? '?with_count=true' : ''
    const { body } = await api.ask('GET', `/v3/backups${path}${count}`, { version })
    expect(keys(body)).toEqual(keys(expected))
    expect(keys(body.backups[0])).toEqual(keys(expected.backups[0]))
  })
})

it('are what a volume is made of', async () => {
  const create = (version: string, fields: object) =>
    api.ask('POST', '/v3/volumes', { version, body: { volume: { name: 'of a backup', ...fields } } })
  const made = await create('3.47', { backup_id: backupId })
  expect([made.status, made.body.volume]).toMatchObject([202, { size: 1, name: 'of a backup' }])
  await api.services.idle()
  expect((await api.ask('GET', `/v3/volumes/${made.body.volume.id}`)).body.volume.status).toBe('available')
  const absent = await create('3.71', { backup_id: '00000000-0000-4000-8000-000000000000', size: 1 })
  expect(absent.status).toBe(404)
  // Upstream looks at the field before it is part of the schema, too.
  expect((await create('3.46', { backup_id: backupId })).status).toBe(202)
  await api.services.idle()
})

it('are sorted by name, which has a name of its own before 3.37', async () => {
  const sorted = async (key: string, version: string) =>
    (await api.ask('GET', `/v3/backups?sort=${key}:asc`, { version })).status
  expect([await sorted('display_name', '3.0'), await sorted('name', '3.37'), await sorted('name', '3.36')]).toEqual([
    200, 200, 400,
  ])
  expect((await api.ask('GET', '/v3/volumes?sort=display_name:desc')).status).toBe(200)
})

it('PUT changes name and description from 3.9 on, and metadata from 3.43 on', async () => {
  const url = `/v3/backups/${backupId}`
  const body = sample('backups/v3.9/backup-update-request.json')
  expect((await api.ask('PUT', url, { version: '3.8', body })).status).toBe(404)
  const { status, body: answer } = await api.ask('PUT', url, { version: '3.9', body })
  expect(status).toBe(200)
  expect(keys(answer.backup)).toEqual(keys(sample('backups/v3.9/backup-update-response.json').backup))
  const metadata = { backup: { metadata: { a: 'b' } } }
  expect((await api.ask('PUT', url, { version: '3.42', body: metadata })).status).toBe(400)
  expect((await api.ask('PUT', url, { version: '3.43', body: metadata })).status).toBe(200)
  const shown = await api.ask('GET', url, { version: '3.43' })
  expect(shown.body.backup).toMatchObject({ description: 'this is a backup', metadata: { a: 'b' } })
  expect((await api.ask('PUT', url, { version: '3.43', body: { backup: {} } })).status).toBe(200)
})

it('whose they are is told to administrators', async () => {
  const shown = async (roles: string, version: string) =>
    (await api.ask('GET', `/v3/backups/${backupId}`, { roles, version })).body.backup
  for (const version of ['3.18', '3.56']) {
    expect(await shown('member', version)).not.toHaveProperty('user_id')
    expect(await shown('member', version)).not.toHaveProperty('os-backup-project-attr:project_id')
  }
  expect(await shown('admin', '3.56')).toMatchObject({ user_id: 'user' })
})

it('no name of a container is the usual one', async () => {
  const { status, body } = await createBackup({ container: '', availability_zone: '' })
  expect(status).toBe(202)
  const shown = await api.ask('GET', `/v3/backups/${body.backup.id}`)
  expect(shown.body.backup).toMatchObject({ container: 'volumebackups', availability_zone: 'nova' })
})

it('a marker that is none is a backup that is not there', async () => {
  const { status, body } = await api.ask('GET', '/v3/backups?marker=none')
  expect([status, body.itemNotFound.message]).toEqual([404, 'Backup none could not be found.'])
})

it('restore answers the volume that it goes to', async () => {
  const restore = await api.ask('POST', `/v3/backups/${backupId}/restore`, { body: { restore: { name: 'vol-01' } } })
  expect(restore.status).toBe(202)
  expect(keys(restore.body.restore)).toEqual(keys(sample('backup-restore-response.json').restore))
  expect(restore.body.restore).toMatchObject({ backup_id: backupId, volume_name: 'vol-01' })
  await api.services.idle()
  const { body } = await api.ask('GET', `/v3/volumes/${restore.body.restore.volume_id}`)
  expect(body.volume).toMatchObject({ status: 'available', size: 1, name: 'vol-01' })
})

it('records go out and come in', async () => {
  const { id } = (await createBackup()).body.backup
  const record = await api.ask('GET', `/v3/backups/${id}/export_record`)
  expect(record.status).toBe(200)
  expect(keys(record.body['backup-record'])).toEqual(keys(sample('backup-record-import-request.json')['backup-record']))
  const taken = await api.ask('POST', '/v3/backups/import_record', { body: record.body })
  expect(taken.status).toBe(400)
  expect(taken.body.badRequest.message).toContain('already exists')
  const foreign = await api.ask('POST', '/v3/backups/import_record', {
    body: sample('backup-record-import-request.json'),
  })
  expect(foreign.status).toBe(400)
})

it('an administrator writes the status, and deletes in any', async () => {
  const { id } = (await createBackup()).body.backup
  const act = (body: object, roles = 'admin') => api.ask('POST', `/v3/backups/${id}/action`, { body, roles })
  expect((await act({ 'os-reset_status': { status: 'error' } }, 'member')).status).toBe(403)
  expect((await act({ 'os-reset_status': { status: 'creating' } })).status).toBe(400)
  expect((await act({ 'os-reset_status': { status: 'error' } })).status).toBe(202)
  expect((await api.ask('GET', `/v3/backups/${id}`)).body.backup.status).toBe('error')
  expect((await act({ 'os-force_delete': {} }, 'member')).status).toBe(403)
  expect((await act({ 'os-force_delete': {} })).status).toBe(202)
  await api.services.idle()
  expect((await api.ask('GET', `/v3/backups/${id}`)).status).toBe(404)
})

describe('what a client gets wrong', () => {
  const refused = async (fields: object, version = '3.71') => {
    const { status, body } = await createBackup(fields, version)
    return [status, body.badRequest?.message ?? body.itemNotFound?.message]
  }
  it.each([
    [{ volume_id: 'no id' }, 400, 'volume_id'],
    [{ volume_id: '00000000-0000-4000-8000-000000000000' }, 404, 'could not be found'],
    [{ snapshot_id: '00000000-0000-4000-8000-000000000000' }, 404, 'could not be found'],
    [{ incremental: 'perhaps' }, 400, 'incremental'],
    [{ name: 'x'.repeat(256) }, 400, 'name'],
    [{ color: 'red' }, 400, 'color'],
  ])('%j', async (fields, status, reason) => {
    const answer = await refused(fields)
    expect(answer[0]).toBe(status)
    expect(answer[1]).toContain(reason)
  })
  it('keys of a later version', async () => {
    expect((await refused({ metadata: {} }, '3.42'))[0]).toBe(400)
    expect((await refused({ availability_zone: 'nova' }, '3.50'))[0]).toBe(400)
  })
  it('a backup of somebody else', async () => {
    const ask = (method: 'GET' | 'DELETE', path: string) =>
      api.ask(method, path, { project: OTHER_PROJECT, roles: 'member' })
    expect((await ask('GET', `/v3/backups/${backupId}`)).status).toBe(404)
    expect((await ask('DELETE', `/v3/backups/${backupId}`)).status).toBe(404)
    expect((await ask('GET', '/v3/backups')).body.backups).toEqual([])
  })
})
