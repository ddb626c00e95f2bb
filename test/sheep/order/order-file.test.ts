import { describe, expect, it } from 'vitest'
import type { Item } from '../../../src/sheep/order/item.ts'
import { OrderFile } from '../../../src/sheep/order/order-file.ts'
import { SimClock } from '../../sim/clock.ts'
import { SimDisk } from '../../sim/disk.ts'
import { SeededRandom } from '../../sim/random.ts'

const item = (index: number, payload = `entry ${index}`): Item => ({
  index,
  origin: { life: 'a', sequence: index },
  payload,
})

const ballot = (counter: number) => ({ counter, configuration: 'c', round: 0, leader: 'n1#1' })

function bench() {
  const random = new SeededRandom(1)
  const clock = new SimClock(random)
  const disk = new SimDisk(random, clock)
  const run = <T>(work: () => Promise<T>) => clock.run(work())
  return { disk, run }
}

describe('the file of the ordered log', () => {
  it('holds what was persisted after the power has failed', async () => {
    const { disk, run } = bench()
    await run(async () => {
      const file = await OrderFile.open(disk.mount(), 'order')
      await file.persist([{ promised: ballot(3) }, { adopted: ballot(3), append: [item(1), item(2), item(3)] }])
      await file.persist([{ keepUpTo: 1, append: [item(2, 'another')] }])
    })
    disk.powerLoss()
    const { durable } = await run(() => OrderFile.open(disk.mount(), 'order'))
    expect(durable).toEqual({
      promised: ballot(3),
      adopted: ballot(3),
      baseIndex: 0,
      items: [item(1), item(2, 'another')],
    })
  })

  it('is on the disk after a start, when a sync had failed that the kernel says nothing of any more', async () => {
    const { disk, run } = bench()
    await run(async () => {
      const file = await OrderFile.open(disk.mount(), 'order')
      await file.persist([{ append: [item(1)] }])
      disk.failNextSync = true
      await expect(file.persist([{ append: [item(2, 'pages '.repeat(2000))] }])).rejects.toThrow('EIO')
    })
    disk.kill()
    await run(async () => {
      const file = await OrderFile.open(disk.mount(), 'order')
      await file.persist([{ append: [item(3)] }])
    })
    disk.powerLoss()
    const { durable } = await run(() => OrderFile.open(disk.mount(), 'order'))
    expect(durable.items.map(({ index }) => index)).toEqual([1, 2, 3])
  })

  it('is written anew when most of it is history', async () => {
    const { disk, run } = bench()
    const payload = 'x'.repeat(1024 * 1024)
    await run(async () => {
      const file = await OrderFile.open(disk.mount(), 'order')
      for (let index = 1; index <= 5; index++) await file.persist([{ append: [item(index, payload)] }])
      await file.cut(4)
    })
    disk.powerLoss()
    await run(async () => {
      const mounted = disk.mount()
      const { durable } = await OrderFile.open(mounted, 'order')
      expect(durable.baseIndex).toBe(4)
      expect(durable.items.map(({ index }) => index)).toEqual([5])
      expect(await (await mounted.open('order')).size()).toBeLessThan(2 * payload.length)
    })
  })

  it('is never taken for an empty one when its first line is damaged', async () => {
    const { disk, run } = bench()
    const opened = run(async () => {
      const mounted = disk.mount()
      await (await OrderFile.open(mounted, 'order')).close()
      await (await mounted.open('order')).write(Buffer.from([0]), 3)
      return OrderFile.open(mounted, 'order')
    })
    await expect(opened).rejects.toThrow('order is damaged at byte 0')
  })

  it.each([
    { what: 'a line that later ones were written after', at: 0.3, isRot: true },
    { what: 'the last line, that nothing says was durable', at: 0.95, isRot: false },
  ])('$what is damaged: rot $isRot', async ({ at, isRot }) => {
    const { disk, run } = bench()
    await run(async () => {
      const file = await OrderFile.open(disk.mount(), 'order')
      for (let index = 1; index <= 4; index++) await file.persist([{ append: [item(index)] }])
      await file.close()
    })
    const opened = run(async () => {
      const mounted = disk.mount()
      const raw = await mounted.open('order')
      await raw.write(Buffer.from([0]), Math.floor((await raw.size()) * at))
      return OrderFile.open(mounted, 'order')
    })
    if (isRot) await expect(opened).rejects.toThrow(/order is damaged at byte \d+/)
    else expect((await opened).durable.items).toEqual([item(1), item(2), item(3)])
  })
})
