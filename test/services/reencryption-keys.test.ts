import { describe, expect, it } from 'vitest'
import { errorFilter, onMethod } from '../../src/drivers/wrappers.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { createSeal, SEAL_KEY_BYTES } from '../../src/services/seal.ts'
import { encryptedType, IN_CLEAR, keysElsewhere, made, smallVolumes } from './encrypted-world.ts'
import { admin, contextOf, createGate, type HarnessOptions, member } from './harness.ts'
import { expectAsBefore, open, order, show } from './reencryption-world.ts'

/** Whose keys those are that a retype makes, and needs. */

it('an administrator gives a volume of another project a key that is that project’s', async () => {
  const harness = await open()
  const before = await made(harness, {})
  await order(harness, before, await encryptedType(harness), admin)
  await harness.settled()
  const volume = await show(harness, before)
  expect((await harness.services.keys.get(member, volume.encryptionKeyId!)).userId).toBe(member.userId)
})

describe('where somebody else keeps the keys', () => {
  const asker = contextOf({ token: 'of the asker' })

  async function elsewhere(options: HarnessOptions = {}) {
    const keys = keysElsewhere()
    const seal = createSeal(systemRandom.bytes(SEAL_KEY_BYTES), systemRandom)
    const harness = await open({ keys: { seal, manager: keys.manager }, ...options })
    return { harness, ...keys }
  }

  it('a volume gets a key of whoever asks, and its old one is deleted', async () => {
    const { harness, kept } = await elsewhere()
    const before = await made(harness, { volumeType: await encryptedType(harness) }, asker)
    await order(harness, before, await encryptedType(harness, { keySize: 512 }, 'longer'), asker)
    await harness.settled()
    const volume = await show(harness, before)
    expect([...kept.keys()]).toEqual([volume.encryptionKeyId])
    await order(harness, volume, IN_CLEAR, asker)
    await harness.settled()
    expect(kept.size).toBe(0)
    expect(await show(harness, volume)).toMatchObject({ volumeTypeName: IN_CLEAR, encryptionKeyId: null })
  })

  it('a retype that fails leaves none, nor does one that is refused', async () => {
    const { harness, kept } = await elsewhere()
    const before = await made(harness, {}, asker)
    const newType = await encryptedType(harness)
    const broken = await harness.reopen({ filters: [errorFilter(onMethod('createVolume'), 'after'), smallVolumes] })
    await harness.services.stop()
    await order(broken, before, newType, asker)
    await broken.settled()
    await expectAsBefore(broken, before, 'injected fault')
    expect(kept.size).toBe(0)
    await expect(order(broken, before, newType, admin)).rejects.toThrow(
      'could not read a key that is made with your token',
    )
    expect(kept.size).toBe(0)
  })

  it('what is sealed in another data directory is not gone on with', async () => {
    const { harness, manager } = await elsewhere()
    const before = await made(harness, { volumeType: await encryptedType(harness) }, asker)
    const gate = createGate(onMethod('openVolume'))
    const stuck = await harness.reopen({ filters: [gate.filter, smallVolumes], settings: { stopGraceMs: 0 } })
    await harness.services.stop()
    await order(stuck, before, IN_CLEAR, asker)
    await gate.reached
    await stuck.die()
    const seal = createSeal(systemRandom.bytes(SEAL_KEY_BYTES), systemRandom)
    const next = await harness.reopen({ filters: [smallVolumes], keys: { seal, manager } })
    await next.settled()
    expect(await show(next, before)).toMatchObject({
      status: 'available',
      migrationStatus: 'error',
      encryptionKeyId: before.encryptionKeyId,
    })
    expect([...next.backend.volumes.keys()]).toEqual([before.id])
  })
})
