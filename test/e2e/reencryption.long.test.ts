import { afterAll, beforeAll, expect } from 'vitest'
import { Collie, printLogOfFailures } from '../tools/collie.ts'
import { type Cloud, encryptedCloud } from '../tools/encrypted-cloud.ts'
import { requireCommand } from '../tools/require-command.ts'

/** All of a volume is written when it is encrypted, which takes a while. */

let collie: Collie
let cloud: Cloud

printLogOfFailures(() => collie)
beforeAll(async () => {
  collie = await Collie.create()
  await collie.start()
  cloud = await encryptedCloud(collie)
})
afterAll(() => collie.dispose())

requireCommand('qemu-io', 'qemu-utils')(
  'a volume in the clear is encrypted and decrypted by retypes, and QEMU reads the same, holes too',
  async () => {
    const { cinder, byHand, run, retype } = cloud
    const volumeId = await cinder.createVolume({})
    await run(volumeId, 'write -P 0x5a 1M 64k', byHand)
    await run(volumeId, 'write -P 0xa5 1021M 1M', byHand) // as far as there is room for the header
    for (const type of ['LUKS', '__DEFAULT__']) {
      await retype(volumeId, type)
      for (const range of ['-P 0 0 1M', '-P 0x5a 1M 64k', '-P 0 2M 1019M', '-P 0xa5 1021M 1M']) {
        expect([type, await run(volumeId, `read ${range}`, byHand)]).toEqual([type, expect.stringMatching(/^read /)])
      }
    }
    await cinder.delete('volume', volumeId)
    await cinder.untilGone('volume', volumeId)
    expect(await collie.ask('vdi', 'list')).toEqual([])
  },
)
