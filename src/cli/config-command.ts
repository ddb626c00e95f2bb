import { loadConfig } from '../config.ts'
import { SETTINGS, shownValue } from '../settings.ts'
import { type Command, EXIT } from './command.ts'
import { table } from './table.ts'

export const configShow: Command = {
  name: 'config show',
  usesSettings: true,
  summary: 'Print every setting with its value, where that came from, and what it means.',
  run: async ({ io, argv, print }) => {
    const { config, sources, warnings } = loadConfig({ argv, env: io.env, readFile: io.readFile })
    for (const warning of warnings) io.err(`collie: ${warning}`)
    const rows = SETTINGS.map((setting) => ({
      name: setting.name,
      value: shownValue(setting, settingValue(config, setting.name)),
      source: sources.get(setting.name) ?? 'default',
      description: setting.description,
    }))
    print(rows, () =>
      table([
        ['SETTING', 'VALUE', 'FROM', 'MEANING'],
        ...rows.map(({ name, value, source, description }) => [name, formatValue(value), source, description]),
      ]),
    )
    return EXIT.OK
  },
}

function settingValue(config: object, dottedName: string): unknown {
  return dottedName.split('.').reduce<unknown>((group, key) => (group as Record<string, unknown>)[key], config)
}

function formatValue(value: unknown): string {
  if (value === null) return '-'
  return Array.isArray(value) ? value.map(nameOf).join(',') : String(value)
}

/** Of an entry that is a group of settings, its name; `--json` prints all of it. */
function nameOf(entry: unknown): unknown {
  return typeof entry === 'object' && entry !== null && 'name' in entry ? entry.name : entry
}
