import { describe, expect, it } from 'vitest'
import type { StoreError } from '../../src/errors.ts'
import { BLOCK_BYTES } from '../../src/sheep/object-format.ts'
import { SheepBench } from './sheep-bench.ts'
import { blocksOf, OBJECT, StoreBench } from './store-bench.ts'

const SECTOR = 512

/** Whoever is told that a write is done may write again in the same turn. What the engine was doing then must not be out of date. */
describe('a write that comes from the answer to another', () => {
  it('is kept by a write of another part of the same block that was about to read it', async () => {
    const bench = await SheepBench.open()
    bench.disk.faults.wouldBlock = 0
    const session = bench.session(await bench.create('disk'))
    await bench.write(session, 0, Buffer.alloc(BLOCK_BYTES, 9))
    const write = (sector: number, fill: number, then?: () => void) =>
      new Promise<void>((resolve, reject) => {
        session.write(sector * SECTOR, Buffer.alloc(SECTOR, fill), false, (error: StoreError | null) => {
          then?.()
          if (error) reject(error)
          else resolve()
        })
      })
    let second: Promise<void> | undefined
    const first = write(0, 1, () => {
      second = write(1, 2)
    })
    await bench.run(Promise.all([first, write(2, 3)]))
    await bench.run(second!)
    const found = await bench.read(session, 0, 4 * SECTOR)
    expect([0, 1, 2, 3].map((sector) => found[sector * SECTOR])).toEqual([1, 2, 3, 9])
    expect((await bench.audit()).problems).toEqual([])
  })

  it('does not remove the object of a large write that is being placed', async () => {
    const bench = await StoreBench.open({ placedMinBytes: 4 * BLOCK_BYTES })
    await bench.create(OBJECT)
    await bench.settle()
    const { store } = bench
    const object = await bench.clock.run(store.hold(OBJECT))
    const order: string[] = []
    const finished = new Promise<void>((resolve, reject) => {
      store.commit([{ kind: 'blocks', object, first: 0, bytes: blocksOf(1) }], { durable: false }, () => {
        store.commit([{ kind: 'remove', oid: OBJECT }], { durable: true }, (error) => {
          order.push('removed')
          if (error) reject(error)
          else resolve()
        })
      })
      store.commit([{ kind: 'blocks', object, first: 0, bytes: blocksOf(2, 2, 2, 2) }], { durable: false }, () => {
        order.push('written')
      })
      expect(store.exists(OBJECT)).toBe(true)
    })
    await bench.clock.run(finished)
    store.release(object)
    expect(order).toEqual(['written', 'removed'])
    await bench.restart('kill')
    expect(bench.store.exists(OBJECT)).toBe(false)
  })
})
