import { describe, expect, it } from 'vitest'
import { createMemoryDriver } from '../../src/drivers/memory.ts'
import { type DriverFilter, errorFilter, firstCalls, onMethod } from '../../src/drivers/wrappers.ts'
import { ServiceError } from '../../src/errors.ts'
import { PAYLOAD_OFFSET_BYTES, unlockLuks } from '../../src/luks/luks1.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import type { Volume } from '../../src/services/model.ts'
import { createSeal, SEAL_KEY_BYTES } from '../../src/services/seal.ts'
import { encryptedType, IN_CLEAR, keysElsewhere, made } from './encrypted-world.ts'
import {
  admin,
  contextOf,
  createHarness,
  type Harness,
  member,
  newAttachment,
  newBackup,
  newSnapshot,
  newVolume,
  stranger,
  TEST_SETTINGS,
} from './harness.ts'

const dataOf = (harness: Harness, id: string) =>
  createMemoryDriver(harness.backend, systemRandom).openVolume({ id, sizeGib: 1 })

/** What opens the volume as Nova would: with the key under the id that the API tells. */
async function masterKeyOf(harness: Harness, { id, encryptionKeyId }: Volume): Promise<Buffer> {
  const head = Buffer.alloc(PAYLOAD_OFFSET_BYTES)
  await (await dataOf(harness, id)).read(0, head)
  const { secret } = await harness.services.keys.payload(member, encryptionKeyId!)
  return (await unlockLuks(head, secret.toString('hex'))).key
}

const keyIds = async ({ db }: Harness): Promise<string[]> => db('encryption_keys').pluck('id')

describe('a volume of an encrypted type', () => {
  it('has a key, and a header that the key opens', async () => {
    const harness = await createHarness()
    const volume = await made(harness, { volumeType: await encryptedType(harness) })
    expect(volume).toMatchObject({ status: 'available', encryptionKeyId: expect.any(String) })
    expect(await harness.services.volumes.encryption(member, volume.id)).toEqual({
      encryption_key_id: volume.encryptionKeyId,
      provider: 'luks',
      cipher: 'aes-xts-plain64',
      key_size: 256,
      control_location: 'front-end',
    })
    expect(await masterKeyOf(harness, volume)).toHaveLength(32)
  })

  it('tells whoever attaches it that it is encrypted', async () => {
    const harness = await createHarness()
    const volume = await made(harness, { volumeType: await encryptedType(harness) })
    const attachment = await harness.services.attachments.create(
      member,
      newAttachment(volume.id, { connector: { host: 'compute' } }),
    )
    expect(attachment.connectionInfo).toMatchObject({ encrypted: true })
  })

  it('is formatted once more when the process ended before that was known', async () => {
    const harness = await createHarness({
      filters: [errorFilter(firstCalls(2, onMethod('openVolume')), 'after')],
    })
    const volume = await made(harness, { volumeType: await encryptedType(harness) })
    expect(volume.status).toBe('available')
    await masterKeyOf(harness, volume)
  })

  it('takes its key with it', async () => {
    const harness = await createHarness()
    const volume = await made(harness, { volumeType: await encryptedType(harness) })
    expect(await keyIds(harness)).toEqual([volume.encryptionKeyId])
    await harness.services.volumes.delete(member, volume.id, { cascade: false, force: false })
    await harness.services.idle()
    expect(await keyIds(harness)).toEqual([])
  })

  it('leaves no key behind when it is refused', async () => {
    const harness = await createHarness({ settings: { quota: { ...TEST_SETTINGS.quota, volumes: 0 } } })
    const request = newVolume({ volumeType: await encryptedType(harness) })
    await expect(harness.services.volumes.create(member, request)).rejects.toThrow('VolumeLimitExceeded')
    expect(await keyIds(harness)).toEqual([])
  })

  it.each([
    [{ provider: 'luks2' }, 'Invalid volume type: Provider luks2 not supported.'],
    [{ provider: 'plain' }, 'Invalid volume type: Provider plain not supported.'],
    [{ cipher: null }, 'Invalid volume type: Invalid encryption spec'],
    [{ keySize: null }, 'Invalid volume type: Invalid encryption spec'],
    [{ cipher: 'serpent-xts-plain64' }, 'there is no cipher serpent-xts-plain64 with keys of 256 bits'],
    [{ keySize: 100 }, 'there is no cipher aes-xts-plain64 with keys of 100 bits'],
    [{ controlLocation: 'back-end' }, 'only the front-end encrypts here'],
  ])('is not made in the clear when nothing here can encrypt it: %o', async (encryption, complaint) => {
    const harness = await createHarness()
    const request = newVolume({ volumeType: await encryptedType(harness, encryption) })
    await expect(harness.services.volumes.create(member, request)).rejects.toThrow(complaint)
    expect(await harness.db('volumes')).toEqual([])
  })

  it('is not made without a key manager', async () => {
    const harness = await createHarness({ keys: null })
    const request = newVolume({ volumeType: await encryptedType(harness) })
    await expect(harness.services.volumes.create(member, request)).rejects.toThrow('Key manager error')
  })

  it('is not unmanaged', async () => {
    const harness = await createHarness()
    const volume = await made(harness, { volumeType: await encryptedType(harness) })
    await expect(harness.services.volumes.unmanage(admin, volume.id)).rejects.toThrow(
      'Unmanaging encrypted volumes is not supported.',
    )
  })
})

