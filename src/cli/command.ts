import type { Clock } from '../runtime/clock.ts'
import type { Network } from '../runtime/network.ts'
import type { Random } from '../runtime/random.ts'

/** Exit codes of BSD's sysexits, so that scripts can tell a wrong call from a node that is down. */
export const EXIT = {
  OK: 0,
  /** The command did what it was asked to, and found what must not be: for `vdi check`, damage. */
  FOUND: 1,
  USAGE: 64,
  DATA_UNSOUND: 65,
  NO_INPUT: 66,
  UNAVAILABLE: 69,
  INTERNAL: 70,
  CANNOT_CREATE: 73,
  IO: 74,
  TRY_LATER: 75,
  NO_PERMISSION: 77,
  CONFIG: 78,
} as const

/** What went wrong in words for the person who typed the command, and the code to exit with. */
export class CommandFailure extends Error {
  override readonly name = 'CommandFailure'
  readonly exitCode: number

  constructor(exitCode: number, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.exitCode = exitCode
  }
}

/** The world outside the process that commands reach; the node is found through it. */
export interface CommandPorts {
  network: Network
  clock: Clock
  random: Random
}

/** What a command may use of its process; `main` provides it. */
export interface CommandIo {
  env: Readonly<Record<string, string | undefined>>
  readFile(path: string): string
  /** One line, or several, to standard output and standard error. */
  out(text: string): void
  err(text: string): void
  /** Standard input, as it comes. */
  input(): AsyncIterable<Buffer>
  /** Bytes to standard output. Resolves when there is room for more; rejects with Interrupted when nobody reads any more. */
  output(bytes: Buffer): Promise<void>
  /** Standard error as a terminal on which a line can be drawn over; null when it is a file or a pipe. */
  terminal: { columns(): number; draw(text: string): void } | null
  /**
   * Runs work that must not be left half-done: the first SIGINT or SIGTERM aborts the signal instead of ending the process,
   * a second one ends it at once.
   */
  interruptible<T>(work: (interrupted: AbortSignal) => Promise<T>): Promise<T>
}

export interface CommandCall {
  io: CommandIo
  /** The settings' flags, as given. */
  argv: readonly string[]
  /** What follows the words of the command, as many as its `operands` ask for. */
  operands: readonly string[]
  /** The command's own options by their flags; of those that take no value, those that were given are `''`. */
  options: Readonly<Record<string, string | undefined>>
  json: boolean
  /** Prints `value` as JSON with `--json`, else the lines of `text`. */
  print(value: unknown, text: () => string): void
}

/** A word of the command line that has no flag: `NAME`. */
export interface Operand {
  name: string
  meaning: string
  optional?: true
  /** Any number of them, none included; only the last may. */
  repeated?: true
}

export interface Option {
  /** `size` for `--size`. No setting may have it. */
  flag: string
  /** One letter: `s` for `-s`. */
  short?: string
  /** What the value is called in the help; without it the option is a switch. */
  value?: string
  meaning: string
  required?: true
}

export interface Command {
  /** As typed: `vdi list`. */
  name: string
  summary: string
  /** More for `--help`, when the summary does not say it all. */
  description?: string
  operands?: readonly Operand[]
  options?: readonly Option[]
  /** All settings matter to it, and are in its help; to others only those by which they find the node. */
  usesSettings?: true
  /** Resolves with the exit code. Rejections become messages and codes in run.ts. */
  run(call: CommandCall): Promise<number>
}
