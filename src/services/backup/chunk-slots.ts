import type { Clock, Timer } from '../../runtime/clock.ts'
import { CHUNK_BYTES } from './format.ts'

/**
 * Room for chunks on their way, shared by all backups and restores of a process: who finds none waits, and those who wait are served
 * in the order they came.
 */
export interface ChunkSlots {
  readonly count: number
  /** Runs `use` with memory that is its own until it has ended. */
  with<T>(use: (memory: ChunkMemory) => Promise<T>): Promise<T>
  /**
   * As `with`, in two parts: `read` puts a chunk into the memory, and `use` does what follows. Only a few read at a time. More keep a store no
   * busier, and what they have read is out of the processor's cache before it is looked at.
   */
  fill<R, T>(read: (memory: ChunkMemory) => Promise<R>, use: (result: R, memory: ChunkMemory) => Promise<T>): Promise<T>
}

/** 4 MiB each: a chunk as it is in the volume, and as it is on the target. */
export interface ChunkMemory {
  chunk: Buffer
  stored: Buffer
}

/** The memory is kept so long for the next step of a backup, since fresh memory costs as much as what is done with it. */
const IDLE_MS = 10_000

/** Who reads while another one waits for an answer. */
const READERS = 2

export function createChunkSlots(count: number, clock: Pick<Clock, 'timer'>): ChunkSlots {
  const slots = createPlaces(count)
  const readers = createPlaces(READERS)
  const spare: ChunkMemory[] = []
  let letGo: Timer | null = null

  async function withMemory<T>(use: (memory: ChunkMemory) => Promise<T>): Promise<T> {
    await slots.enter()
    letGo?.cancel()
    letGo = null
    const memory = spare.pop() ?? newMemory()
    try {
      return await use(memory)
    } finally {
      spare.push(memory)
      slots.leave()
      if (slots.isEmpty()) {
        letGo = clock.timer(IDLE_MS, () => {
          spare.length = 0
        })
      }
    }
  }

  return {
    count,
    with: withMemory,
    fill: async (read, use) => {
      await readers.enter() // before there is memory, so that no more of it is in use than there is to do with it
      return withMemory(async (memory) => {
        const result = await read(memory).finally(readers.leave)
        return use(result, memory)
      })
    },
  }
}

/** So many may be inside at a time; the others wait, in their order. */
function createPlaces(count: number) {
  const waiting: (() => void)[] = []
  let taken = 0
  return {
    enter: async (): Promise<void> => {
      if (taken === count) await new Promise<void>((resolve) => waiting.push(resolve))
      else taken++
    },
    leave: (): void => {
      const next = waiting.shift()
      if (next !== undefined) next()
      else taken--
    },
    isEmpty: () => taken === 0,
  }
}

const newMemory = (): ChunkMemory => ({
  chunk: Buffer.allocUnsafeSlow(CHUNK_BYTES),
  stored: Buffer.allocUnsafeSlow(CHUNK_BYTES),
})
