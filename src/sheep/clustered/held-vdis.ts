import { StoreError, type StoreErrorCode } from '../../errors.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { ClusterState } from '../cluster-state.ts'
import { deferred } from '../copies/deferred.ts'
import type { Entry } from '../entries.ts'
import type { Owner } from '../owner-contract.ts'
import type { Turns } from '../turns.ts'
import type { NodeAnswers, Told } from './node-questions.ts'
import type { OwnedFamily } from './owned-family.ts'

export interface HeldVdisOptions {
  state: ClusterState
  clock: Clock
  turns: Turns<number>
  /** As sessions use them. */
  owners: { of(vid: number): Owner; forget(vid: number): void }
  /** Undefined when this node does not own it. */
  familyOf(family: number): OwnedFamily | undefined
  /** Lets another owner find out what this one cannot tell. */
  resign(owned: OwnedFamily): void
  /** An entry sets aside a vid, under which the VDI of that name may go on. */
  setAside(name: string, vid: number): Promise<number>
  propose(entry: Entry): Promise<void>
}

/** From the turn of a hold until it is called off: a client waits no longer for a snapshot of several VDIs that does not come. */
export const HELD_MAX_MS = 10_000
const RETRY_MS = 200

interface HeldVdi {
  name: string
  vid: number
  newVid: number
  owned: OwnedFamily
  owner: Owner
}

interface Hold {
  readonly vdis: HeldVdi[]
  /** Resolves when it has come to its end, whatever that is; and when whoever asked for it has let go. */
  readonly over: ReturnType<typeof deferred>
  readonly released: ReturnType<typeof deferred>
  /** How, for who asked for it. */
  endedWith: StoreErrorCode
  isOver: boolean
  /** What is written of the VDIs that are about to be made. */
  prepared: Promise<unknown>
}

/**
 * The part of an owner in a snapshot of several VDIs whose owners are different nodes.
 *
 * 1. `hold` takes the turns of the families, so that nothing else is done to them as a whole, and sets aside the vids under which the
 *    VDIs go on. `freeze` closes their gates, and writes what these vids start with.
 * 2. A gate opens again when the log says how it has ended, and not before: the entry of the snapshots has taken effect; or one
 *    that says `void` has, after which that of the snapshots never does; or another node owns the family. So no gate is open
 *    while another one that had to be closed with it may still be in the same snapshot.
 * 3. Who has not heard the end after a while proposes `void`. That needs nobody who asked for the hold.
 */
export class HeldVdis {
  readonly answers: Pick<NodeAnswers, 'hold_vdis' | 'freeze_vdis' | 'release_vdis'>
  readonly #options: HeldVdisOptions
  readonly #holds = new Map<string, Hold>()

  constructor(options: HeldVdisOptions) {
    this.#options = options
    this.answers = {
      hold_vdis: ({ hold, names }) => this.#hold(hold, names),
      freeze_vdis: async ({ hold }) => {
        await this.#freeze(hold)
        return {}
      },
      release_vdis: async ({ hold }) => {
        this.#holds.get(hold)?.released.resolve()
        return {}
      },
    }
  }

  /** To be told of each entry in the turn in which it has taken effect, after the owners. */
  applied(entry: Entry): void {
    if (entry.type === 'snapshots') this.#end(new Set(entry.of.map(({ newVid }) => newVid)))
    if (entry.type === 'void') this.#end(new Set(entry.vids))
  }

  /** This node owns the family no more. */
  lost(owned: OwnedFamily): void {
    this.#endIf(({ vdis }) => vdis.some((held) => held.owned === owned), 'OldEpoch')
  }

