import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createHarness, type Harness, OTHER_PROJECT, PROJECT } from './harness.ts'
import { sample } from './sample-files.ts'

let api: Harness

beforeAll(async () => {
  api = await createHarness()
  const type = await api.ask('POST', '/v3/types', { body: { volume_type: { name: 'LUKS' } } })
  const url = `/v3/types/${type.body.volume_type.id}/encryption`
  await api.ask('POST', url, { body: sample('volume_type/encryption-type-create-request.json') })
  const encryption = { cipher: 'aes-xts-plain64', key_size: 512, provider: 'luks', control_location: 'front-end' }
  await api.ask('PUT', `${url}/any`, { body: { encryption } })
})
afterAll(() => api.close())

async function newVolume(body: object = { volume_type: 'LUKS' }): Promise<string> {
  const made = await api.ask('POST', '/v3/volumes', { version: '3.64', body: { volume: { size: 1, ...body } } })
  await api.services.idle()
  return made.body.volume.id
}

const show = async (id: string, version: string) => (await api.ask('GET', `/v3/volumes/${id}`, { version })).body.volume

describe('an encrypted volume', () => {
  it('says so, and from 3.64 on with which key', async () => {
    const id = await newVolume()
    const volume = await show(id, '3.64')
    expect(volume).toMatchObject({ encrypted: true, encryption_key_id: expect.stringMatching(/^[0-9a-f-]{36}$/) })
    expect(await show(id, '3.63')).not.toHaveProperty('encryption_key_id')
    expect((await show(id, '3.0')).encrypted).toBe(true)
    const { body } = await api.ask('GET', '/v3/volumes/detail', { version: '3.64' })
    expect(body.volumes).toContainEqual(expect.objectContaining({ id, encryption_key_id: volume.encryption_key_id }))
    const plain = await show(await newVolume({}), '3.64')
    expect(plain.encrypted).toBe(false)
    expect(plain).not.toHaveProperty('encryption_key_id')
  })

  it('tells Nova how, all at once or by key', async () => {
    const id = await newVolume()
    const { encryption_key_id } = await show(id, '3.64')
    const url = `/v3/volumes/${id}/encryption`
    const expected = {
      encryption_key_id,
      provider: 'luks',
      cipher: 'aes-xts-plain64',
      key_size: 512,
      control_location: 'front-end',
    }
    expect((await api.ask('GET', url, { roles: 'reader' })).body).toEqual(expected)
    for (const [key, value] of Object.entries(expected)) {
      expect((await api.ask('GET', `${url}/${key}`, { roles: 'reader' })).text).toBe(JSON.stringify(value))
    }
    expect((await api.ask('GET', url, { roles: 'member', project: OTHER_PROJECT })).status).toBe(404)
  })

  it('has backups that say with which key', async () => {
    const body = { backup: { volume_id: await newVolume() } }
    const { id } = (await api.ask('POST', '/v3/backups', { body })).body.backup
    await api.services.idle()
    const ask = async (version: string) => (await api.ask('GET', `/v3/backups/${id}`, { version })).body.backup
    expect(await ask('3.64')).toMatchObject({ encryption_key_id: expect.stringMatching(/^[0-9a-f-]{36}$/) })
    expect(await ask('3.63')).not.toHaveProperty('encryption_key_id')
  })

  it('is given away from 3.70 on', async () => {
    const body = { transfer: { volume_id: await newVolume() } }
    const refused = await api.ask('POST', '/v3/volume-transfers', { version: '3.69', body })
    expect([refused.status, refused.body.badRequest.message]).toEqual([
      400,
      'Invalid volume: transferring encrypted volume is not supported',
    ])
    expect((await api.ask('POST', '/v3/volume-transfers', { version: '3.70', body })).status).toBe(202)
  })
})

