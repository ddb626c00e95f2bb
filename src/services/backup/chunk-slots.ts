import { CHUNK_BYTES } from './format.ts'

/**
 * Room for chunks on their way, shared by all backups and restores of a process: who finds none waits, and those who wait are served
 * in the order they came. A slot is two chunks of memory at most: its buffer, and what is made of that for the target.
 */
export interface ChunkSlots {
  readonly count: number
  /** Runs `use` with a buffer of 4 MiB that is its own until it has ended. */
  with<T>(use: (buffer: Buffer) => Promise<T>): Promise<T>
}

export function createChunkSlots(count: number): ChunkSlots {
  const spare: Buffer[] = []
  const waiting: (() => void)[] = []
  let used = 0

  return {
    count,
    with: async (use) => {
      if (used === count) await new Promise<void>((resolve) => waiting.push(resolve))
      else used++
      const buffer = spare.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES)
      try {
        return await use(buffer)
      } finally {
        spare.push(buffer)
        const next = waiting.shift()
        if (next !== undefined) next()
        else if (--used === 0) spare.length = 0 // nobody backs up any more
      }
    },
  }
}