describe('what is made of an encrypted volume', () => {
  it('opens with the same key under an id of its own, which outlives the original', async () => {
    const harness = await createHarness()
    const { services } = harness
    const original = await made(harness, { volumeType: await encryptedType(harness) })
    const key = await masterKeyOf(harness, original)
    const snapshot = await services.snapshots.create(member, newSnapshot(original.id))
    await services.idle()
    const restored = await made(harness, { snapshotId: snapshot.id, sizeGib: 2 })
    const clone = await made(harness, { sourceVolid: original.id })
    expect(new Set([original, restored, clone].map(({ encryptionKeyId }) => encryptionKeyId)).size).toBe(3)
    await services.snapshots.delete(member, snapshot.id)
    await services.idle()
    await services.volumes.delete(member, original.id, { cascade: false, force: false })
    await services.idle()
    expect(await masterKeyOf(harness, restored)).toEqual(key)
    expect(await masterKeyOf(harness, clone)).toEqual(key)
  })

  it('is encrypted in the same way', async () => {
    const harness = await createHarness()
    const original = await made(harness, { volumeType: await encryptedType(harness) })
    const plain = await made(harness, {})
    for (const [sourceVolid, volumeType] of [
      [original.id, IN_CLEAR],
      [original.id, await encryptedType(harness, { keySize: 512 }, 'long')],
      [plain.id, 'LUKS'],
    ] as const)
      await expect(harness.services.volumes.create(member, newVolume({ sourceVolid, volumeType }))).rejects.toThrow(
        'requested type is not compatible; either match source volume, or omit type argument',
      )
    const same = await encryptedType(harness, {}, 'same')
    expect((await made(harness, { sourceVolid: original.id, volumeType: same })).status).toBe('available')
  })

  it('is a group of copies, each with a key of its own', async () => {
    const harness = await createHarness()
    const { services, db } = harness
    const volumeType = await encryptedType(harness)
    await services.groupTypes.create(admin, { name: 'plain', description: null, isPublic: true, groupSpecs: {} })
    const group = {
      name: 'g',
      description: null,
      groupType: 'plain',
      volumeTypes: [volumeType],
      availabilityZone: null,
    }
    const { id: sourceGroupId } = await services.groups.create(member, group)
    await services.idle()
    const original = await made(harness, { volumeType, groupId: sourceGroupId })
    const order = { name: null, description: null, groupSnapshotId: null, sourceGroupId }
    const { id: groupId } = await services.groups.createCopy(member, order)
    await harness.settled()
    const { id } = await db('volumes').where({ group_id: groupId }).first()
    const copy = await services.volumes.get(member, id)
    expect(copy.encryptionKeyId).not.toBe(original.encryptionKeyId)
    expect(await masterKeyOf(harness, copy)).toEqual(await masterKeyOf(harness, original))
    await services.groups.delete(member, groupId, { withVolumes: true })
    await harness.settled()
    expect(await keyIds(harness)).toEqual([original.encryptionKeyId])
  })

  it('is not made by those who may not read the key', async () => {
    const harness = await createHarness()
    const original = await made(harness, { volumeType: await encryptedType(harness) })
    const abroad = { ...admin, projectId: 'elsewhere' }
    const request = newVolume({ sourceVolid: original.id })
    await expect(harness.services.volumes.create(abroad, request)).rejects.toThrow('Key manager error')
  })

  it('goes to another project with its key', async () => {
    const harness = await createHarness()
    const { services } = harness
    const volume = await made(harness, { volumeType: await encryptedType(harness) })
    const order = { volumeId: volume.id, name: null, noSnapshots: false }
    await expect(services.transfers.create(member, { ...order, allowEncrypted: false })).rejects.toThrow(
      'transferring encrypted volume is not supported',
    )
    const { id, authKey } = await services.transfers.create(member, { ...order, allowEncrypted: true })
    await services.transfers.accept(stranger, id, authKey)
    await expect(services.keys.payload(member, volume.encryptionKeyId!)).rejects.toThrow('could not be found')
    expect((await services.keys.payload(stranger, volume.encryptionKeyId!)).secret).toHaveLength(32)
  })
})

