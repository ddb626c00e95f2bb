import { randomBytes } from 'node:crypto'
import { expect, it } from 'vitest'
import { PAYLOAD_OFFSET_BYTES } from '../../src/luks/luks1.ts'
import type { Volume } from '../../src/services/model.ts'
import { Cutter } from './cutter.ts'
import { encryptedType, GIB_BYTES, IN_CLEAR, made, openGuest, readAll, smallVolumes } from './encrypted-world.ts'
import { admin, createHarness, type Harness, member, outcome, TEST_SETTINGS } from './harness.ts'
import { expectSound } from './scenarios.ts'

const LONGER = 'longer'

/**
 * The process dies at any moment of a retype that encrypts or decrypts, and another one goes on: what the guest sees is the same, and
 * of two copies and two keys one is left. Of `share` moments one is tried; volumes of more than 8 GiB are copied in several steps.
 */
export function describeReencryptionCuts({ sizeGib, share }: { sizeGib: number; share: number }): void {
  it.each([
    { from: IN_CLEAR, to: 'LUKS' },
    { from: 'LUKS', to: IN_CLEAR },
    { from: 'LUKS', to: LONGER },
  ])(
    'a process that dies at any moment of making of $from what is $to loses nothing',
    async ({ from, to }) => {
      const whole = await cut({ from, to, sizeGib }, null)
      expect(whole.volume).toMatchObject({ status: 'available', volumeTypeName: to, migrationStatus: 'success' })
      const openings = whole.moments.filter((moment) => moment === 'before openVolume').length
      expect(openings).toBe(1 + (to === IN_CLEAR ? 0 : 1) + 2 * Math.ceil(sizeGib / 8))
      for (const [at, moment] of whole.moments.entries()) {
        if (at % share !== share - 1) continue
        const { volume } = await cut({ from, to, sizeGib }, at)
        expect([moment, volume.status, volume.volumeTypeName]).toEqual([moment, 'available', at === 0 ? from : to])
      }
    },
    600_000,
  )
}

interface Order {
  from: string
  to: string
  sizeGib: number
}

async function cut({ from, to, sizeGib }: Order, at: number | null): Promise<{ volume: Volume; moments: string[] }> {
  const cutter = new Cutter(at)
  const work = { ...TEST_SETTINGS.work, heartbeatMs: 60_000 } // no beats between the moments
  const settings = { stopGraceMs: 0, work }
  const { filter, wrapDatabase } = cutter
  const doomed = await createHarness({ filters: [filter, smallVolumes], wrapDatabase, settings })
  await encryptedType(doomed)
  await encryptedType(doomed, { keySize: 512 }, LONGER)
  const before = await made(doomed, { volumeType: from, sizeGib })
  const written = await write(doomed, before)
  cutter.begin()
  const request = outcome(
    doomed.services.volumes.retype(member, before.id, { newType: to, migrationPolicy: 'on-demand' }),
  )
  const isCut = await Promise.race([cutter.reached.then(() => true), request.then(() => doomed.settled())])
  if (isCut === true) await doomed.die()
  const last = isCut === true ? await doomed.reopen({ filters: [smallVolumes], settings: { stopGraceMs: 0 } }) : doomed
  await last.settled()
  await expectSound(last)
  const volume = await last.services.volumes.get(admin, before.id)
  await expectWhole(last, volume, written)
  await doomed.end()
  return { volume, moments: cutter.moments }
}

/** From end to end, and of that what is no zeros: at the beginning, in the middle, and as near to the end as there is room in both ways. */
async function write(harness: Harness, volume: Volume): Promise<Map<number, Buffer>> {
  const data = await openGuest(harness, volume)
  const endBytes = volume.sizeGib * GIB_BYTES - PAYLOAD_OFFSET_BYTES
  if (volume.encryptionKeyId !== null) await data.discard(0, data.sizeBytes)
  const written = new Map([0, endBytes / 2, endBytes - 10_000].map((offset) => [offset, randomBytes(10_000)]))
  for (const [offset, bytes] of written) await data.write(offset, bytes)
  return written
}

async function expectWhole(harness: Harness, volume: Volume, written: ReadonlyMap<number, Buffer>): Promise<void> {
  const { db, backend } = harness
  const content = await readAll(await openGuest(harness, volume))
  for (const [offset, bytes] of written) {
    expect(content.subarray(offset, offset + bytes.length).equals(bytes)).toBe(true)
  }
  expect([...backend.volumes.keys()]).toEqual([volume.nameId ?? volume.id])
  expect(await db('volumes').pluck('id')).toEqual([volume.id])
  expect(await db('encryption_keys').pluck('id')).toEqual([volume.encryptionKeyId].filter((id) => id !== null))
}
