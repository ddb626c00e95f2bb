import { expect, it } from 'vitest'
import type { Disk } from '../../src/runtime/disk.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../src/sheep/object-format.ts'
import { SheepBench } from './sheep-bench.ts'

const OBJECTS = 40
const block = (index: number) => Buffer.alloc(BLOCK_BYTES, 1 + index)

it('a start that fails late, when the store goes on with an unplugging already, leaves nothing at work', async () => {
  let isScrubReadable = true
  const wrap = (disk: Disk): Disk => ({
    ...disk,
    open: async (path, options) => {
      if (path === 'scrub' && !isScrubReadable) throw Object.assign(new Error('EIO: scrub'), { code: 'EIO' })
      return disk.open(path, options)
    },
  })
  const bench = await SheepBench.open({ hasDataDisk: true, scrubBytesPerSecond: 2 ** 30, wrap })
  const vid = await bench.create('a', OBJECTS * OBJECT_BYTES)
  for (let i = 0; i < OBJECTS; i++) await bench.write(bench.session(vid), i * OBJECT_BYTES, block(i))
  await bench.run(bench.sheep.close())
  await bench.restart('kill')
  bench.sheep.disks.unplug('/data').catch(() => {})
  await bench.step(30)
  bench.disk.kill()
  bench.dataDisk.kill()

  isScrubReadable = false
  await expect(bench.open()).rejects.toThrow('EIO: scrub')
  const operations = bench.disk.operations + bench.dataDisk.operations
  await bench.step(300)
  expect(bench.disk.operations + bench.dataDisk.operations).toBe(operations)
  expect([bench.disk.openFiles, bench.dataDisk.openFiles]).toEqual([0, 0])

  isScrubReadable = true
  await bench.open() // in the same process: the lock is free
  for (let i = 0; i < OBJECTS; i++) {
    expect(await bench.read(bench.session(vid), i * OBJECT_BYTES, BLOCK_BYTES)).toEqual(block(i))
  }
})