describe('an encrypted volume of which somebody else keeps the key', () => {
  const [giver, taker] = [
    contextOf({ token: 'of the giver' }),
    contextOf({ token: 'of the taker', projectId: 'other-project', userId: 'other' }),
  ]

  async function offered() {
    const elsewhere = keysElsewhere()
    const seal = createSeal(systemRandom.bytes(SEAL_KEY_BYTES), systemRandom)
    const harness = await createHarness({ keys: { seal, manager: elsewhere.manager } })
    const volume = await made(harness, { volumeType: await encryptedType(harness) }, giver)
    const order = { volumeId: volume.id, name: null, noSnapshots: false, allowEncrypted: true }
    return { ...elsewhere, harness, volume, order, ...(await harness.services.transfers.create(giver, order)) }
  }

  it('goes to another project with a key of that project, and its old one goes', async () => {
    const { harness, kept, volume, id, authKey } = await offered()
    const { key } = kept.get(volume.encryptionKeyId!)!
    const [row] = await harness.db('volume_transfers')
    expect(row.sealed_key).toMatch(/^1\./)
    expect(row.sealed_key).not.toContain(key.secret.toString('base64'))
    await harness.services.transfers.accept(taker, id, authKey)
    const { encryptionKeyId } = await harness.services.volumes.get(taker, volume.id)
    expect([...kept.keys()]).toEqual([encryptionKeyId])
    expect(kept.get(encryptionKeyId!)).toEqual({ key, projectId: taker.projectId, token: taker.token })
    expect(await harness.db('volume_transfers')).toEqual([])
    await harness.services.volumes.delete(taker, volume.id, { cascade: false, force: false })
    await harness.services.idle()
    expect(kept.size).toBe(0)
  })

  it('keeps the key that it has when nobody takes it', async () => {
    const { harness, kept, volume, id } = await offered()
    await expect(harness.services.transfers.accept(taker, id, 'wrong')).rejects.toThrow('invalid auth key')
    await harness.services.transfers.delete(giver, id)
    expect((await harness.services.volumes.get(giver, volume.id)).encryptionKeyId).toBe(volume.encryptionKeyId)
    expect([...kept.keys()]).toEqual([volume.encryptionKeyId])
  })

  it('has one new owner of several who want it, and the others leave no key', async () => {
    const { harness, kept, volume, id, authKey } = await offered()
    const takers = ['a', 'b', 'c'].map((projectId) => contextOf({ projectId, token: projectId }))
    const ends = await Promise.allSettled(takers.map((one) => harness.services.transfers.accept(one, id, authKey)))
    const winner = takers[ends.findIndex(({ status }) => status === 'fulfilled')]!
    expect(ends.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    const { encryptionKeyId } = await harness.services.volumes.get(winner, volume.id)
    expect([...kept.keys()]).toEqual([encryptionKeyId])
  })

  it('is given away also when the old key cannot be deleted any more', async () => {
    const { harness, kept, volume, id, authKey } = await offered()
    kept.get(volume.encryptionKeyId!)!.token = 'a newer one'
    await harness.services.transfers.accept(taker, id, authKey)
    expect((await harness.services.volumes.get(taker, volume.id)).status).toBe('available')
    expect(kept.size).toBe(2)
  })

  it('is not offered by whoever may not read its key', async () => {
    const { harness, order, id } = await offered()
    await harness.services.transfers.delete(giver, id)
    await expect(harness.services.transfers.create(admin, order)).rejects.toThrow('Key manager error')
    expect((await harness.services.volumes.get(giver, order.volumeId)).status).toBe('available')
  })
})

describe('a backup of an encrypted volume', () => {
  it('has a key of its own, with which it is restored', async () => {
    const harness = await createHarness()
    const { services } = harness
    const volume = await made(harness, { volumeType: await encryptedType(harness) })
    const key = await masterKeyOf(harness, volume)
    const { id } = await services.backups.create(member, newBackup(volume.id))
    await services.idle()
    const backup = await services.backups.get(member, id)
    expect(backup.encryptionKeyId).not.toBe(volume.encryptionKeyId)

    const { volumeId } = await services.backups.restore(member, id, { volumeId: null, name: null })
    await harness.settled()
    const restored = await services.volumes.get(member, volumeId)
    expect(restored.status).toBe('available')
    expect(await masterKeyOf(harness, restored)).toEqual(key)

    const other = await made(harness, { volumeType: 'LUKS' })
    await services.backups.restore(member, id, { volumeId: other.id, name: null })
    await harness.settled()
    expect(await masterKeyOf(harness, await services.volumes.get(member, other.id))).toEqual(key)
    expect(await keyIds(harness)).toHaveLength(4)

    await services.backups.delete(member, id, { force: false })
    await services.idle()
    expect(await keyIds(harness)).toHaveLength(3)
  })

  it('is neither restored in the clear, nor what is in the clear over an encrypted volume', async () => {
    const harness = await createHarness()
    const { services } = harness
    const sealed = await made(harness, { volumeType: await encryptedType(harness) })
    const plain = await made(harness, {})
    for (const [from, to] of [
      [sealed, plain],
      [plain, sealed],
    ] as const) {
      const { id } = await services.backups.create(member, newBackup(from.id))
      await services.idle()
      await expect(services.backups.restore(member, id, { volumeId: to.id, name: null })).rejects.toThrow(
        'of an encrypted type',
      )
      const volumeType = from === sealed ? IN_CLEAR : 'LUKS'
      await expect(services.backups.createVolume(member, id, newVolume({ volumeType }))).rejects.toThrow(
        'of an encrypted type',
      )
    }
    expect(await keyIds(harness)).toHaveLength(2)
  })

  it('leaves a volume its key when restoring it fails, or would take it from its snapshots', async () => {
    let failing = false
    const breaking: DriverFilter = {
      around: async (call, next) => {
        if (failing && call.method === 'openVolume') throw new ServiceError('BackendFailure', { reason: 'broken' })
        return next()
      },
    }
    const harness = await createHarness({
      filters: [breaking],
    })
    const { services } = harness
    const volume = await made(harness, { volumeType: await encryptedType(harness) })
    const { id } = await services.backups.create(member, newBackup(volume.id))
    await services.idle()
    const other = await made(harness, { volumeType: 'LUKS' })
    const before = await keyIds(harness)
    failing = true
    await services.backups.restore(member, id, { volumeId: other.id, name: null })
    await harness.settled()
    expect(await services.volumes.get(member, other.id)).toMatchObject({
      status: 'error_restoring',
      encryptionKeyId: other.encryptionKeyId,
    })
    expect((await keyIds(harness)).sort()).toEqual(before.sort())
    failing = false
    await services.snapshots.create(member, newSnapshot(volume.id))
    await services.idle()
    await expect(services.backups.restore(member, id, { volumeId: volume.id, name: null })).rejects.toThrow(
      'has snapshots',
    )
  })

  it('is imported with a key of its own, as long as the one of the exported backup is there', async () => {
    const harness = await createHarness()
    const { services, db } = harness
    const volume = await made(harness, { volumeType: await encryptedType(harness) })
    const { id } = await services.backups.create(member, newBackup(volume.id))
    await services.idle()
    const record = await services.backups.exportRecord(admin, id)
    await db('backups').delete() // as another cloud with the same key manager
    const imported = await services.backups.importRecord({ ...admin, projectId: member.projectId }, record)
    expect(await keyIds(harness)).toContain(imported.encryptionKeyId)
    await db('backups').delete()
    await db('encryption_keys').delete()
    await expect(services.backups.importRecord(admin, record)).rejects.toThrow('Key manager error')
  })
})

describe('a retype', () => {
  it('between types that are encrypted in the same way leaves a volume its key', async () => {
    const harness = await createHarness()
    const { services } = harness
    const sealed = await made(harness, { volumeType: await encryptedType(harness) })
    const newType = await encryptedType(harness, {}, 'same')
    await services.volumes.retype(member, sealed.id, { newType, migrationPolicy: 'never' })
    await harness.settled()
    const retyped = await services.volumes.get(member, sealed.id)
    expect(retyped).toMatchObject({ volumeTypeName: 'same', encryptionKeyId: sealed.encryptionKeyId })
  })
})
