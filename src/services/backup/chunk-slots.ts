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
}

/** 4 MiB each: a chunk as it is in the volume, and as it is on the target. */
export interface ChunkMemory {
  chunk: Buffer
  stored: Buffer
}

/** The memory is kept so long for the next step of a backup, since fresh memory costs as much as what is done with it. */
const IDLE_MS = 10_000

export function createChunkSlots(count: number, clock: Pick<Clock, 'timer'>): ChunkSlots {
  let letGo: Timer | null = null
  const spare: ChunkMemory[] = []
  const waiting: (() => void)[] = []
  let used = 0

  return {
    count,
    with: async (use) => {
      if (used === count) await new Promise<void>((resolve) => waiting.push(resolve))
      else used++
      letGo?.cancel()
      letGo = null
      const memory = spare.pop() ?? newMemory()
      try {
        return await use(memory)
      } finally {
        spare.push(memory)
        const next = waiting.shift()
        if (next !== undefined) next()
        else if (--used === 0) {
          letGo = clock.timer(IDLE_MS, () => {
            spare.length = 0
          })
        }
      }
    },
  }
}

const newMemory = (): ChunkMemory => ({
  chunk: Buffer.allocUnsafeSlow(CHUNK_BYTES),
  stored: Buffer.allocUnsafeSlow(CHUNK_BYTES),
})
