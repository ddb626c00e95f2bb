import { RESULT, resultName } from '../protocol/constants.ts'
import type { SheepRequest } from '../protocol/message.ts'
import { OP, OPCODES, opcodeName } from '../protocol/opcodes.ts'
import type { Clock } from '../runtime/clock.ts'
import { Histogram } from '../runtime/histogram.ts'
import type { Reply } from './server.ts'

/** What was asked of this node under one opcode. */
export interface OperationCounts {
  /** `READ_VDI`; one name for all opcodes that have none, so that clients cannot make up new ones. */
  operation: string
  /** From the request to its answer; its count is that of the answered requests. */
  seconds: Histogram
  /** Read, written, discarded or zeroed with success. */
  bytes: number
  /** By the name of the result. */
  errors: Map<string, number>
}

const UNKNOWN = 'unknown'
const KNOWN: ReadonlySet<string> = new Set(Object.keys(OPCODES))

/** Counts the operations that pass, whoever sends them. */
export class OperationMeter {
  readonly #clock: Clock
  readonly #byOpcode: (OperationCounts | undefined)[] = []
  readonly #byName = new Map<string, OperationCounts>()
  inFlight = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** `reply`, with the count in front. To be asked for when the request begins. */
  watch(request: SheepRequest, reply: (response: Reply) => void): (response: Reply) => void {
    const counts = this.#byOpcode[request.opcode] ?? this.#add(request.opcode)
    const startedMs = this.#clock.monotonicMs()
    this.inFlight++
    return (response) => {
      this.inFlight--
      counts.seconds.observe((this.#clock.monotonicMs() - startedMs) / 1000)
      if (response.result === RESULT.SUCCESS) counts.bytes += bytesOf(request, response)
      else countError(counts, response.result ?? RESULT.SUCCESS)
      reply(response)
    }
  }

  counts(): Iterable<OperationCounts> {
    return this.#byName.values()
  }

  #add(opcode: number): OperationCounts {
    const name = opcodeName(opcode)
    const operation = KNOWN.has(name) ? name : UNKNOWN
    const existing = this.#byName.get(operation)
    const counts = existing ?? { operation, seconds: new Histogram(), bytes: 0, errors: new Map<string, number>() }
    this.#byName.set(operation, counts)
    this.#byOpcode[opcode] = counts
    return counts
  }
}

function countError(counts: OperationCounts, result: number): void {
  const name = resultName(result)
  counts.errors.set(name, (counts.errors.get(name) ?? 0) + 1)
}

/** Bytes of a VDI that an operation was about. */
function bytesOf(request: SheepRequest, response: Reply): number {
  switch (request.opcode) {
    case OP.READ_VDI:
    case OP.READ_OBJ:
      return response.body?.length ?? 0
    case OP.WRITE_VDI:
    case OP.WRITE_OBJ:
    case OP.CREATE_AND_WRITE_OBJ:
      return request.body?.length ?? 0
    case OP.DISCARD_VDI:
    case OP.ZERO_VDI:
      return request.length ?? 0
    default:
      return 0
  }
}
