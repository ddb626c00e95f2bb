import { z } from 'zod'
import type { Life } from '../membership/view.ts'
import type { Ballot } from '../order/ballot.ts'
import type { Item } from '../order/item.ts'
import { BALLOT, ITEM } from '../order/messages.ts'
import { MalformedMessage } from './byte-reader.ts'
import { type AnyHandler, type IncomingPeer, type Kind, promised, REQUEST_COST_BYTES } from './kind.ts'
import type { PeerLinks } from './links.ts'

/** What one answer has at most of either. A longer state comes in pieces. */
const PIECE_BYTES_MAX = 4 << 20

const question = z.object({
  ballot: BALLOT,
  afterIndex: z.int().min(0),
  /** More of the state that the answer before began with. */
  stateFrom: z.int().min(1).exactOptional(),
})

type Question = z.output<typeof question>

type FetchAnswer = { items: readonly Item[] } | { stateBytes: number; piece: Buffer }

/** The entries that a node's log lacks, or the state in their place. As JSON: it is asked once in a while. */
export const FETCH: Kind<Question, FetchAnswer> = {
  code: 17,
  name: 'log entries',
  windowBytes: 2 * PIECE_BYTES_MAX,
  waitingBytesMax: 16 * PIECE_BYTES_MAX,
  limitMs: 10_000,
  costBytes: () => REQUEST_COST_BYTES + PIECE_BYTES_MAX,
  encodeRequest: (request, out) => out.bytes(Buffer.from(JSON.stringify(request))),
  decodeRequest: (fields) => parse(question, fields.takeRest()),
  encodeAnswer: (answer, out) => {
    if ('items' in answer) {
      out.whole(0)
      return out.body(Buffer.from(JSON.stringify(answer.items)))
    }
    out.whole(answer.stateBytes)
    out.body(answer.piece)
  },
  decodeAnswer: (fields, body) => {
    const stateBytes = fields.whole('stateBytes')
    return stateBytes > 0 ? { stateBytes, piece: body } : { items: parse(z.array(ITEM).readonly(), body) }
  },
}

export type Fetched = readonly Item[] | { state: Buffer }

/** Answers those who fetch. `answer` rejects when this node has not the log of that ballot; a state is not empty. */
export function fetchHandler(answer: (ballot: Ballot, afterIndex: number) => Promise<Fetched>): AnyHandler {
  const begun = new WeakMap<IncomingPeer, Buffer>()
  return promised(FETCH, async ({ ballot, afterIndex, stateFrom = 0 }, from) => {
    const fetched = stateFrom > 0 ? null : await answer(ballot, afterIndex)
    if (fetched && !('state' in fetched)) return { items: asManyAsFit(fetched) }
    const state = fetched?.state ?? begun.get(from)
    if (!state) throw new Error('no state was begun on this link')
    const piece = state.subarray(stateFrom, stateFrom + PIECE_BYTES_MAX)
    if (stateFrom + piece.length < state.length) begun.set(from, state)
    else begun.delete(from)
    return { stateBytes: state.length, piece }
  })
}

/** Rejects when the member does not answer, or not with all of it. */
export async function fetchFrom(links: PeerLinks, to: Life, ballot: Ballot, afterIndex: number): Promise<Fetched> {
  const first = await links.request(to, FETCH, { ballot, afterIndex })
  if ('items' in first) return first.items
  const pieces = [first.piece]
  for (let bytes = first.piece.length; bytes < first.stateBytes; ) {
    const next = await links.request(to, FETCH, { ballot, afterIndex, stateFrom: bytes })
    if ('items' in next || next.stateBytes !== first.stateBytes || next.piece.length === 0)
      throw new MalformedMessage('a piece of another state')
    pieces.push(next.piece)
    bytes += next.piece.length
  }
  return { state: Buffer.concat(pieces) }
}

/** One entry at least: the longest has less than a piece. */
function asManyAsFit(items: readonly Item[]): readonly Item[] {
  let bytes = 0
  const end = items.findIndex(({ payload }) => {
    bytes += 2 * payload.length // JSON escapes quotes, of which payloads are full
    return bytes > PIECE_BYTES_MAX
  })
  return end < 0 ? items : items.slice(0, Math.max(1, end))
}

function parse<T>(schema: z.ZodType<T>, bytes: Buffer): T {
  try {
    return schema.parse(JSON.parse(bytes.toString()))
  } catch (cause) {
    const [issue] = cause instanceof z.ZodError ? cause.issues : []
    throw new MalformedMessage(`${issue?.path.join('.') ?? 'the JSON'} is wrong`, { cause })
  }
}
