import { type StoreError, toStoreError } from '../../errors.ts'
import { oidVid } from '../../protocol/oid.ts'
import type { Clock, Timer } from '../../runtime/clock.ts'
import type { ClusterState } from '../cluster-state.ts'
import type { CopyHolder } from '../copies/copy-holder.ts'
import type { EngineCopyStore } from '../copies/engine-copy-store.ts'
import type { Entry } from '../entries.ts'
import type { NodeId } from '../order/item.ts'
import type { Places } from './places.ts'
import type { VdiCopies } from './vdi-copies.ts'

export interface CopyCleanerOptions {
  state: ClusterState
  store: EngineCopyStore
  holder: CopyHolder
  places: Places
  clock: Clock
  /** This one. */
  node: NodeId
  copies: VdiCopies
  /** See CatchUp. */
  catchUp(): Promise<boolean>
  failed(error: StoreError): void
}

/** What could not be forgotten is tried again after so long: there may be no entry for hours. */
const RETRY_MS = 1000

/**
 * What this node need not know of its copies any more, and need not have, as entries of the log tell.
 *
 * 1. That a family is clean in a view speaks of the members of that view. Who was away then keeps the versions of his copies: they
 *    say what he lacks.
 * 2. What is clean is forgotten after all that does not belong here is gone: else that would look as good as the rest.
 *    Nothing is forgotten either while somebody keeps his places: what he lacks when he is back is found by versions. So they are kept
 *    until his copies are clean, too.
 * 3. A vid may be given to another VDI. So a node that was away when the objects of the one before were removed drops them when it
 *    learns of that.
 * 4. Owners may know more of the log than this node. What they have made here by entries that are still to come is not to be taken for
 *    what is left of something.
 */
export class CopyCleaner {
  readonly #options: CopyCleanerOptions
  /** When VDIs were made, before the state was replaced. */
  #former: ReadonlyMap<number, number> = new Map()
  #cleanedEpoch = 0
  /** Set while what is clean could not be forgotten, for want of entries that are still to come, or because an owner was at it. */
  #retry: Timer | null = null
  #work: Promise<unknown> = Promise.resolve()

  constructor(options: CopyCleanerOptions) {
    this.#options = options
  }

  /** Resolves when all is done that was told of. */
  get settled(): Promise<unknown> {
    return this.#work
  }

  /** To be called before a state is replaced as a whole. */
  replacing(): void {
    this.#former = new Map([...this.#options.state.vdis.values()].map(({ vid, createdAt }) => [vid, createdAt]))
  }

  /** An entry has taken effect: to be told in the same turn. */
  applied(entry: Entry): void {
    const { state } = this.#options
    if (entry.type === 'clean' || this.#retry) this.#forget()
    if ((entry.type === 'reclaimed' || entry.type === 'unmade') && !this.#wasThere(state.epoch)) {
      this.#drop([entry.vid])
    }
    if (entry.type !== 'state') return
    const former = this.#former
    this.#former = new Map()
    this.#drop([...former.keys()].filter((vid) => state.vdis.get(vid)?.createdAt !== former.get(vid)))
  }

  stop(): void {
    this.#retry?.cancel()
  }

  #forget(): void {
    this.#retry?.cancel()
    this.#retry = null
    this.#inTurn(() => this.#forgetClean())
  }

  #drop(vids: readonly number[]): void {
    // What there is of them is looked up now: in its turn there may be another VDI of that number.
    const drop = this.#options.holder.dropOf(vids)
    this.#inTurn(() => drop(this.#pause))
  }

  readonly #pause = () => new Promise<void>((resolve) => this.#options.clock.afterInput(resolve))

  #inTurn(work: () => Promise<unknown>): void {
    this.#work = this.#work.then(work).catch((error) => this.#options.failed(toStoreError(error)))
  }

  async #forgetClean(): Promise<void> {
    const { store, holder, catchUp } = this.#options
    const clean = this.#cleanThrough()
    if (clean <= this.#cleanedEpoch) return
    let isAwaited = false
    const belongsHere = (oid: bigint) => {
      const views = this.#viewsWithUs(oid)
      isAwaited ||= views.includes(true) && !views[0]
      return views.includes(true)
    }
    // What is clean is on those that were targets then. Who has become one since may have an old copy, and needs to know how old it is.
    const isDone = await holder.drop(belongsHere, { catchUp, pause: this.#pause })
    if (!isDone) this.#retry ??= this.#options.clock.timer(RETRY_MS, () => this.#forget())
    // In another view somebody may be there, or be waited for, who was not when that was clean: there is a clean entry to come for it.
    if (!isDone || isAwaited || this.#cleanThrough() !== clean) return
    this.#cleanedEpoch = clean
    await new Promise<void>((resolve, reject) => store.clean(clean, (error) => (error ? reject(error) : resolve())))
  }

  /** The last epoch of which everything may be forgotten; 0 while nothing may be. */
  #cleanThrough(): number {
    const { state } = this.#options
    const isWellKnown = (epoch: number) => this.#wereAllThere(epoch)
    if (state.view.away || ![...state.families.uncleanEpochs()].every(isWellKnown)) return 0
    return state.families.oldestUnclean(state.epoch) - 1
  }

  #wasThere(epoch: number): boolean {
    return this.#membersIn(epoch).has(this.#options.node)
  }

  /** All members of the view in effect. */
  #wereAllThere(epoch: number): boolean {
    const there = this.#membersIn(epoch)
    return this.#options.state.members.every(({ node }) => there.has(node))
  }

  #membersIn(epoch: number): ReadonlySet<NodeId> {
    const logged = this.#options.state.views.find(({ view }) => view.epoch === epoch)
    return new Set(logged?.view.members.map(({ node }) => node))
  }

  /** For each view from the clean one of the object's family on, whether this node is a target of the object; none without a family. */
  #viewsWithUs(oid: bigint): boolean[] {
    const { state, places, node, copies } = this.#options
    const vid = oidVid(oid)
    const family = state.vdis.get(vid)?.family ?? state.makings.get(vid)?.family
    if (family === undefined) return []
    return state.viewsOf(family).map((view) => places.targetsOf(oid, copies.in(vid, view), view).includes(node))
  }
}
