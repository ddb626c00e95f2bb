import type { SeededRandom } from '../sim/random.ts'

const PAGE = 4096
const SECTOR = 512

export const ZERO_PAGE: Buffer = Buffer.alloc(PAGE)

/** A changed copy of a page: a bit, a word, a sector or all of it; `others` are pages that may land in its place. */
export function mutatePage(random: SeededRandom, page: Buffer, others: readonly Buffer[]): Buffer {
  const changed = Buffer.from(page)
  // The head of a page, where headers and the first entries are, as often as all the rest.
  const at = random.below(random.chance(0.5) ? 160 : PAGE)
  switch (random.below(7)) {
    case 0:
      changed[at]! ^= 1 << random.below(8)
      return changed
    case 1:
      changed[at] = random.pick([0, 1, 0x7f, 0x80, 0xff, random.below(256)])
      return changed
    case 2:
      changed.writeUInt32LE(randomWord(random), at & ~3)
      return changed
    case 3:
      changed.fill(0, at - (at % SECTOR), at - (at % SECTOR) + SECTOR)
      return changed
    case 4:
      random.pick(others).copy(changed, at - (at % SECTOR), at - (at % SECTOR), at - (at % SECTOR) + SECTOR)
      return changed
    case 5:
      return random.chance(0.5) ? Buffer.from(ZERO_PAGE) : Buffer.alloc(PAGE, random.bytes(64))
    default:
      return Buffer.from(random.pick(others))
  }
}

/** Small numbers, powers of two and what lies next to them. */
export function randomWord(random: SeededRandom): number {
  const power = 2 ** random.below(33)
  return random.pick([random.below(8), random.below(2 ** 32), power % 2 ** 32, power - 1, (power + 1) % 2 ** 32])
}
