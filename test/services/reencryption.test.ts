import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { VolumeData } from '../../src/drivers/driver.ts'
import { createMemoryBackend, createMemoryDriver } from '../../src/drivers/memory.ts'
import {
  type CallMatcher,
  type DriverFilter,
  errorFilter,
  nthCall,
  onMethod,
  wrapDriver,
} from '../../src/drivers/wrappers.ts'
import { ServiceError } from '../../src/errors.ts'
import { PAYLOAD_OFFSET_BYTES } from '../../src/luks/luks1.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import type { Volume } from '../../src/services/model.ts'
import { requireCommand } from '../tools/require-command.ts'
import {
  encryptedType,
  GIB_BYTES,
  IN_CLEAR,
  made,
  openGuest,
  openSmall,
  passphraseOf,
  readAll,
  smallVolumes,
} from './encrypted-world.ts'
import {
  admin,
  createGate,
  everything,
  type Harness,
  keptUsage,
  member,
  newAttachment,
  newSnapshot,
  outcome,
  recount,
  TEST_SETTINGS,
} from './harness.ts'

import { expectAsBefore, expectNothingLeft, keyIds, open, order, retyped, show } from './reencryption-world.ts'

/** Retypes between types that are encrypted in different ways: what a guest sees stays, and nothing else does. */

const MIB = 1024 * 1024
const ROOM_BYTES = GIB_BYTES - PAYLOAD_OFFSET_BYTES
const run = promisify(execFile)
const withQemu = requireCommand('qemu-img', 'qemu-utils')

