import type { Life } from '../membership/view.ts'
import type { ByteReader } from './byte-reader.ts'
import type { FrameWriter } from './frames.ts'

/**
 * One kind of request that nodes make of each other, and its answer: how they are bytes, and how many of them there may be. Each
 * kind has room of its own, so that requests of one that wait for something never keep those of another from making it happen.
 */
export interface Kind<Q, A> {
  /** On the wire, from 16 on; never given to another kind. */
  readonly code: number
  /** For messages. */
  readonly name: string
  /** How much may be unanswered before the next one waits, with the sender. A peer that does not keep to it is cut off. */
  readonly windowBytes: number
  /** What may wait. One more is refused as busy. */
  readonly waitingBytesMax: number
  /** How long an answer may take, from the call on; null when only the end of the link ends it. */
  readonly limitMs: number | null
  /** Goes out before requests of other kinds that wait for the network. */
  readonly isUrgent?: true
  /**
   * Only of an ordered kind, whose requests mean nothing without those before them: the epoch that one belongs to. See PeerLinks
   * for what is promised.
   */
  epochOf?(request: Q): number
  /** What a request takes of the window, with the answer that is expected. */
  costBytes(request: Q): number
  /** Where the body of the answer is put when it has this length. Not of a kind with a limit, unless it is ordered. */
  targetOf?(request: Q): Buffer | undefined
  /** Whether a handler keeps nothing of the body once it has given this answer: its memory is then used for others. */
  lendsBody?(request: Q, answer: A): boolean
  /** What this throws is what becomes of the request. */
  encodeRequest(request: Q, out: FrameWriter): void
  /** Throws a MalformedMessage. The fields are gone afterwards; the body may be kept, unless it is only lent. */
  decodeRequest(fields: ByteReader, body: Buffer): Q
  encodeAnswer(answer: A, out: FrameWriter, request: Q): void
  /** Throws a MalformedMessage. */
  decodeAnswer(fields: ByteReader, body: Buffer, request: Q): A
}

/** Why there is no answer. */
export class LinkError extends Error {
  override readonly name = 'LinkError'
  readonly reason: LinkErrorReason

  constructor(reason: LinkErrorReason, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.reason = reason
  }
}

export type LinkErrorReason =
  /** There is no link, or no more. The request may have been done or not. */
  | 'lost'
  /** It took too long. The request may have been done or not. */
  | 'late'
  /** Too much waits already. Nothing was done. */
  | 'busy'
  /** The peer failed at it. */
  | 'failed'

export type Done<A> = (outcome: A | LinkError) => void

/** A node at the other end of a link that came in. */
export interface IncomingPeer {
  readonly member: Life
  /** `host:port` of the connection. */
  readonly address: string
  /** Calls once, when the link is over; nothing of it is handed on afterwards. */
  onEnd(ended: () => void): void
}

/**
 * What a node does for others. Called in the order of arrival, and must call `reply` exactly once, at any time, with an error when it
 * has failed. Replies that come after the end of the link are dropped.
 */
export interface Handler<Q, A> {
  readonly kind: Kind<Q, A>
  handle(request: Q, from: IncomingPeer, reply: (answer: A | Error) => void): void
}

/** Of any kind: what belongs together does so by the kind that they share. */
export type AnyHandler = Handler<unknown, unknown>

export function handler<Q, A>(kind: Kind<Q, A>, handle: Handler<Q, A>['handle']): AnyHandler {
  return { kind, handle } as unknown as AnyHandler
}

/** The same for those who answer with a promise. */
export function promised<Q, A>(kind: Kind<Q, A>, answer: (request: Q, from: IncomingPeer) => Promise<A>): AnyHandler {
  return handler(kind, (request, from, reply) => {
    answer(request, from).then(reply, reply)
  })
}

/** What a request without a body is taken to cost, so that many small ones are bounded too. */
export const REQUEST_COST_BYTES = 512
