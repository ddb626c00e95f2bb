import { StoreError } from '../../errors.ts'
import { FLAG, RESULT } from '../../protocol/constants.ts'
import type { SheepRequest } from '../../protocol/message.ts'
import { OP } from '../../protocol/opcodes.ts'
import { resultOf } from '../../results.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { ClusterState } from '../cluster-state.ts'
import type { Life } from '../membership/view.ts'
import type { Holder } from '../ops.ts'
import type { Reply, SheepClient } from '../server.ts'
import { ChangeOrder } from './change-order.ts'
import type { Ownership } from './ownership.ts'
import { isRepeatable, RepeatableChange } from './repeatable.ts'
import { isOfUnknown, placeOf, type RequestPlace } from './request-family.ts'
import { closePlace, type OpenPlace, OWNER_CHANGED, RoutedSession } from './routed-session.ts'

export interface GatewayOptions {
  state: ClusterState
  ownership: Ownership
  clock: Clock
  /** Resolves when this node knows what other nodes have told their clients. */
  catchUp(): Promise<unknown>
  /** By this node's own table of operations. */
  runHere(request: SheepRequest, holder: Holder, reply: (response: Reply) => void): void
  /**
   * By another node's, for a client of this one. `null` when there is no way there, or it broke: whether it took effect is unknown.
   * What the client has open there ends with it.
   */
  runThere(to: Life, holder: Holder, request: SheepRequest, reply: (response: Reply | null) => void): void
  /** As LockHolders. */
  mayChange(request: SheepRequest, holder: SheepClient): boolean
  /** What the client has under way at that node, which has answered, is waited for by whatever it asks there next. */
  endAt(to: Life, holder: SheepClient): Promise<void>
}

interface Routed {
  holder: Holder
  session: RoutedSession
  /** Hash of the name of the attachment; null without one. */
  right: string | null
  order: ChangeOrder
}

/** Between two looks for an owner, when the last one told nothing new. */
const RETRY_MS = 100

/**
 * Where clients of this node come in, when there are several nodes: what they ask is run by the owner of the VDI that it is about,
 * wherever that is, and by this node when nobody owned it. Nothing is known here that would have to be handed over.
 */
export class Gateway {
  readonly #options: GatewayOptions
  readonly #sessions = new Map<number, Routed>()
  readonly #gone = new WeakSet<object>()
  /** Of what clients of the original protocol change. */
  readonly #orders = new WeakMap<SheepClient, ChangeOrder>()
  #nextId = 1
  #isOver = false

  constructor(options: GatewayOptions) {
    this.#options = options
  }

  /** As `runOperation`: `reply` is called once, and nothing is thrown. */
  handle(request: SheepRequest, holder: Holder, reply: (response: Reply) => void): void {
    const { state, catchUp } = this.#options
    const place = placeOf(request, state)
    if (place.kind === 'session') return this.#useSession(request, holder, reply)
    const again = () => void catchUp().then(() => this.#run(placeOf(request, state), request, holder, reply))
    if (isOfUnknown(request, state)) return again()
    this.#run(place, request, holder, (response) => (MISSING.has(response.result) ? again() : reply(response)))
  }

  #run(place: RequestPlace, request: SheepRequest, holder: Holder, reply: (response: Reply) => void): void {
    switch (place.kind) {
      case 'family': {
        void this.#runOfFamily(place.family, request, holder).then(reply, (error) => reply({ result: resultOf(error) }))
        return
      }
      case 'all':
        void this.#runEverywhere(request, holder).then(reply, (error) => reply({ result: resultOf(error) }))
        return
      default:
        return this.#options.runHere(request, holder, reply)
    }
  }

  /** Its sessions are over: those on other nodes are closed there. */
  clientClosed(holder: SheepClient): void {
    this.#gone.add(holder)
    for (const [id, routed] of this.#sessions) if (routed.holder === holder) this.#close(id, routed.session)
  }

  stop(): void {
    this.#isOver = true
    for (const [id, { session }] of this.#sessions) this.#close(id, session)
  }

  get sessionCount(): number {
    return this.#sessions.size
  }

  #useSession(request: SheepRequest, holder: Holder, reply: (response: Reply) => void): void {
    const id = request.session ?? 0
    const routed = this.#sessions.get(id)
    if (!routed || routed.holder !== holder) return reply({ result: RESULT.FENCED })
    if (request.opcode !== OP.CLOSE_VDI) return routed.session.submit(request, reply)
    this.#close(id, routed.session, () => reply({ result: RESULT.SUCCESS }))
  }

  #close(id: number, session: RoutedSession, closed: () => void = () => {}): void {
    this.#sessions.delete(id)
    const place = session.end(RESULT.FENCED)
    if (place) closePlace(place, closed)
    else closed()
  }