async function decryptedByQemu(bytes: Buffer, passphrase: string): Promise<Buffer> {
  const directory = mkdtempSync(path.join(tmpdir(), 'collie-reencryption-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const [volume, secret, raw] = ['volume', 'passphrase', 'raw'].map((name) => path.join(directory, name))
  writeFileSync(volume!, bytes)
  writeFileSync(secret!, passphrase)
  const from = `driver=luks,key-secret=key,file.filename=${volume}`
  await run('qemu-img', [
    'convert',
    ...['--object', `secret,id=key,file=${secret}`],
    ...['--image-opts', from, '-O', 'raw', raw!],
  ])
  return readFileSync(raw!)
}

/** Data at both ends and between, of any alignment, with holes and written zeros; answers what the guest sees then. */
async function fill(data: VolumeData, endBytes: number): Promise<Buffer> {
  const parts: [number, Buffer][] = [
    [0, randomBytes(5000)],
    [MIB + 100, Buffer.alloc(64 * 1024)],
    [2 * MIB - 700, randomBytes(MIB + 77)],
    [endBytes - 1000, randomBytes(1000)],
  ]
  const seen = Buffer.alloc(data.sizeBytes)
  for (const [offset, bytes] of parts) {
    await data.write(offset, bytes)
    bytes.copy(seen, offset)
  }
  return seen
}

/** One that a guest has overwritten from end to end, so that none of it is noise. */
async function filledEncrypted(harness: Harness, volumeType: string): Promise<{ volume: Volume; seen: Buffer }> {
  const volume = await made(harness, { volumeType })
  const data = await openGuest(harness, volume)
  await data.discard(0, data.sizeBytes)
  return { volume, seen: await fill(data, data.sizeBytes) }
}

/** What is written to the volume that such a call opens gets there once it is let through. */
function lateWrites(matcher: CallMatcher) {
  let open = () => {}
  let end = () => {}
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  const written = new Promise<void>((resolve) => {
    end = resolve
  })
  const filter: DriverFilter = {
    around: async (call, next) => {
      const isLate = matcher.matches(call)
      const answer = await next()
      if (!isLate) return answer
      const data = answer as VolumeData
      const write = (offset: number, source: Buffer) => opened.then(() => data.write(offset, source)).finally(end)
      return Object.create(data, { write: { value: write } })
    },
  }
  return { filter, open, written }
}

const messagesOf = async ({ services }: Harness, id: string) =>
  (await services.messages.list(member, { ...everything, filters: { resource_uuid: id } })).items.map(
    ({ text }) => text,
  )

describe('a volume in the clear that gets an encrypted type', () => {
  it('shows its guest what it did, its holes too, and goes on under its id with a key', async () => {
    const harness = await open()
    const before = await made(harness, {})
    const seen = await fill(await openSmall(harness.backend, before), ROOM_BYTES)
    const volume = await retyped(harness, before, await encryptedType(harness))
    expect(volume).toMatchObject({
      id: before.id,
      status: 'available',
      volumeTypeName: 'LUKS',
      host: before.host,
      migrationStatus: 'success',
      encryptionKeyId: expect.any(String),
    })
    expect((await readAll(await openGuest(harness, volume))).equals(seen.subarray(0, ROOM_BYTES))).toBe(true)
    expect((await readAll(await openSmall(harness.backend, volume))).includes(seen.subarray(0, 512))).toBe(false)
    await expectNothingLeft(harness, volume)
    await harness.services.volumes.delete(member, volume.id, { cascade: false, force: false })
    await harness.settled()
    expect([harness.backend.volumes.size, await keyIds(harness)]).toEqual([0, []])
  })

  for (const [cipher, keySize] of [
    ['aes-xts-plain64', 512],
    ['aes-cbc-essiv:sha256', 256],
  ] as const) {
    withQemu(`is opened by QEMU, with ${cipher} of ${keySize} bits`, async () => {
      const harness = await open()
      const before = await made(harness, {})
      const seen = await fill(await openSmall(harness.backend, before), ROOM_BYTES)
      const volume = await retyped(harness, before, await encryptedType(harness, { cipher, keySize }))
      const bytes = await readAll(await openSmall(harness.backend, volume))
      const byQemu = await decryptedByQemu(bytes, await passphraseOf(harness, volume))
      expect(byQemu.equals(seen.subarray(0, ROOM_BYTES))).toBe(true)
    })
  }

  it('has room for the header, or stays what it is until it was extended', async () => {
    const harness = await open()
    const before = await made(harness, {})
    const data = await openSmall(harness.backend, before)
    const seen = await fill(data, ROOM_BYTES + 1)
    const newType = await encryptedType(harness)
    expect(await retyped(harness, before, newType)).toMatchObject({ encryptionKeyId: null })
    await expectAsBefore(harness, before, 'Extend it by 1 GiB, and ask again.')
    expect((await readAll(data)).equals(seen)).toBe(true)
    expect(await messagesOf(harness, before.id)).toEqual([
      expect.stringMatching(/^retype volume:An encrypted volume has 2 MiB less .* Extend it by 1 GiB first\.$/),
    ])
    await harness.services.volumes.extend(member, before.id, 2)
    await harness.settled()
    const volume = await retyped(harness, before, newType)
    expect(volume).toMatchObject({ volumeTypeName: 'LUKS', migrationStatus: 'success' })
    expect((await harness.services.explain(before.id))?.reason).toBeNull()
    const content = await readAll(await openGuest(harness, volume))
    expect(content.equals(Buffer.concat([seen, Buffer.alloc(ROOM_BYTES)]))).toBe(true)
    await expectNothingLeft(harness, volume)
  })

  it('is copied in many steps, each of which is told', async () => {
    const harness = await open()
    const before = await made(harness, { sizeGib: 10 })
    const seen = await fill(await openSmall(harness.backend, before), 10 * GIB_BYTES - PAYLOAD_OFFSET_BYTES)
    const gate = createGate(nthCall(5, onMethod('openVolume'))) // after that of the check, that of the header, and those of a step
    const slow = await harness.reopen({ filters: [gate.filter, smallVolumes] })
    await harness.services.stop()
    await order(slow, before, await encryptedType(slow))
    await gate.reached
    expect((await slow.services.explain(before.id))?.work).toMatchObject({
      kind: 'volume-reencrypt',
      step: `copy@${64 * MIB}`,
    })
    expect(await show(slow, before)).toMatchObject({ status: 'retyping', migrationStatus: 'migrating' })
    gate.open()
    await slow.settled()
    const content = await readAll(await openGuest(slow, await show(slow, before)))
    expect(content.equals(seen.subarray(0, content.length))).toBe(true)
  })

  it('goes to a backend that suits the type', async () => {
    const driver = createMemoryDriver(createMemoryBackend(), systemRandom)
    const others = [{ name: 'other', availabilityZone: 'nova', driver: wrapDriver(driver, smallVolumes) }]
    const harness = await open({ others })
    const before = await made(harness, {})
    const volume = await retyped(
      harness,
      before,
      await encryptedType(harness, {}, 'there', { volume_backend_name: 'other' }),
    )
    expect(volume).toMatchObject({ status: 'available', host: 'test-host@other#memory', volumeTypeName: 'there' })
    expect(harness.backend.volumes.size).toBe(0)
    const back = await retyped(harness, volume, IN_CLEAR)
    expect(back.host).toBe('test-host@other#memory') // which suits that, too
  })

  it('stays what it is when no backend has the room that all of it takes', async () => {
    const driver = createMemoryDriver(createMemoryBackend(20), systemRandom)
    const others = [{ name: 'other', availabilityZone: 'nova', driver: wrapDriver(driver, smallVolumes) }]
    const harness = await open({ others })
    const before = await made(harness, { sizeGib: 21 })
    const newType = await encryptedType(harness, {}, 'there', { volume_backend_name: 'other' })
    expect((await retyped(harness, before, newType)).host).toBe(before.host)
    await expectAsBefore(harness, before, '21 GiB, all to be written, do not fit into 20 GiB free')
    expect(await messagesOf(harness, before.id)).toEqual([
      'retype volume:Could not find any available weighted backend.',
    ])
  })
})

describe('an encrypted volume that gets a type in the clear', () => {
  it('shows its guest what it did, and zeros where the header was', async () => {
    const harness = await open()
    const { volume: before, seen } = await filledEncrypted(harness, await encryptedType(harness))
    const volume = await retyped(harness, before, IN_CLEAR)
    expect(volume).toMatchObject({ status: 'available', volumeTypeName: IN_CLEAR, encryptionKeyId: null })
    const content = await readAll(await openSmall(harness.backend, volume))
    expect(content.equals(Buffer.concat([seen, Buffer.alloc(PAYLOAD_OFFSET_BYTES)]))).toBe(true)
    await expectNothingLeft(harness, volume)
  })

  it('takes no room for zeros, nor for what was never written', async () => {
    const harness = await open()
    const before = await made(harness, { volumeType: await encryptedType(harness) })
    const guest = await openGuest(harness, before)
    await guest.write(MIB, Buffer.alloc(MIB))
    await guest.write(3 * MIB, randomBytes(8192))
    const { nameId } = await retyped(harness, before, IN_CLEAR)
    expect(harness.backend.volumes.get(nameId!)!.blocks.size).toBe(2)
  })

  it('stays what it is when its header cannot be opened', async () => {
    const harness = await open()
    const before = await made(harness, { volumeType: await encryptedType(harness) })
    await (await openSmall(harness.backend, before)).write(0, Buffer.alloc(4096))
    await retyped(harness, before, IN_CLEAR)
    await expectAsBefore(harness, before, 'it does not begin with a LUKS header')
    expect(await messagesOf(harness, before.id)).toEqual([
      'retype volume:The volume could not be encrypted as the type says, or decrypted; it is as it was.',
    ])
  })
})

it('an encrypted volume that is encrypted in another way shows its guest what it did, with another key', async () => {
  const harness = await open()
  const { volume: before, seen } = await filledEncrypted(harness, await encryptedType(harness))
  const volume = await retyped(harness, before, await encryptedType(harness, { keySize: 512 }, 'longer'))
  expect(volume.encryptionKeyId).not.toBe(before.encryptionKeyId)
  expect((await readAll(await openGuest(harness, volume))).equals(seen)).toBe(true)
  expect(await passphraseOf(harness, volume)).toHaveLength(128)
  await expectNothingLeft(harness, volume)
})

describe('a retype to a type that is encrypted in another way is refused', () => {
  it('while the volume is in use', async () => {
    const harness = await open()
    const volume = await made(harness, {})
    const { services } = harness
    const connected = newAttachment(volume.id, { connector: { host: 'compute' } })
    const { id } = await services.attachments.create(member, connected)
    await services.attachments.complete(member, id)
    await expect(order(harness, volume, await encryptedType(harness))).rejects.toThrow('Detach it first.')
    expect(await show(harness, volume)).toMatchObject({ status: 'in-use', migrationStatus: null })
    expect(await keyIds(harness)).toEqual([])
    expect(await keptUsage(harness.db)).toEqual(await recount(harness.db))
  })

  it('for a volume that has snapshots, or must not be migrated, by the work', async () => {
    const harness = await open()
    const { services, db } = harness
    const volume = await made(harness, {})
    const newType = await encryptedType(harness)
    const reasonOf = async () => {
      await harness.settled()
      return (await db('volumes').where({ id: volume.id }).first()).status_reason
    }
    await services.volumes.retype(member, volume.id, { newType, migrationPolicy: 'never' })
    expect(await reasonOf()).toContain('Retype requires migration but is not allowed.')
    const snapshot = await services.snapshots.create(member, newSnapshot(volume.id))
    await services.idle()
    await order(harness, volume, newType)
    expect(await reasonOf()).toContain('it must not have snapshots')
    expect(await show(harness, volume)).toMatchObject({ status: 'available', volumeTypeName: IN_CLEAR })
    await services.snapshots.delete(member, snapshot.id)
    await services.idle()
    expect(await keyIds(harness)).toEqual([])
    await expectNothingLeft(harness, volume)
  })

  it('without room in the quota of the type, and leaves no key', async () => {
    const harness = await open()
    const volume = await made(harness, {})
    const newType = await encryptedType(harness)
    await harness.services.quotas.update(admin, 'project', { [`volumes_${newType}`]: 0 })
    await expect(order(harness, volume, newType)).rejects.toThrow('VolumeLimitExceeded')
    expect(await keyIds(harness)).toEqual([])
  })

  it('by whoever may not read the key', async () => {
    const harness = await open()
    const volume = await made(harness, { volumeType: await encryptedType(harness) })
    await expect(order(harness, volume, IN_CLEAR, admin)).rejects.toThrow('Key manager error')
    expect(await show(harness, volume)).toMatchObject({ status: 'available', volumeTypeName: 'LUKS' })
  })

  it('for a type that nothing here encrypts as', async () => {
    const harness = await open()
    const volume = await made(harness, {})
    const newType = await encryptedType(harness, { provider: 'luks2' }, 'LUKS2')
    await expect(order(harness, volume, newType)).rejects.toThrow('Provider luks2 not supported.')
    await expectNothingLeft(harness, volume)
  })
})

it('a header that is written late, by an attempt that was given up, does no harm', async () => {
  const harness = await open()
  const before = await made(harness, {})
  const seen = await fill(await openSmall(harness.backend, before), ROOM_BYTES)
  const late = lateWrites(nthCall(2, onMethod('openVolume')))
  const work = { ...TEST_SETTINGS.work, attemptTimeoutMs: 1000 }
  const slow = await harness.reopen({ filters: [late.filter, smallVolumes], settings: { work } })
  await harness.services.stop()
  const volume = await retyped(slow, before, await encryptedType(slow))
  expect(volume).toMatchObject({ migrationStatus: 'success' })
  late.open()
  await late.written
  expect((await readAll(await openGuest(slow, volume))).equals(seen.subarray(0, ROOM_BYTES))).toBe(true)
})

it('what an attempt that was given up has open still is deleted when that is closed', async () => {
  const harness = await open()
  const before = await made(harness, { volumeType: await encryptedType(harness) })
  const isOpen = () => new ServiceError('InvalidVolume', { reason: 'it is open' })
  const deletion = (number: number) => errorFilter(nthCall(number, onMethod('deleteVolume')), 'before', isOpen)
  // The first one, before the target is made, and the next one but one that the others let through: that of the source.
  const busy = await harness.reopen({ filters: [deletion(1), deletion(2), smallVolumes] })
  await harness.services.stop()
  const volume = await retyped(busy, before, IN_CLEAR)
  expect(volume).toMatchObject({ status: 'available', migrationStatus: 'success' })
  await expectNothingLeft(busy, volume)
})

it('one that an administrator breaks off leaves the target, which its owner deletes with its key', async () => {
  const harness = await open()
  const before = await made(harness, {})
  const gate = createGate(nthCall(4, onMethod('openVolume')))
  const slow = await harness.reopen({ filters: [gate.filter, smallVolumes] })
  await harness.services.stop()
  const { volumes } = slow.services
  await order(slow, before, await encryptedType(slow))
  await gate.reached
  await volumes.resetStatus(admin, before.id, 'available')
  gate.open()
  await slow.settled()
  expect(await show(slow, before)).toMatchObject({
    status: 'available',
    migrationStatus: 'error',
    encryptionKeyId: null,
  })
  const { id } = await slow.db('volumes').whereNot({ id: before.id }).first()
  expect(await volumes.get(member, id)).toMatchObject({ status: 'error', migrationStatus: 'deleting' })
  expect(await outcome(volumes.delete(member, id, { cascade: false, force: false }))).toBe('done')
  await slow.settled()
  await expectNothingLeft(slow, await show(slow, before))
})