  #end(newVids: ReadonlySet<number>): void {
    this.#endIf(({ vdis }) => vdis.some(({ newVid }) => newVids.has(newVid)))
  }

  #endIf(isEnded: (hold: Hold) => boolean, code: StoreErrorCode = 'Busy'): void {
    for (const hold of this.#holds.values()) {
      if (hold.isOver || !isEnded(hold)) continue
      hold.isOver = true
      hold.endedWith = code
      for (const { owner } of hold.vdis) owner.thaw()
      for (const { owner } of hold.vdis) this.#options.owners.forget(owner.vid)
      hold.over.resolve()
    }
  }

  async #hold(id: string, names: readonly string[]): Promise<Told<'hold_vdis'>> {
    const { state, turns } = this.#options
    if (this.#holds.has(id)) throw new StoreError('InvalidParameters', 'there is a hold of that id')
    const families = new Set(names.map((name) => state.find(name).family))
    for (const family of families) this.#ownedOf(family)
    const hold: Hold = {
      vdis: [],
      over: deferred(),
      released: deferred(),
      endedWith: 'Busy',
      isOver: false,
      prepared: Promise.resolve(),
    }
    this.#holds.set(id, hold)
    return new Promise((resolve, reject) => {
      const work = async () => {
        try {
          await this.#setAside(hold, names, families)
          const owners = new Set(hold.vdis.map(({ owned }) => owned.owner.index))
          resolve({ owners: [...owners], vdis: hold.vdis.map(({ name, vid, newVid }) => ({ name, vid, newVid })) })
          await this.#untilOver(hold)
        } catch (error) {
          reject(error)
        } finally {
          await this.#clear(hold)
        }
      }
      turns
        .takeAll(
          [...families].sort((a, b) => a - b),
          work,
        )
        .finally(() => this.#holds.delete(id))
        .catch(reject)
    })
  }

  async #setAside(hold: Hold, names: readonly string[], families: ReadonlySet<number>): Promise<void> {
    const { state, owners, setAside } = this.#options
    const set = names.map(async (name) => {
      const { vid, family } = state.find(name)
      if (!families.has(family)) throw new StoreError('NoVdi', name) // another by now
      const owned = this.#ownedOf(family)
      const newVid = await setAside(name, vid)
      hold.vdis.push({ name, vid, newVid, owned, owner: owners.of(vid) })
    })
    // All have ended before it is given up: what comes late would be left behind.
    for (const result of await Promise.allSettled(set)) if (result.status === 'rejected') throw result.reason
    for (const { owned } of hold.vdis) if (this.#options.familyOf(owned.owner.family) !== owned) hold.isOver = true
    if (hold.isOver) throw new StoreError('OldEpoch')
  }

  async #freeze(id: string): Promise<void> {
    const hold = this.#holds.get(id)
    if (!hold || hold.isOver) throw new StoreError(hold?.endedWith ?? 'OldEpoch')
    const frozen = hold.vdis.map(async ({ vid, newVid, owned, owner }) => {
      await Promise.race([owner.freeze(), hold.over.promise])
      if (hold.isOver) throw new StoreError(hold.endedWith)
      await owned.vdis.prepare(newVid, vid)
    })
    hold.prepared = Promise.allSettled(frozen)
    await Promise.all(frozen)
  }

  async #untilOver(hold: Hold): Promise<void> {
    const { clock } = this.#options
    await Promise.race([hold.over.promise, hold.released.promise, clock.sleep(HELD_MAX_MS)])
    while (!hold.isOver) {
      const vids = hold.vdis.map(({ newVid }) => newVid)
      const owners = hold.vdis.map(({ owned }) => owned.owner.index)
      await this.#options.propose({ type: 'void', vids, owners }).catch(() => {}) // perhaps it is: else it is said once more
      await Promise.race([hold.over.promise, clock.sleep(RETRY_MS)])
    }
  }

  /** What was set aside, and is not the VDI's that it was for, is free again. */
  async #clear(hold: Hold): Promise<void> {
    const { state, familyOf, resign } = this.#options
    hold.isOver = true
    hold.over.resolve()
    await hold.prepared
    for (const { newVid, owned } of hold.vdis) {
      const { family } = owned.owner
      if (state.makings.get(newVid)?.family !== family) continue
      const current = familyOf(family) // else the next owner does it
      await current?.vdis.abandon(newVid).catch(() => resign(current))
    }
  }

  #ownedOf(family: number): OwnedFamily {
    const owned = this.#options.familyOf(family)
    if (!owned) throw new StoreError('OldEpoch', 'another node owns the VDI')
    return owned
  }
}
