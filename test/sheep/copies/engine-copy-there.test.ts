import { pino } from 'pino'
import { expect, it } from 'vitest'
import { dataOid } from '../../../src/protocol/oid.ts'
import { EngineCopyStore } from '../../../src/sheep/copies/engine-copy-store.ts'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import { ObjectStore } from '../../../src/sheep/object-store.ts'
import { SimClock } from '../../sim/clock.ts'
import { SimDisk } from '../../sim/disk.ts'
import { SeededRandom } from '../../sim/random.ts'

it.each([1, 2, 3, 4, 5])(
  'a copy that is dropped is not there any more, whichever look at it had to wait for the disk: %d',
  async (late) => {
    const random = new SeededRandom(1)
    const clock = new SimClock(random)
    const { store } = await clock.run(
      ObjectStore.open({
        disk: new SimDisk(random, clock).mount(),
        clock: clock.mount(),
        random,
        log: pino({ level: 'silent' }),
        segmentBytes: 1024 * BLOCK_BYTES,
        durability: 'flush',
        reserveBytes: 0,
        onFailed: (error) => {
          throw error
        },
      }),
    )
    // The cache of the kernel has it, or not: by the next look it may.
    const loadedNow = store.loadedNow.bind(store)
    let looks = Number.POSITIVE_INFINITY
    store.loadedNow = (oid) => (--looks === 0 ? null : loadedNow(oid))
    const copies = new EngineCopyStore(store)
    const oid = dataOid(3, 0)
    const versionOf = (sequence: number) => ({ generation: { epoch: 1, index: 1, incarnation: 'a' }, sequence })
    const done = (start: (done: (error: unknown) => void) => void) =>
      clock.run(new Promise<void>((resolve, reject) => start((error) => (error ? reject(error) : resolve()))))
    const write = (sequence: number, previous: ReturnType<typeof versionOf> | null) =>
      done((ended) => {
        const blocks = [{ first: 0, bytes: Buffer.alloc(BLOCK_BYTES, sequence) }]
        copies.apply({ oid, version: versionOf(sequence), previous, blocks, zeros: [] }, true, ended)
      })
    await write(1, null)
    looks = late
    await write(2, versionOf(1))
    looks = Number.POSITIVE_INFINITY
    await done((ended) => copies.drop(oid, ended))
    expect(copies.stateOf(oid)).toBeNull()
    expect([...copies.objects()]).toEqual([])
    await clock.run(store.close())
  },
)
