import { afterAll, beforeAll, expect } from 'vitest'
import { withoutCastellan } from '../tools/castellan.ts'
import { Collie, printLogOfFailures } from '../tools/collie.ts'
import { type Cloud, encryptedCloud } from '../tools/encrypted-cloud.ts'
import { commandExists, testUnless } from '../tools/require-command.ts'

let collie: Collie
let cloud: Cloud

printLogOfFailures(() => collie)
beforeAll(async () => {
  collie = await Collie.create()
  await collie.start()
  cloud = await encryptedCloud(collie)
})
afterAll(() => collie.dispose())

const withoutQemu = !commandExists('qemu-io') && 'qemu-io is missing: apt-get install qemu-utils'
const withQemu = testUnless(withoutQemu)
const withNova = testUnless(withoutCastellan() || withoutQemu)

withNova('an encrypted volume and its clone are opened with the keys that Nova’s castellan is given', async () => {
  const { cinder, byCastellan, byHand, run } = cloud
  const volumeId = await cinder.createVolume({ volume_type: 'LUKS' })
  await run(volumeId, 'write -P 0x5a 1M 64k', byHand)
  const cloneId = await cinder.createVolume({ source_volid: volumeId })
  await cinder.until('volume', cloneId, 'available')
  await cinder.delete('volume', volumeId)
  await cinder.untilGone('volume', volumeId)
  expect(await run(cloneId, 'read -P 0x5a 1M 64k', byCastellan)).toContain('read 65536/65536')
  await cinder.delete('volume', cloneId)
  await cinder.untilGone('volume', cloneId)
})

withQemu(
  'an encrypted volume is encrypted in another way and decrypted by retypes, and QEMU reads the same',
  async () => {
    const { cinder, byHand, run, retype } = cloud
    const volumeId = await cinder.createVolume({ volume_type: 'LUKS' })
    await run(volumeId, 'write -P 0x5a 1M 64k', byHand)
    await run(volumeId, 'write -P 0xa5 1021M 1M', byHand)
    for (const type of ['longer', '__DEFAULT__']) {
      await retype(volumeId, type)
      expect(await run(volumeId, 'read -P 0x5a 1M 64k', byHand)).toMatch(/^read 65536\/65536/)
      expect(await run(volumeId, 'read -P 0xa5 1021M 1M', byHand)).toMatch(/^read 1048576\/1048576/)
    }
    expect(await run(volumeId, 'read -P 0 1022M 2M', byHand)).toMatch(/^read 2097152\/2097152/)
    await cinder.delete('volume', volumeId)
    await cinder.untilGone('volume', volumeId)
    expect(await collie.ask('vdi', 'list')).toEqual([])
  },
)
