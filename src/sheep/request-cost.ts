import { BODY_SIZE_MAX_BYTES, FLAG, RESULT } from '../protocol/constants.ts'
import type { IncomingRequest } from '../protocol/frame-reader.ts'
import { acceptsProtoVer, mayAnswerBody, OP } from '../protocol/opcodes.ts'
import { OBJECT_BYTES } from './object-format.ts'

/** What a request without a body is taken to cost, so that many small ones are bounded too. */
const REQUEST_COST_BYTES = 4096

/** Data by name of an object or within a session. What else they answer with is nothing, or as long as the client has said. */
const MOVES_DATA: ReadonlySet<number> = new Set([
  OP.READ_OBJ,
  OP.WRITE_OBJ,
  OP.CREATE_AND_WRITE_OBJ,
  OP.DISCARD_OBJ,
  OP.FLUSH_VDI,
  OP.READ_VDI,
  OP.WRITE_VDI,
  OP.DISCARD_VDI,
  OP.ZERO_VDI,
  OP.FLUSH_VDI_SESSION,
  OP.STAT_VDI_SESSION,
])

/** What is answered to a request that no operation may see; null for the rest. */
export function refusalOf(request: IncomingRequest): number | null {
  if (!acceptsProtoVer(request.opcode, request.protoVer ?? 0)) return RESULT.VER_MISMATCH
  const offersTooMuch = (request.flags & FLAG.WRITE) === 0 && (request.dataLength ?? 0) > BODY_SIZE_MAX_BYTES
  return offersTooMuch ? RESULT.INVALID_PARMS : null
}

/** Memory that a request keeps until it is answered, as far as its header tells: for its body, or for the data that it reads. */
export function costBytes(request: IncomingRequest): number {
  const { opcode, flags, dataLength = 0 } = request
  if ((flags & FLAG.WRITE) !== 0) return REQUEST_COST_BYTES + dataLength // read even when it is refused
  if (refusalOf(request) !== null) return REQUEST_COST_BYTES
  if (opcode === OP.READ_OBJ || opcode === OP.READ_VDI) return REQUEST_COST_BYTES + dataLength
  return REQUEST_COST_BYTES + (opcode === OP.GET_HASH ? OBJECT_BYTES : 0)
}

/** How long its answer is shows only when that is made: a list, a map, whatever the store has to say. */
export function answersUnforeseen({ opcode, flags }: IncomingRequest): boolean {
  return mayAnswerBody(flags) && !MOVES_DATA.has(opcode)
}
