import { describe, expect, it } from 'vitest'
import { type HttpClient, HttpFailure, type HttpRequest } from '../../../src/runtime/http-client.ts'
import { createLog } from '../../../src/runtime/log.ts'
import { createBarbican } from '../../../src/services/keys/barbican.ts'

/** What is made of answers that are not as they should be. With a real Barbican: test/e2e/barbican.long.test.ts. */

const ID = '1f0b8a6e-5d55-4c52-9b7c-6d3f1f9a2c11'
const OWNER = { projectId: 'project', userId: 'user', token: 'token-of-the-user' }
const KEY = { algorithm: 'aes', secret: Buffer.alloc(32, 0xa5) }

interface Reply {
  status: number
  body?: string | Buffer
}

function barbicanThat(...replies: (Reply | Error)[]) {
  const asked: HttpRequest[] = []
  const logged: string[] = []
  const http: Pick<HttpClient, 'request'> = {
    request: async (request) => {
      asked.push(request)
      const reply = replies.shift()!
      if (reply instanceof Error) throw reply
      const chunks = reply.body === undefined ? [] : [Buffer.from(reply.body)]
      return { status: reply.status, headers: {}, read: async () => chunks.shift() ?? null, destroy: () => {} }
    },
  }
  const manager = createBarbican({
    http: http as HttpClient,
    url: async () => 'http://barbican.example:9311/',
    timeoutMs: 1000,
    log: createLog('info', { write: (line) => logged.push(line) }),
  })
  return { manager, asked, logged }
}

const stored: Reply = {
  status: 201,
  body: JSON.stringify({ secret_ref: `http://barbican.example:9311/v1/secrets/${ID}` }),
}

describe('a key', () => {
  it('is stored with the token of whoever asks, and deleted with it when it comes to nothing', async () => {
    const { manager, asked } = barbicanThat(stored, { status: 204 })
    const key = await manager.store(OWNER, KEY)
    expect(key.id).toBe(ID)
    await key.discard()
    expect(asked.map(({ method, url, headers }) => [method, url, headers['x-auth-token']])).toEqual([
      ['POST', 'http://barbican.example:9311/v1/secrets', OWNER.token],
      ['DELETE', `http://barbican.example:9311/v1/secrets/${ID}`, OWNER.token],
    ])
    expect(JSON.parse(String(asked[0]!.body))).toEqual({
      secret_type: 'symmetric',
      algorithm: 'aes',
      bit_length: 256,
      payload: KEY.secret.toString('base64'),
      payload_content_type: 'application/octet-stream',
      payload_content_encoding: 'base64',
    })
  })

  it.each([
    [{ status: 403, body: '{"title": "Forbidden"}' }, 'InvalidInput'],
    [{ status: 201, body: '{"secret_ref": "http://elsewhere/"}' }, 'InvalidInput'],
    [{ status: 201, body: 'no JSON' }, 'InvalidInput'],
    [{ status: 503 }, 'ServiceUnavailable'],
    [new HttpFailure('no answer within 1 s'), 'ServiceUnavailable'],
  ])('that is not stored is told without it: %o', async (reply, code) => {
    const { manager, logged } = barbicanThat(reply)
    const failure = manager.store(OWNER, KEY)
    await expect(failure).rejects.toMatchObject({ code })
    await expect(failure).rejects.not.toThrow(KEY.secret.toString('base64'))
    expect(logged.join()).not.toContain(KEY.secret.toString('base64'))
  })

  it('is read, bytes as they are', async () => {
    const about = { status: 200, body: JSON.stringify({ algorithm: 'aes', status: 'ACTIVE' }) }
    const { manager, asked } = barbicanThat(about, { status: 200, body: KEY.secret })
    expect(await manager.read(OWNER, ID)).toEqual(KEY)
    expect(asked[1]).toMatchObject({ headers: { accept: 'application/octet-stream' } })
  })

  it.each([
    [{ status: 404, body: '{}' }, 'InvalidInput'],
    [{ status: 500 }, 'ServiceUnavailable'],
    [{ status: 200, body: 'x'.repeat(70_000) }, 'ServiceUnavailable'],
  ])('that cannot be read is not made up: %o', async (reply, code) => {
    await expect(barbicanThat(reply).manager.read(OWNER, ID)).rejects.toMatchObject({ code })
  })

  it('whose id came with an image is no path', async () => {
    const { manager, asked } = barbicanThat()
    await expect(manager.read(OWNER, '../containers')).rejects.toThrow('Key manager error')
    expect(asked).toEqual([])
  })

  it('that is gone is deleted; one that stays is told', async () => {
    await barbicanThat({ status: 404 }).manager.remove('token', ID)
    await expect(barbicanThat({ status: 403 }).manager.remove('token', ID)).rejects.toThrow('does not delete key')
  })
})
