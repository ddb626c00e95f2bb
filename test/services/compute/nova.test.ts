import { beforeEach, describe, expect, it } from 'vitest'
import { createKeystoneAccount, type KeystoneAccountOptions } from '../../../src/keystone/account.ts'
import { systemHttp } from '../../../src/runtime/http-client.ts'
import { createLog } from '../../../src/runtime/log.ts'
import { computeRefusal, createNova } from '../../../src/services/compute/nova.ts'
import { type FakeNova, NOVA_ACCOUNT, startFakeNova } from '../../tools/fake-nova.ts'
import { ManualClock } from '../../tools/manual-clock.ts'

const VOLUME = '11111111-1111-4111-8111-111111111111'
const SERVERS = ['22222222-2222-4222-8222-222222222222', '33333333-3333-4333-8333-333333333333']
const EXTENDED = { name: 'volume-extended', volumeId: VOLUME } as const

let nova: FakeNova
let clock: ManualClock

beforeEach(async () => {
  clock = new ManualClock()
  nova = await startFakeNova(() => clock.now())
})

function client(changed: Partial<KeystoneAccountOptions> = {}, url: string | null = null) {
  const timeoutMs = 20_000
  const account = createKeystoneAccount({
    http: systemHttp,
    clock,
    authUrl: nova.authUrl,
    ...NOVA_ACCOUNT,
    interface: 'public',
    regionName: null,
    timeoutMs,
    refusal: computeRefusal,
    ...changed,
  })
  return createNova({ http: systemHttp, account, url, timeoutMs, log: createLog('silent') })
}

const refused = (text: string) => ({ code: 'ComputeRefused', message: expect.stringContaining(text) })

describe('Nova is told of a volume', () => {
  it('with an event for each server, at the microversion that has it', async () => {
    const { notify } = client()
    await notify(EXTENDED, SERVERS, 'req-42')
    await notify({ name: 'volume-reimaged', volumeId: VOLUME }, [SERVERS[0]!], null)
    expect(nova.events).toEqual([
      { name: 'volume-extended', server_uuid: SERVERS[0], tag: VOLUME },
      { name: 'volume-extended', server_uuid: SERVERS[1], tag: VOLUME },
      { name: 'volume-reimaged', server_uuid: SERVERS[0], tag: VOLUME },
    ])
    const headers = nova.calls.map((call) => call.headers)
    expect(headers.map((one) => one['x-openstack-nova-api-version'])).toEqual(['2.51', '2.93'])
    expect(headers.map((one) => one['x-openstack-request-id'])).toEqual(['req-42', undefined])
  })

  it.each<[string, Partial<KeystoneAccountOptions>, string]>([
    ['the public one', {}, '/compute/v2.1/os-server-external-events'],
    ['that of an interface', { interface: 'internal' }, '/internal/compute/v2.1/os-server-external-events'],
    ['that of a region', { regionName: 'two' }, '/two/compute/v2.1/os-server-external-events'],
  ])('at the endpoint of the catalog: %s', async (_, changed, path) => {
    await client(changed).notify(EXTENDED, SERVERS, null)
    expect(nova.calls.map((call) => call.path)).toEqual([path])
  })

  it('at the address that is set, whatever the catalog says', async () => {
    await client({ regionName: 'nowhere' }, `${nova.computeUrl}/`).notify(EXTENDED, SERVERS, null)
    expect(nova.events).toHaveLength(2)
    await expect(client({ regionName: 'nowhere' }).notify(EXTENDED, SERVERS, null)).rejects.toMatchObject(
      refused('the catalog names no endpoint'),
    )
  })

  it('with one token, until that ends or is refused', async () => {
    const { notify } = client()
    await notify(EXTENDED, SERVERS, null)
    await notify(EXTENDED, SERVERS, null)
    expect(nova.tokensAsked()).toBe(1)
    clock.advance(nova.tokenLifetimeMs - 30_000)
    await notify(EXTENDED, SERVERS, null)
    expect(nova.tokensAsked()).toBe(2)
    nova.revokeAll()
    await notify(EXTENDED, SERVERS, null)
    expect(nova.tokensAsked()).toBe(3)
    expect(nova.events).toHaveLength(8)
  })
})

describe('Nova is asked', () => {
  const [server, another] = SERVERS as [string, string]
  it('by which attachment a server has a volume, if at all', async () => {
    const { attachmentOf } = client()
    nova.servers.set(server, new Map([[VOLUME, { attachmentId: 'held', connection: {} }]]))
    expect(await attachmentOf(VOLUME, server, 'req-42')).toBe('held')
    expect(await attachmentOf(VOLUME, another, null)).toBe(null)
    expect(await attachmentOf(another, server, null)).toBe(null)
    expect(nova.calls[0]!.headers['x-openstack-request-id']).toBe('req-42')
    for (const answer of [{ status: 406 }, { status: 403 }, { status: 200, document: { volumeAttachment: {} } }]) {
      nova.answerNext(answer)
      await expect(attachmentOf(VOLUME, server, null)).rejects.toMatchObject(refused(String(answer.status)))
    }
    nova.answerNext({ status: 503 })
    await expect(attachmentOf(VOLUME, server, null)).rejects.toMatchObject({ code: 'ServiceUnavailable' })
  })
})

describe('what Nova or Keystone says to it', () => {
  it('that one server can make no use of it changes nothing', async () => {
    nova.homeless.add(SERVERS[0]!)
    await client().notify(EXTENDED, SERVERS, null)
    expect(nova.events.map((event) => event.server_uuid)).toEqual([SERVERS[1]])
  })

  it.each([
    [
      'that it does not know the servers',
      { status: 404, document: { itemNotFound: { message: 'No instances found' } } },
    ],
    ['that the account may not', { status: 403, document: { forbidden: {} } }],
    ['that the request makes no sense', { status: 400, document: {} }],
    ['nothing about an event', { status: 200, document: { events: [{ name: 'volume-extended' }] } }],
    ['nothing that is an answer', { status: 200, document: 'hello' }],
  ])('%s: it was refused', async (_, answer) => {
    nova.answerNext(answer)
    await expect(client().notify(EXTENDED, SERVERS, null)).rejects.toMatchObject(refused(String(answer.status)))
  })

  it('a token that it refuses twice is refused', async () => {
    nova.answerNext({ status: 401 })
    nova.answerNext({ status: 401 })
    await expect(client().notify(EXTENDED, SERVERS, null)).rejects.toMatchObject(refused('401'))
    expect(nova.tokensAsked()).toBe(2)
  })

  it('that the password is wrong: refused, and asked again the next time', async () => {
    const { notify } = client({ password: 'wrong' })
    for (let attempt = 1; attempt <= 2; attempt++) {
      await expect(notify(EXTENDED, SERVERS, null)).rejects.toMatchObject(refused('gives cinder no token: 401'))
      expect(nova.tokensAsked()).toBe(attempt)
    }
  })

  it('nothing, or that it is down: it may be asked again', async () => {
    nova.answerNext({ status: 503 })
    const unavailable = { code: 'ServiceUnavailable' }
    await expect(client().notify(EXTENDED, SERVERS, null)).rejects.toMatchObject(unavailable)
    await nova.close()
    await expect(client().notify(EXTENDED, SERVERS, null)).rejects.toMatchObject(unavailable)
  })
})
