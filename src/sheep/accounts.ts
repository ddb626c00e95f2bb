import type { AccountImage } from './journal-format.ts'

/**
 * The lines of an account with what they count. Line `vid` counts the 4 KiB blocks with data that lie in the objects of that
 * holder, line `objectsOf(vid)` the map entries that name an object of it. What is not named is 0.
 */
export type Account = ReadonlyMap<number, number>

const OBJECTS_LINE = 2 ** 24 // one more than the highest vid

export const objectsOf = (vid: number): number => OBJECTS_LINE + vid

export const isBlocksLine = (line: number): boolean => line < OBJECTS_LINE

const NOTHING: Account = new Map()

/** Blocks with data, wherever they lie. */
export function blocksIn(account: Account): number {
  let sum = 0
  for (const [line, count] of account) if (isBlocksLine(line)) sum += count
  return sum
}

/** Whether an account counts anything of a holder. */
export function isNamedIn(account: Account, holderVid: number): boolean {
  return account.has(holderVid) || account.has(objectsOf(holderVid))
}

/** What a deleted VDI keeps of an account: the lines of its own. */
export function ownOf(vid: number, account: Account): Account {
  return new Map([vid, objectsOf(vid)].map((line) => [line, account.get(line) ?? 0]))
}

/**
 * How much each VDI holds, known at any moment without reading anything. The account of a VDI says, for each holder, how many
 * 4 KiB blocks with data in the VDI's view lie in the holder's objects, and how many of these objects its map names: its own,
 * or those of an ancestor that it still shares them with. Blocks that read as zeros take nothing and are not counted.
 *
 * 1. An account changes in the transaction that changes the blocks, and the journal keeps what it says afterwards: records
 *    are post-images, so that a replay may apply them twice.
 * 2. A new VDI starts with the account of the one that it is made from, as its map does.
 * 3. The account of a deleted VDI names itself only: what is still there of its objects. When nobody else names it any
 *    more, all of them go, and until they have gone the account says what there was.
 *
 * From 3 follows that what all VDIs hold of their own is what the node holds in all.
 */
export class Accounts {
  readonly #vdis = new Map<number, Map<number, number>>()

  of(vid: number): Account {
    return this.#vdis.get(vid) ?? NOTHING
  }

  /** Blocks with data on this node. */
  get physicalBlocks(): number {
    let sum = 0
    for (const [vid, blocks] of this.#vdis) sum += blocks.get(vid) ?? 0
    return sum
  }

  /** Adds to an account and returns what it says then. Damage may have made it wrong before: nothing falls below zero. */
  add(vid: number, deltas: Account): AccountImage {
    const account = this.of(vid)
    const blocks = [...deltas].map(
      ([holder, delta]) => [holder, Math.max(0, (account.get(holder) ?? 0) + delta)] as const,
    )
    const image: AccountImage = { kind: 'account', vid, whole: false, blocks }
    this.apply(image)
    return image
  }

  replace(vid: number, blocks: Account): AccountImage {
    const image: AccountImage = { kind: 'account', vid, whole: true, blocks: [...blocks] }
    this.apply(image)
    return image
  }

  apply({ vid, whole, blocks }: AccountImage): void {
    let account = whole ? undefined : this.#vdis.get(vid)
    if (!account) {
      account = new Map()
      this.#vdis.set(vid, account)
    }
    for (const [holder, count] of blocks) {
      if (count > 0) account.set(holder, count)
      else account.delete(holder)
    }
    if (account.size === 0) this.#vdis.delete(vid)
  }

  /** All that there is, as records. */
  *images(): Generator<AccountImage> {
    for (const [vid, blocks] of this.#vdis) yield { kind: 'account', vid, whole: true, blocks: [...blocks] }
  }

  clear(): void {
    this.#vdis.clear()
  }
}

/** What a generation of the journal changed in the accounts, as it left them. */
export class AccountImages {
  readonly #vdis = new Map<number, { whole: boolean; blocks: Map<number, number> }>()

  put({ vid, whole, blocks }: AccountImage): void {
    let found = whole ? undefined : this.#vdis.get(vid)
    if (!found) {
      found = { whole, blocks: new Map() }
      this.#vdis.set(vid, found)
    }
    for (const [holder, count] of blocks) found.blocks.set(holder, count)
  }

  get size(): number {
    return this.#vdis.size
  }

  *[Symbol.iterator](): Generator<AccountImage> {
    for (const [vid, { whole, blocks }] of this.#vdis) yield { kind: 'account', vid, whole, blocks: [...blocks] }
  }
}
