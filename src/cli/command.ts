import { parseArgs } from 'node:util'
import { UsageError } from '../errors.ts'

/** Exit codes of BSD's sysexits, so that scripts can tell a wrong call from a node that is down. */
export const EXIT = {
  OK: 0,
  USAGE: 64,
  DATA_UNSOUND: 65,
  UNAVAILABLE: 69,
  INTERNAL: 70,
  CONFIG: 78,
} as const

/** What a command may use of its process; `main` provides it. */
export interface CommandIo {
  env: Readonly<Record<string, string | undefined>>
  readFile(path: string): string
  out(text: string): void
  err(text: string): void
}

export interface CommandCall {
  io: CommandIo
  /** The settings' flags, as given. */
  argv: readonly string[]
  json: boolean
  /** Prints `value` as JSON with `--json`, else the lines of `text`. */
  print(value: unknown, text: () => string): void
}

export interface Command {
  /** As typed: `vdi list`. */
  name: string
  summary: string
  /** More for `--help`, when the summary does not say it all. */
  description?: string
  /** Resolves with the exit code. Rejections become messages and codes in run.ts. */
  run(call: CommandCall): Promise<number>
}

export interface ParsedLine {
  command: Command | null
  /** The words before the first flag, for messages. */
  words: readonly string[]
  help: boolean
  json: boolean
  argv: readonly string[]
}

/**
 * Takes a command line apart. Flags may stand anywhere after the command; those of the settings go on unread, so that
 * config.ts alone knows them. Throws a UsageError for a flag or a word that nothing knows.
 */
export function parseLine(
  args: readonly string[],
  commands: readonly Command[],
  settingFlags: Readonly<Record<string, { type: 'string' }>>,
): ParsedLine {
  const options = { ...settingFlags, help: { type: 'boolean', short: 'h' }, json: { type: 'boolean' } } as const
  let parsed: ReturnType<typeof parse>
  const parse = () => parseArgs({ args: [...args], options, strict: true, allowPositionals: true })
  try {
    parsed = parse()
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
  const { help = false, json = false, ...settings } = parsed.values
  return {
    command: commands.find(({ name }) => name === parsed.positionals.join(' ')) ?? null,
    words: parsed.positionals,
    help: help === true,
    json: json === true,
    argv: Object.entries(settings).flatMap(([flag, value]) =>
      typeof value === 'string' ? [`--${flag}=${value}`] : [],
    ),
  }
}
