import { beforeEach, describe, expect, it, vi } from 'vitest'
import { createKeystoneAccount } from '../../../src/keystone/account.ts'
import { systemClock } from '../../../src/runtime/clock.ts'
import { systemHttp } from '../../../src/runtime/http-client.ts'
import { createLog } from '../../../src/runtime/log.ts'
import { computeRefusal, createNova } from '../../../src/services/compute/nova.ts'
import { type FakeGlance, startFakeGlance } from '../../tools/fake-glance.ts'
import { type FakeNova, NOVA_ACCOUNT, startFakeNova } from '../../tools/fake-nova.ts'
import { imageOptions } from '../../tools/image-options.ts'
import {
  admin,
  availableVolume,
  createHarness,
  everything,
  type Harness,
  member,
  newAttachment,
  newVolume,
  outcome,
  stranger,
  TEST_SETTINGS,
} from '../harness.ts'

/** What servers are told of their volumes: through the services, to a Nova over HTTP. */

const SERVER = '22222222-2222-4222-8222-222222222222'

let nova: FakeNova
let glance: FakeGlance
let harness: Harness
let options: Parameters<typeof createHarness>[0]

beforeEach(async () => {
  nova = await startFakeNova()
  glance = await startFakeGlance()
  const account = createKeystoneAccount({
    http: systemHttp,
    clock: systemClock,
    authUrl: nova.authUrl,
    ...NOVA_ACCOUNT,
    interface: 'public',
    regionName: null,
    timeoutMs: 20_000,
    refusal: computeRefusal,
  })
  const compute = createNova({ http: systemHttp, account, url: null, timeoutMs: 20_000, log: createLog('silent') })
  options = { compute, images: imageOptions(glance.url) }
  harness = await createHarness(options)
})

const show = (id: string, from = harness) => from.services.volumes.get(member, id)
const messagesOf = async (id: string) =>
  (await harness.services.messages.list(member, { ...everything, filters: { resource_uuid: id } })).items

async function attached(instanceId: string | null = SERVER, from = harness): Promise<string> {
  const id = await availableVolume(from)
  const { attachments } = from.services
  const connector = { host: 'compute-1' }
  const overrides = instanceId === null ? { connector } : { connector, instanceId }
  const attachment = await attachments.create(member, newAttachment(id, overrides))
  await attachments.complete(member, attachment.id)
  return id
}

const extend = (id: string, from = harness) => from.services.volumes.extend(member, id, 2, { inUse: true })

describe('a volume that grows in use', () => {
  it('is told to its servers when it is in use again, with its new size', async () => {
    const id = await attached()
    await extend(id)
    await harness.settled()
    expect(await show(id)).toMatchObject({ status: 'in-use', sizeGib: 2 })
    expect(nova.events).toEqual([{ name: 'volume-extended', server_uuid: SERVER, tag: id }])
    expect(await messagesOf(id)).toEqual([])
  })

  it('has grown when Nova refuses to hear of it; a message says that', async () => {
    const id = await attached()
    nova.answerNext({ status: 404 })
    await extend(id)
    await harness.settled()
    expect(await show(id)).toMatchObject({ status: 'in-use', sizeGib: 2 })
    expect(nova.calls).toHaveLength(1)
    expect((await messagesOf(id)).map(({ text }) => text)).toEqual([
      'extend volume:Compute service failed to extend volume.',
    ])
  })

  it('is told once more when Nova was away', async () => {
    const id = await attached()
    nova.answerNext({ status: 503 })
    await extend(id)
    await harness.settled()
    expect(nova.events).toEqual([{ name: 'volume-extended', server_uuid: SERVER, tag: id }])
    expect(await messagesOf(id)).toEqual([])
  })

  it('is told by the next process when this one ends before', async () => {
    const patient = { ...TEST_SETTINGS.work, backoffMs: 3_600_000, backoffMaxMs: 3_600_000 }
    const first = await createHarness({ ...options, settings: { work: patient } })
    const id = await attached(SERVER, first)
    nova.answerNext({ status: 503 })
    await extend(id, first)
    const waiting = { next_step: 'notify', attempt: 2 }
    await vi.waitFor(async () => expect(await first.db('work')).toMatchObject([waiting]), { timeout: 30_000 })
    expect(await show(id, first)).toMatchObject({ status: 'in-use', sizeGib: 2 })
    await first.services.stop()
    expect(nova.events).toEqual([])
    await (await first.reopen({ ...options, settings: {} })).settled()
    expect(nova.events).toEqual([{ name: 'volume-extended', server_uuid: SERVER, tag: id }])
  })

  it('is nobody’s news when no server has it', async () => {
    const without = await attached(null)
    await extend(without)
    const available = await availableVolume(harness)
    await harness.services.volumes.extend(member, available, 2, { inUse: true })
    await harness.settled()
    expect(await show(without)).toMatchObject({ status: 'in-use', sizeGib: 2 })
    expect(nova.calls).toEqual([])
    expect(nova.tokensAsked()).toBe(0)
  })
})

