import { truncateSync, writeFileSync } from 'node:fs'
import { expect } from 'vitest'
import { Collie } from '../tools/collie.ts'
import { Dog } from '../tools/dog.ts'
import { iscsiTestFailures, Tgtd, withTgt } from '../tools/tgtd.ts'

const SIZE_BYTES = 64 << 20

withTgt('fails no test of libiscsi that a plain file behind the same tgt passes', async () => {
  const collie = await Collie.create()
  await collie.start()
  const tgtd = await Tgtd.start()
  try {
    await new Dog(collie.info.addresses.sheep!).create('tested', SIZE_BYTES)
    const file = collie.file('plain')
    writeFileSync(file, '')
    truncateSync(file, SIZE_BYTES)
    const ofFile = await iscsiTestFailures(await tgtd.serve('rdwr', file))
    const ofOurs = await iscsiTestFailures(await tgtd.serve('sheepdog', `unix:${collie.dataDir}/sock:tested`))
    console.log(`iscsi-test-cu: ${ofOurs.length} tests fail, with a plain file ${ofFile.length}: ${ofFile.join(' ')}`)
    expect(ofFile).toEqual(expect.arrayContaining(ofOurs))
  } finally {
    await tgtd.stop()
    await collie.dispose()
  }
})
