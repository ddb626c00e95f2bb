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

export function createChunkSlots(count: number): ChunkSlots {
  const spare: ChunkMemory[] = []
  const waiting: (() => void)[] = []
  let used = 0

  return {
    count,
    with: async (use) => {
      if (used === count) await new Promise<void>((resolve) => waiting.push(resolve))
      else used++
      const memory = spare.pop() ?? newMemory()
      try {
        return await use(memory)
      } finally {
        spare.push(memory)
        const next = waiting.shift()
        if (next !== undefined) next()
        else if (--used === 0) spare.length = 0 // nobody backs up any more
      }
    },
  }
}

const newMemory = (): ChunkMemory => ({
  chunk: Buffer.allocUnsafeSlow(CHUNK_BYTES),
  stored: Buffer.allocUnsafeSlow(CHUNK_BYTES),
})
