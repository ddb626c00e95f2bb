import type { Heartbeat } from '../membership/lease.ts'
import { type AnyHandler, handler, type Kind, REQUEST_COST_BYTES } from './kind.ts'

/** Whether the voter promises; false when the member is being put out. */
export type HeartbeatAnswer = boolean

export const HEARTBEAT: Kind<Heartbeat, HeartbeatAnswer> = {
  code: 16,
  name: 'heartbeat',
  windowBytes: 64 * REQUEST_COST_BYTES,
  waitingBytesMax: 16 * REQUEST_COST_BYTES,
  /** A promise that comes later than this is worth nothing any more. */
  limitMs: 2000,
  isUrgent: true,
  costBytes: () => REQUEST_COST_BYTES,
  encodeRequest: ({ node, incarnation, appliedIndex }, out) => {
    out.shortText(node)
    out.shortText(incarnation)
    out.whole(appliedIndex)
  },
  decodeRequest: (fields) => ({
    node: fields.shortText('node'),
    incarnation: fields.shortText('incarnation'),
    appliedIndex: fields.whole('appliedIndex'),
  }),
  encodeAnswer: (isPromised, out) => out.u8(isPromised ? 1 : 0),
  decodeAnswer: (fields) => fields.u8('isPromised') === 1,
}

/** Answers those who send heartbeats of their own. */
export function heartbeatHandler(promises: (heartbeat: Heartbeat) => HeartbeatAnswer): AnyHandler {
  return handler(HEARTBEAT, (heartbeat, { member }, reply) => {
    const isOwn = heartbeat.node === member.node && heartbeat.incarnation === member.incarnation
    reply(isOwn ? promises(heartbeat) : new Error('a heartbeat that was sent by another node than it is of'))
  })
}
