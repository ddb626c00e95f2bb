import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { systemRandom } from '../../src/runtime/random.ts'
import { createSeal, SEAL_KEY_BYTES } from '../../src/services/seal.ts'
import { startFakeGlance } from '../tools/fake-glance.ts'
import { imageOptions } from '../tools/image-options.ts'
import { contextOf, createHarness, newVolume } from './harness.ts'

/** Secrets of users that wait in the database. */

const newSeal = () => createSeal(systemRandom.bytes(SEAL_KEY_BYTES), systemRandom)
const otherKey = expect.objectContaining({
  code: 'ServiceUnavailable',
  message: expect.stringContaining('another key'),
})

describe('a sealed secret', () => {
  it('is read by whoever has the key, and does not show itself', () => {
    const key = systemRandom.bytes(SEAL_KEY_BYTES)
    const [one, other] = [createSeal(key, systemRandom), createSeal(key, systemRandom)]
    fc.assert(
      fc.property(fc.string({ unit: 'binary', minLength: 3, maxLength: 200 }), (text) => {
        const secret = Buffer.from(text).toString() // tokens are whole characters
        const sealed = one.seal(secret)
        expect(other.open(sealed)).toBe(secret)
        expect(one.seal(secret)).not.toBe(sealed)
        expect(Buffer.from(sealed.split('.')[2]!, 'base64url').includes(secret)).toBe(false)
      }),
    )
  })

  it('is not read with another key', () => {
    const sealed = newSeal().seal('secret')
    expect(() => newSeal().open(sealed)).toThrow(otherKey)
  })

  it('is not read when a bit of it was changed', () => {
    const seal = newSeal()
    const sealed = seal.seal('secret')
    const [format, keyId, text] = sealed.split('.') as [string, string, string]
    const bytes = Buffer.from(text, 'base64url')
    for (let at = 0; at < bytes.length; at++) {
      const changed = Buffer.from(bytes)
      changed[at]! ^= 1
      expect(() => seal.open(`${format}.${keyId}.${changed.toString('base64url')}`)).toThrow('damaged')
    }
    expect(() => seal.open(`${format}.${keyId}.`)).toThrow('damaged')
    expect(() => seal.open('')).toThrow(otherKey)
  })
})

describe('the token of a user whose image is on its way', () => {
  const content = systemRandom.bytes(3 * 1024 * 1024)
  const owner = contextOf({ token: 'the-token-of-the-owner' })

  /** A volume from an image whose work nobody has begun, since the process stops. */
  async function waitingVolume() {
    const glance = await startFakeGlance()
    const options = imageOptions(glance.url)
    const stopped = await createHarness({ images: options })
    await stopped.services.stop()
    const imageRef = glance.add(content)
    const { id } = await stopped.services.volumes.create(owner, newVolume({ imageRef }))
    const goOn = async (images = options) => {
      const harness = await stopped.reopen({ images })
      await harness.settled()
      return harness.db('volumes').where({ id }).first()
    }
    return { glance, db: stopped.db, imageRef, goOn }
  }

  it('is nowhere in the database, and is what the image service is asked with', async () => {
    const { glance, db, imageRef, goOn } = await waitingVolume()
    const rows = JSON.stringify(await db('work'))
    expect(rows).toContain(imageRef)
    expect(rows).not.toContain(owner.token)
    expect(await goOn()).toMatchObject({ status: 'available', status_reason: null })
    expect([...glance.tokens]).toEqual([owner.token])
  })

  it('that another key sealed ends the work, in a status that says why', async () => {
    const { glance, goOn } = await waitingVolume()
    const reason = expect.stringContaining('another key')
    expect(await goOn(imageOptions(glance.url))).toMatchObject({ status: 'error', status_reason: reason })
  })

  it('that an earlier version wrote as it was is taken as it is', async () => {
    const { glance, db, goOn } = await waitingVolume()
    const { params } = await db('work').first()
    const { sealedToken: _, ...others } = JSON.parse(params)
    await db('work').update({ params: JSON.stringify({ ...others, token: 'as it was' }) })
    expect(await goOn()).toMatchObject({ status: 'available' })
    expect([...glance.tokens]).toEqual([owner.token, 'as it was'])
  })
})
