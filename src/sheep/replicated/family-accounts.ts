import { type Account, Accounts, isBlocksLine, ownOf } from '../accounts.ts'
import type { Entry } from '../entries.ts'

/**
 * What the VDIs of a family hold, in memory; Accounts says what the lines mean. Who comes to own a family knows nothing of it and
 * counts anew, by index, all VDIs of the family at once: what changes at indexes that are counted is added, what changes at
 * others will be seen.
 */
export class FamilyAccounts {
  readonly #onLoss: (holder: number) => void
  readonly #accounts = new Accounts()
  /** Indexes below it are counted. */
  #counted = 0
  /** Is told of all changes, too: somebody counts for himself. */
  follower: FamilyAccounts | null = null
  /** Counts changes at each index that has not been counted, for whoever is about to count it. */
  readonly #changes = new Map<number, number>()

  /** `onLoss` is told of a holder of which a VDI sees less than before. */
  constructor(onLoss: (holder: number) => void) {
    this.#onLoss = onLoss
  }

  of(vid: number): Account {
    return this.#accounts.of(vid)
  }

  get isExact(): boolean {
    return this.#counted === Number.POSITIVE_INFINITY
  }

  add(vid: number, index: number, deltas: Account): void {
    this.follower?.add(vid, index, deltas)
    for (const [line, delta] of deltas) if (delta < 0 && isBlocksLine(line) && line !== vid) this.#onLoss(line)
    if (index < this.#counted) this.#accounts.add(vid, deltas)
    else if (!this.isExact) this.#changes.set(index, this.changesAt(index) + 1)
  }

  /** To be compared with what it is later. */
  changesAt(index: number): number {
    return this.#changes.get(index) ?? 0
  }

  /** Nothing is counted any more. */
  restart(): void {
    this.#accounts.clear()
    this.#changes.clear()
    this.#counted = 0
  }

  /** Of a deleted VDI: what is left of its own. */
  set(vid: number, account: Account): void {
    this.#accounts.replace(vid, account)
  }

  /** What the VDIs see at the indexes up to `end` has been counted, and has not changed meanwhile. */
  countedTo(end: number, accounts: ReadonlyMap<number, Account>): void {
    for (const [vid, account] of accounts) this.#accounts.add(vid, account)
    this.#counted = end
    for (const index of this.#changes.keys()) if (index < end) this.#changes.delete(index)
  }

  /** What an entry says of who sees what, in the turn in which it is applied. */
  applied(entry: Entry): void {
    this.follower?.applied(entry)
    switch (entry.type) {
      case 'vdi':
        if (entry.vdi.parentVid !== 0) this.#copy(entry.vdi.parentVid, entry.vdi.vid)
        return
      case 'snapshot':
        this.#copy(entry.vid, entry.newVid)
        return
      case 'rollback':
        this.#copy(entry.snapshotVid, entry.newVid)
        this.#keepOwn(entry.vid)
        return
      case 'delete':
        this.#keepOwn(entry.vid)
        return
      case 'reclaimed':
        this.#accounts.replace(entry.vid, new Map())
    }
  }

  #copy(from: number, to: number): void {
    this.#accounts.replace(to, this.of(from))
  }

  /** A VDI that is deleted shares nothing any more with those that it was made from. */
  #keepOwn(vid: number): void {
    this.#accounts.replace(vid, ownOf(vid, this.of(vid)))
  }
}
