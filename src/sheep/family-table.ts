import { StoreError } from '../errors.ts'
import type { Entry, FamilyOwner, VdiUsage } from './entries.ts'
import { isIn, type View } from './membership/view.ts'

type FamilyEntry = Extract<Entry, { type: 'owner' | 'disown' | 'clean' }>

interface Family {
  owner: FamilyOwner | null
  /** The first epoch in which something may have been written that is not on all copies yet. */
  uncleanSince: number
  /** As the last owner that let go has left it. */
  usage: readonly VdiUsage[]
}

/**
 * Who owns each family of VDIs, and since when its copies may differ: part of the state of a cluster of several nodes. Families
 * that nobody has owned yet are not here.
 */
export class FamilyTable {
  readonly #families = new Map<number, Family>()
  /** Of the entries that named those who are owners now. */
  readonly #ownerIndexes = new Set<number>()

  /** How many entries lead to it from nothing, at most. */
  get size(): number {
    return 3 * this.#families.size
  }

  /** Named last, though it may have left the view; null when it has let go. */
  ownerOf(family: number): FamilyOwner | null {
    return this.#families.get(family)?.owner ?? null
  }

  /** Whether the owner that entry `index` named is the last one of its family. */
  isCurrent(index: number): boolean {
    return this.#ownerIndexes.has(index)
  }

  /** Until somebody has, its VDIs hold nothing. */
  wasEverOwned(family: number): boolean {
    return this.#families.has(family)
  }

  owners(): FamilyOwner[] {
    return [...this.#families.values()].flatMap(({ owner }) => owner ?? [])
  }

  uncleanSince(family: number): number | undefined {
    return this.#families.get(family)?.uncleanSince
  }

  /** What the VDIs of a family took when its last owner let go. */
  usageOf(family: number): readonly VdiUsage[] {
    return this.#families.get(family)?.usage ?? []
  }

  /** The families in which something may be missing that was written before `epoch`. */
  uncleanBefore(epoch: number): number[] {
    return [...this.#families].filter(([, { uncleanSince }]) => uncleanSince < epoch).map(([family]) => family)
  }

  /** The first epochs in which something may have been written that is not on all copies yet, of all families. */
  uncleanEpochs(): Set<number> {
    return new Set([...this.#families.values()].map(({ uncleanSince }) => uncleanSince))
  }

  /** `epoch` when nothing is unclean. */
  oldestUnclean(epoch: number): number {
    let oldest = epoch
    for (const { uncleanSince } of this.#families.values()) oldest = Math.min(oldest, uncleanSince)
    return oldest
  }

  /** Throws OldEpoch for an entry that speaks of an owner that has been followed by another one. */
  check(entry: FamilyEntry, view: View): void {
    switch (entry.type) {
      case 'owner': {
        const current = this.ownerOf(entry.family)
        if ((current?.index ?? null) !== entry.replaces) throw new StoreError('OldEpoch', 'there is another owner')
        if (current && isIn(view, current)) throw new StoreError('OldEpoch', 'the family has an owner')
        if (!isIn(view, entry)) throw new StoreError('OldEpoch', `${entry.node} is not in the view`)
        return
      }
      case 'disown':
        this.#checkOwner(entry.family, entry.index)
        return
      case 'clean':
        for (const [family, ownerIndex] of entry.families) this.#checkOwner(family, ownerIndex)
        return
    }
  }

  /** `epoch` is the one in effect. */
  apply(index: number, entry: FamilyEntry, epoch: number): void {
    switch (entry.type) {
      case 'owner': {
        const { family, node, incarnation } = entry
        const uncleanSince = this.uncleanSince(family) ?? epoch
        const owner = { family, node, incarnation, index: entry.index ?? index }
        this.#forgetOwner(family)
        this.#ownerIndexes.add(owner.index)
        this.#families.set(family, { uncleanSince, owner, usage: this.usageOf(family) })
        return
      }
      case 'disown':
        this.#forgetOwner(entry.family)
        this.#families.get(entry.family)!.owner = null
        this.#families.get(entry.family)!.usage = entry.usage ?? []
        return
      case 'clean':
        for (const [family] of entry.families) this.#families.get(family)!.uncleanSince = entry.epoch
        return
    }
  }

  drop(family: number): void {
    this.#forgetOwner(family)
    this.#families.delete(family)
  }

  snapshotEntries(): Entry[] {
    const byEpoch = new Map<number, [number, number][]>()
    const owned: Entry[] = []
    const disowned: Entry[] = []
    for (const [family, { owner, uncleanSince, usage }] of this.#families) {
      const index = owner?.index ?? 0
      const { node, incarnation } = owner ?? { node: '', incarnation: '' }
      const named: Entry = { type: 'owner', family, node, incarnation, replaces: null, index }
      if (owner && usage.length > 0) owned.push(named, { type: 'disown', family, index, usage })
      owned.push(named)
      if (!owner) disowned.push({ type: 'disown', family, index, usage })
      byEpoch.set(uncleanSince, [...(byEpoch.get(uncleanSince) ?? []), [family, index]])
    }
    const clean = [...byEpoch].map(([epoch, families]): Entry => ({ type: 'clean', epoch, families }))
    return [...owned, ...clean, ...disowned]
  }

  #forgetOwner(family: number): void {
    const before = this.ownerOf(family)
    if (before) this.#ownerIndexes.delete(before.index)
  }

  #checkOwner(family: number, index: number): void {
    if (this.ownerOf(family)?.index !== index) throw new StoreError('OldEpoch', 'there is another owner')
  }
}
