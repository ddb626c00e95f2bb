import { z } from 'zod'
import { MalformedMessage } from './byte-reader.ts'

/** Of all that goes over links. Nodes of different versions do not talk to each other. */
export const LINK_VERSION = 2

/** Frames of the link itself. */
export const HELLO_CODE = 1
/** Answered by the link; says that the process at the other end goes on. */
export const PING_CODE = 2
export const FIRST_KIND_CODE = 16

const member = z.object({ node: z.string().min(1), incarnation: z.string().min(1) })

/** The first frame of a link, as JSON: who calls whom. Both are lives of nodes, so that no link outlasts a start of either. */
const hello = z.object({
  version: z.int(),
  cluster: z.string(),
  from: member,
  to: member,
  /** Counts the links from one life to the other: what comes over an older one is not heard any more. */
  attempt: z.int().min(1),
})

export type Hello = z.output<typeof hello>

const HELLO_BYTES_MAX = 4096
const FAILURE_BYTES_MAX = 1024

export function encodeHello(said: Hello): Buffer {
  return Buffer.from(JSON.stringify(said))
}

/** Throws a MalformedMessage. */
export function decodeHello(bytes: Buffer): Hello {
  if (bytes.length > HELLO_BYTES_MAX) throw new MalformedMessage(`a hello of ${bytes.length} bytes`)
  try {
    return hello.parse(JSON.parse(bytes.toString()))
  } catch (cause) {
    const fields = cause instanceof z.ZodError ? cause.issues.map((issue) => issue.path.join('.')).join(', ') : 'JSON'
    throw new MalformedMessage(`a hello with wrong ${fields}`, { cause })
  }
}

/** Why a hello or a request is refused. */
export function encodeFailure({ message }: Error): Buffer {
  return Buffer.from(message).subarray(0, FAILURE_BYTES_MAX)
}

export function decodeFailure(bytes: Buffer): string {
  return bytes.toString('utf8', 0, FAILURE_BYTES_MAX)
}
