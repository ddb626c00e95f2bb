import { describe, expect, it } from 'vitest'
import { type ChunkMemory, type ChunkSlots, createChunkSlots } from '../../../src/services/backup/chunk-slots.ts'
import { HandClock } from '../../tools/hand-clock.ts'

/** Uses a slot until it is told to let go. */
function take(slots: ChunkSlots) {
  let release = () => {}
  let memory: ChunkMemory | null = null
  const done = slots.with(async (given) => {
    memory = given
    await new Promise<void>((resolve) => {
      release = resolve
    })
  })
  return {
    memory: () => memory,
    release: async () => {
      release()
      await done
    },
  }
}

/** What has what it waits for goes on. */
const settle = () => new Promise((resolve) => setImmediate(resolve))

type Taken = ReturnType<typeof take>
/** Not left to `toBe`, which looks at each byte of what is not the same. */
const areSame = (one: Taken, other: Taken) => one.memory() !== null && one.memory() === other.memory()

describe('room for chunks', () => {
  it('is given to as many as there are slots, then to those who wait, in their order', async () => {
    const slots = createChunkSlots(2, new HandClock().clock)
    const [first, second, third, fourth] = [take(slots), take(slots), take(slots), take(slots)]
    await settle()
    const buffers = [first, second].flatMap((taken) => [taken.memory()!.chunk, taken.memory()!.stored])
    expect(new Set(buffers.map(({ buffer }) => buffer)).size).toBe(4)
    expect(third.memory() === null).toBe(true)
    await second.release()
    expect(areSame(third, second)).toBe(true)
    expect(fourth.memory() === null).toBe(true)
    await third.release()
    expect(areSame(fourth, second)).toBe(true)
    await Promise.all([first.release(), fourth.release()])
  })

  it('keeps its memory from one step to the next, and lets go of it when nobody needs it any more', async () => {
    const time = new HandClock()
    const slots = createChunkSlots(2, time.clock)
    const first = take(slots)
    await settle()
    await first.release()
    time.pass(9000)
    const second = take(slots)
    await settle()
    expect(areSame(second, first)).toBe(true)
    time.pass(20_000)
    await second.release()
    time.pass(9000)
    const third = take(slots)
    await settle()
    expect(areSame(third, first)).toBe(true)
    await third.release()
    time.pass(10_000)
    const later = take(slots)
    await settle()
    expect(areSame(later, first)).toBe(false)
    await later.release()
  })

  it('is filled by two at a time, while those that are full are used', async () => {
    const slots = createChunkSlots(4, new HandClock().clock)
    const readings: (() => void)[] = []
    const used: number[] = []
    let end = () => {}
    const isOver = new Promise<void>((resolve) => {
      end = resolve
    })
    const read = () => new Promise<void>((resolve) => readings.push(resolve))
    const all = [0, 1, 2, 3, 4].map((index) =>
      slots.fill(read, async () => {
        used.push(index)
        await isOver
      }),
    )
    for (const [begun, full] of [
      [2, [0]],
      [3, [0, 1]],
      [4, [0, 1, 2]],
      [4, [0, 1, 2, 3]], // and the fifth has no memory to read into
    ] as const) {
      await settle()
      expect(readings.length).toBe(begun)
      readings[full.length - 1]!()
      await settle()
      expect(used).toEqual(full)
    }
    end()
    await settle()
    readings[4]!()
    await Promise.all(all)
    expect(used).toEqual([0, 1, 2, 3, 4])
  })

  it('is there for the next one when it could not be filled', async () => {
    const slots = createChunkSlots(1, new HandClock().clock)
    for (let attempt = 0; attempt < 3; attempt++) {
      const failed = slots.fill(
        () => Promise.reject(new Error('no answer')),
        async () => {},
      )
      await expect(failed).rejects.toThrow('no answer')
    }
    expect(
      await slots.fill(
        async () => 'read',
        async (result) => result,
      ),
    ).toBe('read')
  })
})
