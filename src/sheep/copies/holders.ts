import { StoreError } from '../../errors.ts'
import { inodeOid } from '../../protocol/oid.ts'
import type { Member, View } from '../membership/view.ts'
import type { NodeId } from '../order/item.ts'
import { subtract } from './block-ranges.ts'
import type { LocalRead } from './copy-holder.ts'
import type { CopyAnswer, CopyRequest, RequestOf, RequestType } from './messages.ts'
import type { OwnedObject } from './owned-object.ts'
import { holdersByView, membersOf, type PlacedView } from './reconcile.ts'
import type { Generation } from './version.ts'

export interface HoldersOptions {
  vid: number
  /** The entry of the log that names this owner, and the life of its process. */
  index: number
  incarnation: string
  /** All views since the last clean one, which comes first, up to the one in effect. */
  views: readonly View[]
  targetsOf(oid: bigint, view: View): readonly NodeId[]
  /** So many copies at least have what is acknowledged in that view. */
  copiesMinIn(view: View): number
  /** Brings requests to a holder, as `messages.ts` says. An error, thrown or not, says that there is no answer in time. */
  send(to: Member, request: CopyRequest, done: (outcome: CopyAnswer | Error) => void): void
  /** Reads from the copies of this node, as CopyHolder.readNow. */
  readNow(request: LocalRead, done: (isRead: boolean) => void): boolean
  /** The member does not answer: it is to be put out of the view. Said again and again while it does not. */
  suspect(member: Member): void
}

/** Who may have copies, as the owner asks them: under one generation for each view. */
export class Holders {
  readonly #options: HoldersOptions
  #views: readonly View[]
  #generation: Generation
  #isEnded = false
  /** How often a copy was found to lack what it should have. */
  setbacks = 0
  /** The epoch in which all targets had all of each object; 0 when there was none yet. */
  completeEpoch = 0
  /** Who may have something that is not on the disk, with the last sequence that was sent there. */
  readonly unsynced = new Map<NodeId, number>()

  constructor(options: HoldersOptions) {
    this.#options = options
    this.#views = options.views
    const { epoch, members } = this.view
    this.#generation = { epoch, index: options.index, incarnation: options.incarnation }
    for (const { node } of members) this.unsynced.set(node, 0)
  }

  /** All since the last clean one, which comes first; others as soon as there is anything new. */
  get views(): readonly View[] {
    return this.#views
  }

  get view(): View {
    return this.#views.at(-1)!
  }

  get generation(): Generation {
    return this.#generation
  }

  get epoch(): number {
    return this.#generation.epoch
  }

  /** So many copies at least have what is acknowledged now. */
  get copiesMin(): number {
    return this.#options.copiesMinIn(this.view)
  }

  get isEnded(): boolean {
    return this.#isEnded
  }

  throwIfEnded(): void {
    if (this.#isEnded) throw new StoreError('OldEpoch')
  }

  end(): void {
    this.#isEnded = true
  }

  /** Whether there is a new generation now. In that everybody may have something that is not on the disk. */
  viewsChanged(views: readonly View[], lastSequence: number): boolean {
    this.#views = views
    const { epoch, members } = this.view
    if (epoch === this.#generation.epoch) return false
    this.#generation = { ...this.#generation, epoch }
    this.unsynced.clear()
    for (const { node } of members) this.unsynced.set(node, lastSequence)
    return true
  }

  get vid(): number {
    return this.#options.vid
  }

  /**
   * `done` is called later, never from within. It gets null when nothing more can come of it under this generation: there is no answer,
   * or a newer one is known there.
   */
  send(to: Member, request: CopyRequest, done: (answer: CopyAnswer | null) => void): void {
    let hasReturned = false
    const settle = (outcome: CopyAnswer | Error) => {
      if (!hasReturned) return queueMicrotask(() => settle(outcome))
      if (outcome instanceof Error) {
        if (!this.#isEnded) this.#options.suspect(to)
        return done(null)
      }
      if (outcome.refused === 'stale' || outcome.refused === 'rotten') this.setbacks++
      done(outcome.refused === 'old generation' ? null : outcome)
    }
    try {
      this.#options.send(to, request, settle)
    } catch (error) {
      settle(error as Error)
    }
    hasReturned = true
  }

  /** From the copy of this node, as CopyHolder.readNow. */
  readNow(oid: bigint, first: number, target: Buffer, done: (isRead: boolean) => void): boolean {
    return this.#options.readNow({ vid: this.vid, generation: this.#generation, oid, first, target }, done)
  }

  /** As `send`. */
  ask<T extends RequestType>(
    to: Member,
    request: Omit<RequestOf<T>, 'vid' | 'generation'> & { type: T },
  ): Promise<Exclude<CopyAnswer<T>, { refused: 'old generation' }> | null> {
    const whole = { ...request, vid: this.vid, generation: this.#generation } as unknown as CopyRequest
    return new Promise((resolve) =>
      this.send(to, whole, (answer) => resolve(answer as Exclude<CopyAnswer<T>, { refused: 'old generation' }> | null)),
    )
  }

  /** Whether it is the process that owns the VDI. */
  isNear({ incarnation }: Member): boolean {
    return incarnation === this.#options.incarnation
  }

  isTarget(oid: bigint, { node }: Member): boolean {
    return this.targets(oid).includes(node)
  }

  lacksTarget(object: OwnedObject): boolean {
    return this.targets(object.oid).some((node) => !object.acting.has(node))
  }

  /** Whether all targets have the whole object, but for what nobody has any more. */
  areWhole(object: OwnedObject): boolean {
    const copies = this.targets(object.oid).map((node) => object.acting.get(node))
    return copies.every((copy) => copy !== undefined && subtract(copy.missing, object.rotten).length === 0)
  }

  placedViews(oid: bigint): readonly PlacedView[] {
    const { targetsOf, copiesMinIn } = this.#options
    return this.#views.map((view) => ({ ...view, targets: targetsOf(oid, view), copiesMin: copiesMinIn(view) }))
  }

  /** All in the view in effect who may have a copy that counts. */
  possible(oid: bigint): readonly Member[] {
    const members = membersOf(this.view)
    const nodes = [...holdersByView(this.placedViews(oid)).values()].at(-1)!
    return nodes.flatMap((node) => members.get(node) ?? [])
  }

  /**
   * Whether of each object that was ever acknowledged some member of the view in effect has a copy, or knows that it should have one. In each
   * view since the clean one all targets of an object do, which are in as many zones; so not all of them are away unless nodes of
   * so many zones are. While somebody was away already an object may have had fewer targets, but no fewer than had to acknowledge it.
   */
  get knowAllObjects(): boolean {
    const here = membersOf(this.view)
    const isAway = ({ node, vnodes }: Member) => vnodes > 0 && !here.has(node) && !this.view.removed?.includes(node)
    return this.#views.every((view) => {
      const zones = new Set(view.members.filter(isAway).map(({ zone }) => zone))
      const copiesMin = this.#options.copiesMinIn(view)
      const targets = this.targets(inodeOid(this.vid), view).length
      return targets < copiesMin || zones.size < (view.away ? Math.min(targets, copiesMin) : targets)
    })
  }

  /** Who should have a copy, in the view in effect or in one of those before. */
  targets(oid: bigint, view = this.view): readonly NodeId[] {
    return this.#options.targetsOf(oid, view)
  }
}
