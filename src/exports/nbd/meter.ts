import { Histogram } from '../../runtime/histogram.ts'
import { COMMAND, NBD_ERROR } from './protocol.ts'

/** What clients asked for under one command. */
export interface CommandCounts {
  command: string
  /** All that were read from the wire, also those that were refused. */
  requests: number
  /** Of reads and writes that succeeded, discards and zeroes: bytes of the volume. */
  bytes: number
  /** By the name of the error on the wire. */
  errors: Map<string, number>
  /** From the request to the answer of the volume; without those that were refused before. */
  seconds: Histogram
}

const COMMANDS: readonly (readonly [number, string])[] = [
  [COMMAND.READ, 'read'],
  [COMMAND.WRITE, 'write'],
  [COMMAND.FLUSH, 'flush'],
  [COMMAND.TRIM, 'discard'],
  [COMMAND.CACHE, 'cache'],
  [COMMAND.WRITE_ZEROES, 'write_zeroes'],
  [COMMAND.BLOCK_STATUS, 'block_status'],
  [COMMAND.DISC, 'disconnect'],
]

const ERROR_NAMES: ReadonlyMap<number, string> = new Map(Object.entries(NBD_ERROR).map(([name, code]) => [code, name]))

/** Counts the requests of all connections, and what of them is under way. */
export class CommandMeter {
  requestsInFlight = 0
  bytesInFlight = 0
  readonly #byType: CommandCounts[] = []
  readonly #unknown = newCounts('unknown')

  constructor() {
    for (const [type, command] of COMMANDS) this.#byType[type] = newCounts(command)
  }

  counts(): CommandCounts[] {
    return [...COMMANDS.map(([type]) => this.#byType[type]!), this.#unknown]
  }

  /** A request was read; not all that are read begin. */
  read(type: number): void {
    this.#of(type).requests++
  }

  begin(heldBytes: number): void {
    this.requestsInFlight++
    this.bytesInFlight += heldBytes
  }

  end(heldBytes: number): void {
    this.requestsInFlight--
    this.bytesInFlight -= heldBytes
  }

  succeed(type: number, lengthBytes: number, seconds: number): void {
    const counts = this.#of(type)
    counts.seconds.observe(seconds)
    counts.bytes += lengthBytes
  }

  fail(type: number, error: number, seconds: number): void {
    this.#of(type).seconds.observe(seconds)
    this.refuse(type, error)
  }

  /** It was answered with an error and never began. */
  refuse(type: number, error: number): void {
    const { errors } = this.#of(type)
    const name = ERROR_NAMES.get(error) ?? String(error)
    errors.set(name, (errors.get(name) ?? 0) + 1)
  }

  #of(type: number): CommandCounts {
    return this.#byType[type] ?? this.#unknown
  }
}

function newCounts(command: string): CommandCounts {
  return { command, requests: 0, bytes: 0, errors: new Map(), seconds: new Histogram() }
}