describe('a retype to a type that is encrypted in another way', () => {
  const retype = async (id: string, body: object) => {
    const answer = await api.ask('POST', `/v3/volumes/${id}/action`, { body: { 'os-retype': body } })
    await api.services.idle()
    return answer
  }

  it('is a migration: of an encrypted volume is made one that is not', async () => {
    const id = await newVolume()
    expect((await retype(id, { new_type: '__DEFAULT__', migration_policy: 'on-demand' })).status).toBe(202)
    const volume = await show(id, '3.64')
    expect(volume).toMatchObject({ status: 'available', encrypted: false, volume_type: '__DEFAULT__' })
    expect(volume).toMatchObject({ migration_status: 'success', 'os-vol-mig-status-attr:name_id': expect.any(String) })
    expect((await api.ask('GET', `/v3/volumes/${id}/encryption`)).body.encryption_key_id).toBeNull()
  })

  it('fails without a policy that lets it migrate, and a message says so', async () => {
    const id = await newVolume({})
    expect((await retype(id, { new_type: 'LUKS' })).status).toBe(202)
    expect(await show(id, '3.64')).toMatchObject({ status: 'available', encrypted: false, volume_type: '__DEFAULT__' })
    const { messages } = (await api.ask('GET', `/v3/messages?resource_uuid=${id}`, { version: '3.5' })).body
    expect(messages).toEqual([expect.objectContaining({ user_message: expect.stringMatching(/^retype volume:/) })])
  })

  it('is refused while the volume is attached', async () => {
    const id = await newVolume({})
    const attachment = { volume_uuid: id, instance_uuid: randomUUID(), connector: { host: 'compute' } }
    const made = await api.ask('POST', '/v3/attachments', { version: '3.44', body: { attachment } })
    const complete = { version: '3.44', body: { 'os-complete': null } }
    await api.ask('POST', `/v3/attachments/${made.body.attachment.id}/action`, complete)
    const answer = await retype(id, { new_type: 'LUKS', migration_policy: 'on-demand' })
    expect([answer.status, answer.body.badRequest.message]).toEqual([
      400,
      `Invalid volume: Volume ${id} is in use, and the type is encrypted in another way: it can get it when it is attached nowhere. Detach it first.`,
    ])
    expect((await show(id, '3.64')).status).toBe('in-use')
  })
})

describe('the key of an encrypted volume', () => {
  const secretOf = async () => `/key-manager/v1/secrets/${(await show(await newVolume(), '3.64')).encryption_key_id}`

  it('is there for members of its project, in the shape of Barbican', async () => {
    const url = await secretOf()
    const secret = await api.ask('GET', url, { roles: 'member' })
    expect([secret.status, secret.body]).toEqual([
      200,
      expect.objectContaining({
        algorithm: 'aes',
        bit_length: 512,
        secret_type: 'symmetric',
        status: 'ACTIVE',
        content_types: { default: 'application/octet-stream' },
        secret_ref: `http://cinder.example:8776${url}`,
      }),
    ])
    const payload = await api.app.inject({
      url: `${url}/payload`,
      headers: { 'x-auth-token': `user:${PROJECT}:member` },
    })
    expect(payload.headers).toMatchObject({ 'content-type': 'application/octet-stream', 'cache-control': 'no-store' })
    expect(payload.rawPayload).toHaveLength(64)
    const unsealed = payload.rawPayload.toString('base64')
    expect(api.logged.join()).not.toContain(unsealed)
  })

  it('is nobody else’s to see, administrators included', async () => {
    const url = await secretOf()
    for (const path of [url, `${url}/payload`]) {
      const abroad = await api.ask('GET', path, { project: OTHER_PROJECT, roles: 'admin' })
      expect([abroad.status, abroad.body.title]).toEqual([404, 'Not Found'])
      expect((await api.ask('GET', path, { roles: 'reader' })).status).toBe(403)
      const nobody = await api.app.inject({ url: path })
      expect([nobody.statusCode, nobody.headers['www-authenticate']]).toEqual([
        401,
        expect.stringContaining('Keystone'),
      ])
    }
    expect((await api.ask('DELETE', url, { project: OTHER_PROJECT })).status).toBe(404)
    expect((await api.ask('DELETE', url, { roles: 'reader' })).status).toBe(403)
  })

  it('is not deleted while something opens with it', async () => {
    const answer = await api.ask('DELETE', await secretOf(), { roles: 'member' })
    expect([answer.status, answer.body]).toEqual([
      409,
      { code: 409, title: 'Conflict', description: 'A volume or a backup opens with this key.' },
    ])
  })

  it('is found through documents that need no token', async () => {
    for (const [url, status] of [
      ['/key-manager', 300],
      ['/key-manager/', 300],
      ['/key-manager/v1', 200],
      ['/key-manager/v1/', 200],
    ] as const) {
      const answer = await api.app.inject({ url, headers: { host: 'cinder.example:8776' } })
      expect([url, answer.statusCode]).toEqual([url, status])
      expect(answer.body).toContain('"http://cinder.example:8776/key-manager/v1/"')
    }
    for (const url of ['/key-manager/v1/secrets', '/key-manager/v1/orders', '/key-manager/v2']) {
      expect((await api.ask('GET', url)).status, url).toBe(404)
    }
    expect((await api.ask('POST', '/key-manager/v1/secrets', { body: {} })).status).toBe(404)
  })
})
