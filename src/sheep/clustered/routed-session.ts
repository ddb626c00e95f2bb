import { RESULT } from '../../protocol/constants.ts'
import type { SheepRequest } from '../../protocol/message.ts'
import { OP } from '../../protocol/opcodes.ts'
import { UnderWay } from '../../runtime/under-way.ts'
import type { Reply } from '../server.ts'
import type { ChangeOrder, OrderedChange } from './change-order.ts'

/** Where a session is open now: on this node or on another one, under that node's number for it. */
export interface OpenPlace {
  session: number
  vdiSize: number
  /** See ExportRight. */
  opening: number
  /** `null` when the way there is broken: whether the request took effect is unknown. */
  run(request: SheepRequest, reply: (response: Reply | null) => void): void
}

export interface RoutedSessionOptions {
  /**
   * Opens it again where the owner is now, however long that takes. Resolves with the refusal when there is nothing to open any
   * more. Absent for a session that ends with its owner.
   */
  reopen?: (() => Promise<OpenPlace | { result: number }>) | undefined
  /** Of all sessions of the attachment on this node. */
  order: ChangeOrder
  /** It is over by itself. */
  ended(): void
}

class Unanswered implements OrderedChange {
  readonly request: SheepRequest
  readonly reply: (response: Reply) => void
  readonly #session: RoutedSession
  readonly start: number
  readonly end: number
  /** Among all that are. */
  number = 0
  isHeld = false

  constructor(session: RoutedSession, request: SheepRequest, reply: (response: Reply) => void) {
    this.#session = session
    this.request = request
    this.reply = reply
    this.start = request.offset ?? 0
    this.end = this.start + (request.body?.length ?? request.length ?? 0)
  }

  go(): void {
    this.#session.released(this)
  }
}

const CHANGES: ReadonlySet<number> = new Set([OP.WRITE_VDI, OP.DISCARD_VDI, OP.ZERO_VDI])

/**
 * A session as the gateway has it that somebody opened it at. When the owner of the VDI changes, it goes on at the new one: what was
 * not answered is sent again, in its order, and the client feels a pause. That is as if it had just been sent, because
 *
 * - what was sent to the former owner changes nothing any more once the new one has read or written there;
 * - nothing else is done to the bytes of a change before that is answered (ChangeOrder), so it may be done twice;
 * - the new owner admits what was opened through the gateway that opened the attachment last, since nobody else did, and nothing else: a
 *   client that has gone on at another gateway is not overtaken by what it had sent here.
 */
export class RoutedSession {
  readonly #options: RoutedSessionOptions
  #place: OpenPlace | null
  /** Answered with this from now on. */
  #overWith: number | null = null
  readonly #unanswered = new UnderWay<Unanswered>()
  constructor(place: OpenPlace, options: RoutedSessionOptions) {
    this.#place = place
    this.#options = options
  }

  submit(request: SheepRequest, reply: (response: Reply) => void): void {
    if (this.#overWith !== null) return reply({ result: this.#overWith })
    const unanswered = new Unanswered(this, request, reply)
    unanswered.number = this.#unanswered.add(unanswered)
    if (CHANGES.has(request.opcode) && !this.#options.order.begin(unanswered)) return
    if (this.#place) this.#send(unanswered, this.#place)
  }

  /** See OrderedChange. */
  released(unanswered: Unanswered): void {
    if (this.#place) this.#send(unanswered, this.#place)
  }

  /** What is unanswered is answered with `result`, and so is all that comes. Returns where it was open. */
  end(result: number): OpenPlace | null {
    const place = this.#place
    this.#place = null
    this.#overWith ??= result
    const unanswered = this.#unanswered.values()
    this.#unanswered.clear()
    for (const each of unanswered) {
      this.#options.order.end(each)
      each.reply({ result: this.#overWith })
    }
    return place
  }

  #send(unanswered: Unanswered, place: OpenPlace): void {
    const request = { ...unanswered.request } // what waits on the way to a former place stays as it is
    request.session = place.session // in the spread it would take the slow way
    place.run(request, (response) => {
      if (this.#unanswered.get(unanswered.number) !== unanswered || place !== this.#place) return
      if (response === null || OWNER_CHANGED.has(response.result)) return this.#lost(place, response)
      this.#unanswered.delete(unanswered.number)
      this.#options.order.end(unanswered)
      unanswered.reply(response)
    })
  }

  /** Who has answered has it open still: it is closed there, or nobody would do so, and what is under way is waited for by who opens it anew. */
  #lost(place: OpenPlace, response: Reply | null): void {
    this.#place = null
    if (response) closePlace(place)
    const { reopen } = this.#options
    if (reopen) void this.#reopen(reopen)
    else {
      this.end(response?.result ?? RESULT.NETWORK_ERROR)
      this.#options.ended()
    }
  }

  async #reopen(reopen: NonNullable<RoutedSessionOptions['reopen']>): Promise<void> {
    const opened = await reopen()
    if (this.#overWith !== null) {
      if ('run' in opened) closePlace(opened)
    } else if ('run' in opened) {
      this.#place = opened
      const unheld = this.#unanswered.values().filter(({ isHeld }) => !isHeld)
      for (const unanswered of unheld) if (this.#place === opened) this.#send(unanswered, opened)
    } else {
      this.end(opened.result)
      this.#options.ended()
    }
  }
}

/** Answers of a node that does not own the VDI any more, or cannot tell whether it did what was asked. */
export const OWNER_CHANGED: ReadonlySet<number> = new Set([
  RESULT.OLD_NODE_VER,
  RESULT.JOIN_FAILED,
  RESULT.HALT,
  RESULT.SHUTDOWN,
  RESULT.NETWORK_ERROR,
])

/** For who opened it and wants it no more. */
export function closePlace(place: OpenPlace, closed: () => void = () => {}): void {
  place.run({ opcode: OP.CLOSE_VDI, session: place.session }, closed)
}