describe('a volume that gets another image', () => {
  const reimage = (id: string, reserved: boolean) =>
    harness.services.volumes.reimage(member, id, { imageId: glance.add(Buffer.alloc(1024 * 1024, 7)), reserved })

  it('is told to the server that it is reserved for', async () => {
    const id = await availableVolume(harness)
    await harness.services.attachments.create(member, newAttachment(id, { instanceId: SERVER }))
    await reimage(id, true)
    await harness.settled()
    expect((await show(id)).status).toBe('reserved')
    expect(nova.events).toEqual([{ name: 'volume-reimaged', server_uuid: SERVER, tag: id }])
  })

  it('has it when Nova refuses to hear of it; a message says that', async () => {
    const id = await availableVolume(harness)
    await harness.services.attachments.create(member, newAttachment(id, { instanceId: SERVER }))
    nova.answerNext({ status: 403 })
    await reimage(id, true)
    await harness.settled()
    expect((await show(id)).status).toBe('reserved')
    expect((await messagesOf(id)).map(({ text }) => text)).toEqual([
      'reimage volume:Compute service failed to reimage volume.',
    ])
  })

  it('is nobody’s news when no server waits for it', async () => {
    const id = await availableVolume(harness)
    await reimage(id, false)
    await harness.settled()
    expect((await show(id)).status).toBe('available')
    expect(nova.calls).toEqual([])
  })
})

describe('an attachment that Nova made', () => {
  const guarded = async () => {
    const { services } = await createHarness({ ...options, settings: { protectInstances: true } })
    const { id } = await services.volumes.create(member, newVolume())
    await services.idle()
    const connector = { host: 'compute-1' }
    const attachment = await services.attachments.create(member, newAttachment(id, { connector, instanceId: SERVER }))
    await services.attachments.complete(member, attachment.id)
    const attempts = [
      () => services.attachments.delete(member, attachment.id),
      () => services.connections.terminate(admin, id, null),
      () => services.connections.detach(admin, id, attachment.id),
      () => services.connections.forceDetach(admin, id, { attachmentId: null, connector: null }),
    ]
    return { services, id, attachmentId: attachment.id, attempts }
  }

  it('stays while its server has the volume by it, and while Nova does not say', async () => {
    const { services, id, attachmentId, attempts } = await guarded()
    nova.servers.set(SERVER, new Map([[id, { attachmentId, connection: {} }]]))
    for (const attempt of attempts) {
      expect(await outcome(attempt())).toBe('ResourceConflict')
      nova.answerNext({ status: 406 }) // one that does not know attachments
      expect(await outcome(attempt())).toBe('ResourceConflict')
      nova.answerNext({ status: 503 })
      expect(await outcome(attempt())).toBe('ServiceUnavailable')
    }
    expect(await outcome(services.attachments.delete(stranger, attachmentId))).toBe('AttachmentNotFound')
    expect(nova.calls).toHaveLength(3 * attempts.length)
    expect(await services.volumes.get(member, id)).toMatchObject({
      status: 'in-use',
      attachments: [{ id: attachmentId }],
    })
  })

  it.each([0, 2, 3])('goes when its server is gone, or has the volume by another (%i)', async (which) => {
    const { services, id, attempts } = await guarded()
    if (which === 2) nova.servers.set(SERVER, new Map([[id, { attachmentId: 'another', connection: {} }]]))
    await attempts[which]!()
    await services.idle()
    expect(await services.volumes.get(member, id)).toMatchObject({ status: 'available', attachments: [] })
  })
})
