import { expect, it } from 'vitest'
import { dataOid } from '../../../src/protocol/oid.ts'
import { CopyHolder } from '../../../src/sheep/copies/copy-holder.ts'
import type { CopyWrite } from '../../../src/sheep/copies/copy-store.ts'
import { EngineCopyStore } from '../../../src/sheep/copies/engine-copy-store.ts'
import { blocksOf, StoreBench } from '../store-bench.ts'

const VID = 7
const OBJECTS = 140
const generation = { epoch: 1, index: 1, incarnation: 'a' }

const oidOf = (index: number) => dataOid(VID, index)

function writeOf(index: number): CopyWrite {
  const contents = { blocks: [{ first: 0, bytes: blocksOf(1) }], zeros: [] }
  return { ...contents, oid: oidOf(index), version: { generation, sequence: 1 }, previous: null }
}

it('a node with many copies lets others go on while it looks which of them belong to it', async () => {
  const bench = await StoreBench.open()
  const store = new EngineCopyStore(bench.store)
  const write = (index: number) =>
    new Promise<void>((resolve, reject) =>
      store.apply(writeOf(index), false, (error) => (error ? reject(error) : resolve())),
    )
  const remove = (index: number) =>
    new Promise<void>((resolve, reject) => store.drop(oidOf(index), (error) => (error ? reject(error) : resolve())))
  await bench.clock.run(Promise.all(Array.from({ length: OBJECTS }, (_, index) => write(index))))

  let looks = 0
  const looksOfTurns: number[] = []
  const belongsHere = (oid: bigint) => {
    looks++
    return Number(oid & 1n) === 0
  }
  const pause = async () => {
    looksOfTurns.push(looks)
    looks = 0
    if (looksOfTurns.length > 1) return
    await remove(OBJECTS - 2)
    await write(OBJECTS)
  }
  expect(await bench.clock.run(new CopyHolder(store).drop(belongsHere, { pause }))).toBe(true)
  expect(looksOfTurns).toHaveLength(1)
  expect(Math.max(looks, ...looksOfTurns)).toBeLessThanOrEqual(128)
  const even = Array.from({ length: OBJECTS / 2 + 1 }, (_, i) => oidOf(2 * i)).filter(
    (oid) => oid !== oidOf(OBJECTS - 2),
  )
  expect([...store.objects()].sort()).toEqual(even.sort())
  await bench.close()
})

it('what a node has of a VDI that is gone goes, and what another VDI of that number has got meanwhile stays', async () => {
  const bench = await StoreBench.open()
  const store = new EngineCopyStore(bench.store)
  const write = (write: CopyWrite) =>
    new Promise<void>((resolve, reject) => store.apply(write, false, (error) => (error ? reject(error) : resolve())))
  await bench.clock.run(Promise.all(Array.from({ length: OBJECTS }, (_, index) => write(writeOf(index)))))
  const drop = new CopyHolder(store).dropOf([VID])
  const later = { generation: { epoch: 2, index: 9, incarnation: 'b' }, sequence: 1 }
  await bench.clock.run(write({ ...writeOf(3), version: later }))
  await bench.clock.run(write({ ...writeOf(OBJECTS), version: later }))
  let pauses = 0
  const pause = async () => {
    pauses++
    if (pauses === 1) await write({ ...writeOf(OBJECTS - 1), version: later })
  }
  expect(await bench.clock.run(drop(pause))).toBe(true)
  expect(pauses).toBe(1)
  expect([...store.objects()].sort()).toEqual([oidOf(3), oidOf(OBJECTS - 1), oidOf(OBJECTS)].sort())
  await bench.close()
})
