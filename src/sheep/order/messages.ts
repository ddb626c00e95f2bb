import { z } from 'zod'
import type { Ballot } from './ballot.ts'
import type { Electorate, Item } from './item.ts'

/** What the members of a group tell each other about the log, as JSON. Each belongs to a round of a configuration. */
const round = { configuration: z.string(), round: z.int().min(0) }
const ballot = z.object({
  counter: z.int().min(0),
  ...round,
  leader: z.string(),
}) satisfies z.ZodType<Ballot>
const nodeId = z.string().min(1)
const index = z.int().min(0)
const electorates = z
  .array(z.object({ index, voters: z.array(nodeId).readonly() }) satisfies z.ZodType<Electorate>)
  .readonly()
const entry = {
  origin: z.object({ life: z.string(), sequence: z.int().min(1) }),
  payload: z.string(),
  voters: z.array(nodeId).min(1).readonly().exactOptional(),
}
const item = z.object({ index, ...entry }) satisfies z.ZodType<Item>

export { ballot as BALLOT, item as ITEM }

const report = z.object({
  type: z.literal('report'),
  ...round,
  node: nodeId,
  promised: ballot,
  /** The ballot under which the log was last made whole, and where it ends. */
  adopted: ballot,
  lastIndex: index,
  /** The last one that is known to be committed, and all after it. */
  electorates,
})

const choice = z.object({
  type: z.literal('choice'),
  ballot,
  /** Those whose reports the choice was made from. */
  reporters: z.array(nodeId).readonly(),
  /** A member that reported the best log, and what that is. */
  source: z.string(),
  adopted: ballot,
  lastIndex: index,
  electorates,
})

const message = z.discriminatedUnion('type', [
  report,
  choice,
  /** The round leads nowhere: begin the next one. */
  z.object({ type: z.literal('restart'), ...round }),
  /** The sender has it on disk that it takes no part in earlier ballots any more. */
  z.object({ type: z.literal('promise'), ballot, node: nodeId }),
  /** The sender has the ballot's log on disk, up to `index`. */
  z.object({ type: z.literal('ready'), ballot, node: nodeId, index }),
  z.object({ type: z.literal('ack'), ballot, node: nodeId, index }),
  /** A change of voters names the entry that made them what they are: another one that came first makes it void. */
  z.object({ type: z.literal('propose'), ...round, ...entry, afterIndex: index.exactOptional() }),
  /** The leader's answer to one that is void. */
  z.object({ type: z.literal('decline'), ballot, origin: entry.origin }),
  /** The leader's word on what the ballot's log has next. */
  z.object({ type: z.literal('append'), ballot, item: item }),
])

export type Message = z.infer<typeof message>
export type Report = z.infer<typeof report>
/** The log that a ballot goes on with. */
export type Choice = z.infer<typeof choice>

export function encodeMessage(sent: Message): Buffer {
  return Buffer.from(JSON.stringify(sent))
}

/** Throws when the bytes are none: a member of another version, or no member at all. */
export function decodeMessage(bytes: Buffer): Message {
  return message.parse(JSON.parse(bytes.toString()))
}
