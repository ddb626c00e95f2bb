import { expect, it } from 'vitest'
import type { Disk } from '../../src/runtime/disk.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../src/sheep/object-format.ts'
import { SheepBench } from './sheep-bench.ts'
import { blocksOf, OBJECT, StoreBench } from './store-bench.ts'

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

it.each([
  ['a first start', async (_bench: StoreBench) => {}],
  ['a start that has to replay small writes and large ones', fillAndKill],
])('%s leaves no file open, wherever it fails', async (_name, prepare) => {
  const bench = new StoreBench({ dataDisks: ['/data'], configured: ['/data'], placedMinBytes: 4 * BLOCK_BYTES })
  await prepare(bench)
  let failures = 0
  for (; ; failures++) {
    bench.disk.operationsLeft = failures
    const isOpen = await bench.open().then(
      () => true,
      () => false,
    )
    if (isOpen) break
    const openFiles = bench.disk.openFiles + (bench.dataDisks.get('/data')?.openFiles ?? 0)
    expect({ failures, openFiles }).toEqual({ failures, openFiles: 0 })
  }
  expect(failures).toBeGreaterThan(20)
  bench.disk.operationsLeft = null
  await bench.close()
})

async function fillAndKill(bench: StoreBench): Promise<void> {
  await bench.open()
  await bench.create(OBJECT, OBJECT + 1n)
  await bench.commit([{ kind: 'entry', index: 1, bytes: Buffer.from('one') }])
  await bench.settle()
  await bench.write(OBJECT, 0, 1)
  await bench.write(OBJECT + 1n, 8, 1, 2, 3, 4, 5)
  await bench.commit([
    { kind: 'create', oid: OBJECT + 2n, runs: [] },
    { kind: 'blocks', object: OBJECT + 2n, first: 0, bytes: blocksOf(6, 7, 8, 9) },
  ])
  bench.disk.kill()
  bench.dataDisks.get('/data')!.kill()
}
