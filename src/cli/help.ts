import { SETTINGS } from '../settings.ts'
import type { Command, Option } from './command.ts'
import { usage } from './command-line.ts'
import { table } from './table.ts'

/** What `collie --help` prints; with `words`, only the commands that begin with them. */
export function overview(commands: readonly Command[], words: readonly string[] = []): string {
  const prefix = words.join(' ')
  const matching = commands.filter(({ name }) => name === prefix || name.startsWith(`${prefix} `))
  const shown = matching.length > 0 ? matching : commands
  return [
    'Usage: collie COMMAND [--json] [SETTINGS]',
    '',
    table(shown.map(({ name, summary }) => [`  ${name}`, summary])),
    '',
    '`collie COMMAND --help` says more; `collie config show` prints all settings.',
  ].join('\n')
}

/** What `collie COMMAND --help` prints. */
export function commandHelp(command: Command): string {
  const { summary, description, operands = [], options = [] } = command
  const own = [...operands.map(({ name, meaning }) => [`  ${name}`, meaning]), ...options.map(optionRow)]
  const settings = command.usesSettings ? SETTINGS : SETTINGS.filter(({ flag }) => flag === 'data-dir')
  const flags = [
    ['  --config FILE', 'YAML file of settings; or COLLIE_CONFIG.'],
    ...settings.map(({ flag, description: meaning }) => [`  --${flag} VALUE`, meaning]),
  ]
  return [
    usage(command),
    '',
    summary,
    ...(description === undefined ? [] : ['', description]),
    '',
    table([
      ...own,
      ['  --json', 'Print the result as JSON; progress goes to standard error, a JSON object to a line.'],
      ['  -h, --help', 'Print this.'],
    ]),
    '',
    'Settings, each also as COLLIE_… in the environment or in the file of --config:',
    table(flags),
    ...(command.usesSettings
      ? []
      : ['', 'Other settings are taken too, and change nothing here; `collie config show` prints them.']),
  ].join('\n')
}

function optionRow({ flag, short, value, meaning }: Option): string[] {
  const names = short === undefined ? `--${flag}` : `-${short}, --${flag}`
  return [`  ${names}${value === undefined ? '' : ` ${value}`}`, meaning]
}
