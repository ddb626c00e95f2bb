import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { expect, it } from 'vitest'
import type { StoreError } from '../../src/errors.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { openSystemDisk } from '../../src/runtime/system-disk.ts'
import { BLOCK_BYTES } from '../../src/sheep/object-format.ts'
import { type Change, ObjectStore } from '../../src/sheep/object-store.ts'

const OBJECT = 5n << 32n
const CREATE: Change[] = [
  { kind: 'create', oid: OBJECT, runs: [] },
  { kind: 'blocks', object: OBJECT, first: 0, bytes: Buffer.alloc(BLOCK_BYTES, 1) },
]

const script = (code: string) =>
  new URL(`data:text/javascript,import { parentPort } from 'node:worker_threads';${encodeURIComponent(code)}`)

it.each([
  ['ends', script("parentPort.once('message', () => process.exit(3))"), 'has ended with code 3'],
  ['throws', script("parentPort.once('message', () => { throw new Error('bad') })"), 'has failed: bad'],
])('a copying thread that %s fails the store, at once and for good, and loses nothing', async (_how, thread, why) => {
  const root = mkdtempSync(join(tmpdir(), 'collie-thread-'))
  const open = async (disk: ReturnType<typeof openSystemDisk>, onFailed: (error: StoreError) => void) => {
    const { store } = await ObjectStore.open({
      disk,
      clock: systemClock,
      random: systemRandom,
      log: pino({ level: 'silent' }),
      segmentBytes: 64 * BLOCK_BYTES,
      durability: 'flush',
      reserveBytes: 0,
      onFailed,
    })
    return store
  }
  const commit = (store: ObjectStore, changes: readonly Change[]) =>
    new Promise<void>((resolve, reject) => {
      store.commit(changes, { durable: true }, (error) => (error ? reject(error) : resolve()))
    })
  try {
    const disk = openSystemDisk(root, thread)
    let fail: (error: StoreError) => void
    const failed = new Promise<StoreError>((resolve) => {
      fail = resolve
    })
    const store = await open(disk, (error) => fail(error))
    await commit(store, CREATE)
    store.startCheckpoint()
    expect((await failed).message).toContain(why)
    await expect(commit(store, [{ kind: 'remove', oid: OBJECT }])).rejects.toMatchObject({ code: 'DiskFailed' })
    await expect(disk.createMany(['another'])).rejects.toThrow(why)
    await store.close()
    await disk.close()

    const whole = openSystemDisk(root)
    const again = await open(whole, (error) => expect.fail(error.message))
    const block = Buffer.alloc(BLOCK_BYTES)
    await again.using(OBJECT, (object) => again.readBlocks(object, 0, block))
    expect(block).toEqual(Buffer.alloc(BLOCK_BYTES, 1))
    await again.close()
    await whole.close()
  } finally {
    rmSync(root, { recursive: true })
  }
})
