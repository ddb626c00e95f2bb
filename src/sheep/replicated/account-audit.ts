import { dataOid } from '../../protocol/oid.ts'
import { type Account, blocksIn } from '../accounts.ts'
import type { ClusterState } from '../cluster-state.ts'
import type { Vdi } from '../entries.ts'
import { sameBlocks } from '../maintenance/recount.ts'
import { OBJECT_BYTES } from '../object-format.ts'
import { FamilyAccounts } from './family-accounts.ts'
import type { Grace } from './grace.ts'
import { countView, ObjectViews } from './object-view.ts'
import type { ReplicatedMap } from './replicated-map.ts'
import type { ReplicatedObjects } from './replicated-objects.ts'
import type { ReplicatedOwner } from './replicated-owner.ts'

export interface AccountAuditOptions {
  objects: ReplicatedObjects
  accounts: FamilyAccounts
  grace: Grace
  state: ClusterState
  family: number
  /** Counts the entries that were applied. */
  entries(): number
  mapOf(vid: number): ReplicatedMap
  ownerOf(vid: number, sizeBytes: number): ReplicatedOwner
}

/** A VDI whose account does not say what its map and its objects say, in blocks. */
export interface WrongAccount {
  vdi: Vdi
  said: number
  counted: number
}

/**
 * Counts what the living VDIs of a family hold anew, from maps and objects and nothing that is remembered of them, and compares it with their
 * accounts, while they are used. It goes by index: while one is counted nobody writes there, and what changes behind it is
 * added in both.
 */
export class AccountAudit {
  readonly #options: AccountAuditOptions
  readonly #counted = new FamilyAccounts(() => {})

  constructor(options: AccountAuditOptions) {
    this.#options = options
  }

  /** How many VDIs were compared, and those that were wrong, which `repair` sets right in the same turn. Throws what the objects do. */
  async run(repair: boolean): Promise<{ compared: number; wrong: WrongAccount[] }> {
    const { accounts } = this.#options
    accounts.follower = this.#counted
    try {
      for (let index = 0; index < this.#end(); ) if (await this.#countIndex(index)) index++
      this.#counted.countedTo(Number.POSITIVE_INFINITY, new Map())
      const vdis = this.#vdis()
      const wrong = vdis.flatMap((vdi): WrongAccount[] => {
        const [said, counted] = [accounts.of(vdi.vid), this.#counted.of(vdi.vid)]
        if (sameBlocks(said, counted)) return []
        const wrong = { vdi, said: blocksIn(said), counted: blocksIn(counted) }
        if (repair) accounts.set(vdi.vid, counted)
        return [wrong]
      })
      return { compared: vdis.length, wrong }
    } finally {
      accounts.follower = null
    }
  }

  /** False when an entry came meanwhile, and it is to be counted again. */
  async #countIndex(index: number): Promise<boolean> {
    const { entries, ownerOf, grace } = this.#options
    const before = entries()
    const working = this.#vdis().filter(({ snapshotAt }) => snapshotAt === 0)
    const owners = working.map(({ vid, sizeBytes }) => ownerOf(vid, sizeBytes))
    const count = () => grace.during(() => this.#count(index))
    return owners.reduceRight<() => Promise<boolean>>(
      (rest, owner) => () => owner.quietly(index, rest),
      async () => {
        const counts = await count()
        if (entries() !== before) return false
        this.#counted.countedTo(index + 1, counts)
        return true
      },
    )()
  }

  async #count(index: number): Promise<Map<number, Account>> {
    const { mapOf, objects } = this.#options
    const counts = new Map<number, Account>()
    const byHead = new Map<number, Account>()
    const views = new ObjectViews(objects, 1)
    for (const { vid } of this.#vdis()) {
      const head = await mapOf(vid).lookup(index)
      if (head === 0) continue
      let counted = byHead.get(head)
      if (!counted) {
        const { view, release } = await views.hold(dataOid(head, index))
        counted = countView(view)
        release()
        byHead.set(head, counted)
      }
      counts.set(vid, counted)
    }
    return counts
  }

  #end(): number {
    return Math.max(0, ...this.#vdis().map(({ sizeBytes }) => Math.ceil(sizeBytes / OBJECT_BYTES)))
  }

  #vdis(): Vdi[] {
    const { state, family } = this.#options
    return state.vdis.ofFamily(family).filter(({ deleting }) => !deleting)
  }
}