  async #open(family: number, request: SheepRequest, holder: Holder): Promise<Reply> {
    const opened = await this.#openPlace(family, request, holder)
    if (!('run' in opened)) return opened
    if (holder && this.#gone.has(holder)) {
      closePlace(opened)
      return { result: RESULT.FENCED }
    }
    const id = this.#nextId++
    // Without a right nobody knows who else came in the meantime: such a session ends with its owner.
    const { opening } = opened
    const right = request.body?.length ? request.body.toString() : null
    const resumes = right && { ...request, flags: (request.flags ?? 0) | FLAG.RESUME, opening }
    const order = this.#orderOf(right)
    const session = new RoutedSession(opened, {
      reopen: resumes ? () => this.#reopen(family, resumes, holder) : undefined,
      order,
      ended: () => this.#sessions.delete(id),
    })
    this.#sessions.set(id, { holder, session, right, order })
    return { result: RESULT.SUCCESS, session: id, vdiSize: opened.vdiSize }
  }

  /** The one of the other sessions of the attachment. */
  #orderOf(right: string | null): ChangeOrder {
    if (right !== null) for (const routed of this.#sessions.values()) if (routed.right === right) return routed.order
    return new ChangeOrder()
  }

  /** Not at once: who could not answer may own it still. */
  async #reopen(family: number, request: SheepRequest, holder: Holder): Promise<OpenPlace | Reply> {
    try {
      await this.#pause()
      return await this.#openPlace(family, request, holder)
    } catch (error) {
      return { result: resultOf(error) }
    }
  }

  /** At the owner, whoever that comes to be. */
  async #openPlace(family: number, request: SheepRequest, holder: Holder): Promise<OpenPlace | Reply> {
    for (;;) {
      const owner = await this.#ownerOf(family)
      const run = (sent: SheepRequest, reply: (response: Reply | null) => void) =>
        this.#runAt(owner, sent, holder, reply)
      const response = await new Promise<Reply | null>((resolve) => run(request, resolve))
      if (response?.result === RESULT.SUCCESS) {
        return { session: response.session ?? 0, vdiSize: response.vdiSize ?? 0, opening: response.opening ?? 0, run }
      }
      if (response && !isElsewhere(response)) return response
      await this.#pause()
    }
  }

  #runOfFamily(family: number, request: SheepRequest, holder: Holder): Promise<Reply> {
    if (request.opcode === OP.OPEN_VDI) return this.#open(family, request, holder)
    if (holder && isRepeatable(request)) return this.#runUntilAnswered(family, request, holder)
    return this.#runByOwner(family, request, holder)
  }

  /**
   * What a client of the original protocol reads and writes: it knows of no owners, and tells its machine of an error. When the owner changes,
   * or cannot tell what it did, the same is asked again. That is as if it had just been asked, for the reasons that RoutedSession has;
   * and an owner that stays the same ends what came the former way before it begins with what comes again.
   */
  async #runUntilAnswered(family: number, request: SheepRequest, holder: SheepClient): Promise<Reply> {
    const change = RepeatableChange.of(request)
    const order = this.#orders.get(holder) ?? new ChangeOrder()
    this.#orders.set(holder, order)
    if (change && !order.begin(change)) await change.isFree
    try {
      while (!this.#gone.has(holder)) {
        const owner = await this.#ownerOf(family)
        if (change && !this.#options.mayChange(request, holder)) return { result: RESULT.VDI_LOCKED }
        const response = await new Promise<Reply | null>((resolve) => this.#runAt(owner, request, holder, resolve))
        if (response && response.result !== RESULT.AGAIN && !OWNER_CHANGED.has(response.result)) return response
        if (response && !NOT_BEGUN.has(response.result)) await this.#options.endAt(owner, holder)
        await this.#pause()
      }
      return { result: RESULT.NETWORK_ERROR }
    } finally {
      if (change) order.end(change)
    }
  }

  /** What it answers with OldEpoch has not begun there. */
  async #runByOwner(family: number, request: SheepRequest, holder: Holder): Promise<Reply> {
    for (;;) {
      const owner = await this.#ownerOf(family)
      const response = await new Promise<Reply | null>((resolve) => this.#runAt(owner, request, holder, resolve))
      if (!response) return { result: RESULT.NETWORK_ERROR }
      if (response.result !== RESULT.OLD_NODE_VER) return response
      await this.#pause()
    }
  }

  async #runEverywhere(request: SheepRequest, holder: Holder): Promise<Reply> {
    const { state, ownership } = this.#options
    await Promise.all(
      state.members.map(async (member) => {
        const life = { node: member.node, incarnation: member.incarnation }
        // Who cannot be reached has let go of everything once it is out of the view.
        while (ownership.isIn(life)) {
          const response = await new Promise<Reply | null>((resolve) => this.#runAt(life, request, holder, resolve))
          if (response?.result === RESULT.SUCCESS) return
          if (response) throw new StoreError('Unsure', `${life.node} has not let go`)
          await this.#pause()
        }
      }),
    )
    return { result: RESULT.SUCCESS }
  }

  #ownerOf(family: number): Promise<Life> {
    if (this.#isOver) throw new StoreError('Stopping')
    return this.#options.ownership.claim(family)
  }

  #runAt(to: Life, request: SheepRequest, holder: Holder, reply: (response: Reply | null) => void): void {
    const { ownership, runHere, runThere } = this.#options
    // It has waited for too long: nobody would end what its client got now, and another connection may have gone on.
    const isLate = holder !== null && this.#gone.has(holder) && request.opcode !== OP.CLOSE_VDI
    if (isLate) reply({ result: RESULT.FENCED })
    else if (ownership.isSelf(to)) runHere(request, holder, reply)
    else runThere(to, holder, request, reply)
  }

  /** Until something is known anew, or for a while. */
  async #pause(): Promise<void> {
    const { ownership, clock } = this.#options
    if (this.#isOver) throw new StoreError('Stopping')
    await Promise.race([ownership.changed, clock.sleep(RETRY_MS)])
  }
}

/** Said of what another node may know, and have told its client: nothing was done. */
const MISSING: ReadonlySet<number> = new Set([RESULT.NO_VDI, RESULT.NO_TAG, RESULT.NO_BASE_VDI, RESULT.NOT_FOUND])

/** Another node owns it; or that one has too much to do, and QEMU would not ask again. */
const NOT_BEGUN: ReadonlySet<number> = new Set([RESULT.OLD_NODE_VER, RESULT.AGAIN])

/** The family is not, or not any more, that node's. */
const isElsewhere = ({ result }: Reply): boolean =>
  result === RESULT.OLD_NODE_VER ||
  result === RESULT.HALT ||
  result === RESULT.SHUTDOWN ||
  result === RESULT.JOIN_FAILED
