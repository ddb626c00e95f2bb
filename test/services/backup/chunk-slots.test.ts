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

type Taken = ReturnType<typeof take>
/** Not left to `toBe`, which looks at each byte of what is not the same. */
const areSame = (one: Taken, other: Taken) => one.memory() !== null && one.memory() === other.memory()

describe('room for chunks', () => {
  it('is given to as many as there are slots, then to those who wait, in their order', async () => {
    const slots = createChunkSlots(2, new HandClock().clock)
    const [first, second, third, fourth] = [take(slots), take(slots), take(slots), take(slots)]
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
    await first.release()
    time.pass(9000)
    const second = take(slots)
    expect(areSame(second, first)).toBe(true)
    time.pass(20_000)
    await second.release()
    time.pass(9000)
    const third = take(slots)
    expect(areSame(third, first)).toBe(true)
    await third.release()
    time.pass(10_000)
    const later = take(slots)
    expect(areSame(later, first)).toBe(false)
    await later.release()
  })
})
