import { parseArgs } from 'node:util'
import { UsageError } from '../errors.ts'
import type { Command, CommandCall, Operand } from './command.ts'
import { nearest } from './near.ts'

export interface ParsedLine {
  command: Command | null
  /** The words of the command; when they are none, all that stand there. */
  words: readonly string[]
  help: boolean
  call: Pick<CommandCall, 'argv' | 'operands' | 'options' | 'json'>
}

type Flags = Record<string, { type: 'string' | 'boolean'; short?: string }>

const COMMON = { help: { type: 'boolean', short: 'h' }, json: { type: 'boolean' } } as const satisfies Flags

/**
 * Takes a command line apart. Flags may stand anywhere; those of the settings go on unread, so that config.ts alone knows
 * them. Throws a UsageError for a flag that the command does not know and for operands that are missing or too many.
 */
export function parseLine(
  args: readonly string[],
  commands: readonly Command[],
  settingFlags: Readonly<Record<string, { type: 'string' }>>,
): ParsedLine {
  const outer: Flags = { ...settingFlags, ...COMMON }
  // Which flags there are is known only once the command is; its words come before any value of a flag of its own.
  const loose = parseArgs({ args: [...args], options: outer, strict: false })
  const command = findCommand(loose.positionals, commands)
  if (command === null) {
    const call = { json: loose.values.json === true, operands: [], options: {}, argv: [] }
    return { command, words: loose.positionals, help: loose.values.help === true, call }
  }
  const own = flagsOf(command)
  const { values, positionals } = parseStrictly(args, { ...outer, ...own }, command)
  const words = command.name.split(' ')
  const operands = positionals.slice(words.length)
  const help = values.help === true
  if (!help) checkOperands(command, operands)
  const missing = command.options?.find(({ flag, required }) => required && values[flag] === undefined)
  if (missing && !help) throw new UsageError(`--${missing.flag} is missing\n\n${usage(command)}`)
  const given = (flags: object) => Object.keys(flags).filter((flag) => values[flag] !== undefined)
  return {
    command,
    words,
    help,
    call: {
      json: values.json === true,
      operands,
      options: Object.fromEntries(given(own).map((flag) => [flag, values[flag] === true ? '' : String(values[flag])])),
      argv: given(settingFlags).map((flag) => `--${flag}=${values[flag]}`),
    },
  }
}

function flagsOf({ options = [] }: Command): Flags {
  return Object.fromEntries(
    options.map(({ flag, short, value }) => [
      flag,
      { type: value === undefined ? 'boolean' : 'string', ...(short === undefined ? {} : { short }) },
    ]),
  )
}

function parseStrictly(args: readonly string[], options: Flags, command: Command) {
  const { tokens } = parseArgs({ args: [...args], options, strict: false, tokens: true })
  const unknown = tokens.find((token) => token.kind === 'option' && !Object.hasOwn(options, token.name))
  if (unknown?.kind === 'option') {
    const near = nearest(unknown.name, Object.keys(options))
    const advice = near === null ? 'a name that begins with `-` goes behind `--`' : `did you mean --${near}?`
    throw new UsageError(`there is no option ${unknown.rawName}; ${advice}\n\n${usage(command)}`)
  }
  try {
    return parseArgs({ args: [...args], options, strict: true, allowPositionals: true })
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

/** The command whose words the line begins with; the longest that fits. */
function findCommand(words: readonly string[], commands: readonly Command[]): Command | null {
  for (let count = words.length; count > 0; count--) {
    const name = words.slice(0, count).join(' ')
    const command = commands.find((candidate) => candidate.name === name)
    if (command) return command
  }
  return null
}

function checkOperands(command: Command, given: readonly string[]): void {
  const operands = command.operands ?? []
  const missing = operands.filter(isRequired)[given.length]
  if (missing) throw new UsageError(`${missing.name} is missing\n\n${usage(command)}`)
  const extra = operands.at(-1)?.repeated ? undefined : given[operands.length]
  if (extra !== undefined) throw new UsageError(`"${extra}" is one word too many\n\n${usage(command)}`)
}

const isRequired = (operand: Operand): boolean => !operand.optional && !operand.repeated

/** `Usage: collie vdi clone NAME --snapshot TAG --to NAME [OPTIONS] [--json] [SETTINGS]`. */
export function usage({ name, operands = [], options = [] }: Command): string {
  const words = operands.map((operand) => {
    if (operand.repeated) return `[${operand.name}...]`
    return operand.optional ? `[${operand.name}]` : operand.name
  })
  const required = options.filter((option) => option.required).map(({ flag, value }) => `--${flag} ${value}`)
  const others = options.length > required.length ? ['[OPTIONS]'] : []
  return ['Usage: collie', name, ...words, ...required, ...others, '[--json] [SETTINGS]'].join(' ')
}
