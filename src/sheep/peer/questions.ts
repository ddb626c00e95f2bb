import { StoreError, type StoreErrorCode, toStoreError } from '../../errors.ts'
import { errorOf, resultOf } from '../../results.ts'
import type { Life } from '../membership/view.ts'
import { MalformedMessage } from './byte-reader.ts'
import { type AnyHandler, type Kind, LinkError, promised, REQUEST_COST_BYTES } from './kind.ts'
import type { PeerLinks } from './links.ts'

/** What one node asks of another one as a node, whoever its clients are. As JSON: it is asked once in a while. */
interface Question {
  name: string
  params: unknown
}

type Answer = { result: unknown } | { error: StoreError }

/** An answer has this at most. */
const ANSWER_BYTES_MAX = 8 << 20

/**
 * ```
 * fields = JSON of {name, params}
 * answer = result code of the Sheepdog protocol u32;  body: JSON, or why it failed
 * ```
 */
export const QUESTION: Kind<Question, Answer> = {
  code: 20,
  name: 'question',
  windowBytes: 4 * ANSWER_BYTES_MAX,
  waitingBytesMax: 64 * ANSWER_BYTES_MAX,
  limitMs: null,
  costBytes: () => REQUEST_COST_BYTES + ANSWER_BYTES_MAX / 64,
  encodeRequest: (question, out) => out.bytes(Buffer.from(JSON.stringify(question))),
  decodeRequest: (fields) => {
    const { name, params } = parse(fields.takeRest()) as Partial<Question>
    if (typeof name !== 'string') throw new MalformedMessage('a question without a name')
    return { name, params }
  },
  encodeAnswer: (answer, out) => {
    if ('error' in answer) {
      out.u32(resultOf(answer.error))
      return out.body(Buffer.from(answer.error.message))
    }
    out.u32(0)
    out.body(Buffer.from(JSON.stringify(answer.result ?? null)))
  },
  decodeAnswer: (fields, body) => {
    const failure = errorOf(fields.u32('result'))
    return failure ? { error: told(failure.code, body.toString()) } : { result: parse(body) }
  },
}

/** Answers those who ask; rejections are told with their code. */
export function questionHandler(answer: (name: string, params: unknown) => Promise<unknown>): AnyHandler {
  return promised(QUESTION, ({ name, params }) =>
    answer(name, params).then(
      (result) => ({ result }),
      (error) => ({ error: toStoreError(error) }),
    ),
  )
}

/** Rejects with what the other node refuses it with, and with Disconnected when there is no answer: whether it was done is unknown. */
export async function askPeer(links: PeerLinks, to: Life, name: string, params: unknown): Promise<unknown> {
  const answer = await links.request(to, QUESTION, { name, params }).catch((error) => {
    if (error instanceof LinkError) throw new StoreError('Disconnected', `${to.node} does not answer`, { cause: error })
    throw error
  })
  if ('error' in answer) throw answer.error
  return answer.result
}

/** An error as it was at the other node: its message begins with what its code means. */
function told(code: StoreErrorCode, message: string): StoreError {
  const error = new StoreError(code)
  const prefix = `${error.message}: `
  return message.startsWith(prefix) ? new StoreError(code, message.slice(prefix.length)) : error
}

function parse(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString())
  } catch (cause) {
    throw new MalformedMessage('no JSON', { cause })
  }
}
