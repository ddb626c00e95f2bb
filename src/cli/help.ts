import { SETTINGS } from '../settings.ts'
import type { Command } from './command.ts'
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
export function commandHelp({ name, summary, description }: Command): string {
  const flags = [
    ['  --config FILE', 'YAML file of settings; or COLLIE_CONFIG.'],
    ...SETTINGS.map(({ flag, description: meaning }) => [`  --${flag} VALUE`, meaning]),
  ]
  return [
    `Usage: collie ${name} [--json] [SETTINGS]`,
    '',
    summary,
    ...(description === undefined ? [] : ['', description]),
    '',
    'Settings, each also as COLLIE_… in the environment or in the file of --config:',
    table(flags),
  ].join('\n')
}
