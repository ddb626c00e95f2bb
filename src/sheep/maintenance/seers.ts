import type { Vdi } from '../entries.ts'
import type { FamilyTree } from './heirs.ts'

/** A VDI that sees blocks of a holder. What follows from how many each of them sees: see UsageMeter. */
export interface Seer {
  vdi: Vdi
  blocks: number
  /** The topmost ones among those that were made from it and see the holder too. */
  below: Seer[]
}

/** Puts each below the nearest ancestor that sees the holder too, and returns those that have none. */
export function arrange(seers: Seer[], tree: FamilyTree): Seer[] {
  if (seers.length === 1) return seers
  const byVid = new Map(seers.map((seer) => [seer.vdi.vid, seer]))
  const top: Seer[] = []
  for (const seer of seers) {
    const ancestor = byVid.get(tree.livingAncestor(seer.vdi.vid))
    if (ancestor) ancestor.below.push(seer)
    else top.push(seer)
  }
  return top
}

export const othersOf = (seer: Seer, top: readonly Seer[]) => [...top.filter((other) => other !== seer), ...seer.below]

/** What a topmost seer has alone, if numbers are enough to know; null when blocks have to be compared. */
export function atOnce(seer: Seer, top: readonly Seer[]): number | null {
  if (seer.below.some((heir) => heir.blocks === seer.blocks)) return 0
  if (top.length > 1) return null
  if (seer.below.length === 0) return seer.blocks
  return seer.below.length === 1 ? seer.blocks - seer.below[0]!.blocks : null
}

/** At most so many blocks can be seen by a topmost seer alone. */
export const mostAlone = (seer: Seer) =>
  seer.below.reduce((least, heir) => Math.min(least, seer.blocks - heir.blocks), seer.blocks)
