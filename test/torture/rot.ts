import { closeSync, openSync, readdirSync, readSync, writeSync } from 'node:fs'
import path from 'node:path'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT, blockPosition } from '../../src/sheep/object-format.ts'
import type { SeededRandom } from '../sim/random.ts'

const FILES_MAX = 4

/** Changes one byte of a block in some of the object files below these directories, while a node uses them. Answers how many. */
export function rotSome(directories: readonly string[], random: SeededRandom): number {
  const files = directories.flatMap((directory) =>
    readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()),
  )
  let changed = 0
  for (let i = 0; i < FILES_MAX && files.length > 0; i++) {
    const [{ parentPath, name }] = files.splice(random.below(files.length), 1) as [(typeof files)[number]]
    if (rotOne(path.join(parentPath, name), random)) changed++
  }
  return changed
}

function rotOne(file: string, random: SeededRandom): boolean {
  const handle = openSync(file, 'r+')
  try {
    const block = Buffer.alloc(BLOCK_BYTES)
    const start = random.below(BLOCKS_PER_OBJECT)
    for (let i = 0; i < BLOCKS_PER_OBJECT; i++) {
      for (const slot of [0, 1] as const) {
        const position = blockPosition((start + i) % BLOCKS_PER_OBJECT, slot)
        if (readSync(handle, block, 0, BLOCK_BYTES, position) < BLOCK_BYTES || block.every((byte) => byte === 0))
          continue
        const at = random.below(BLOCK_BYTES)
        writeSync(handle, Buffer.of(block[at]! ^ (1 << random.below(8))), 0, 1, position + at)
        return true
      }
    }
    return false
  } finally {
    closeSync(handle)
  }
}
