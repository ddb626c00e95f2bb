import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { BACKEND_SCHEMA } from '../src/settings/backend.ts'
import { SETTINGS, SETTINGS_SCHEMA } from '../src/settings.ts'

/** `npx tsx scripts/config-docs.ts` writes the page into the tree; a test fails while the committed one differs. */
export const CONFIG_PAGE = new URL('../docs/configuration.md', import.meta.url)

/** What the JSON form of the schema says about one setting. */
interface Field {
  type?: 'string' | 'integer' | 'number' | 'boolean' | 'array' | 'object' | 'null'
  default?: unknown
  description?: string
  enum?: readonly string[]
  items?: Field
  anyOf?: readonly Field[]
  minimum?: number
  maximum?: number
  format?: string
  properties?: Record<string, Field>
}

const INTRODUCTION = `# Settings

<!-- Written by scripts/config-docs.ts from src/settings.ts. Change that, then run \`npx tsx scripts/config-docs.ts\`. -->

A setting can be given in four places. The first one that has it wins:

1. a flag: \`--log-level debug\`
2. the environment: \`COLLIE_LOG_LEVEL=debug\`
3. the YAML file that \`--config FILE\` or \`COLLIE_CONFIG\` names: \`log: { level: debug }\`
4. the default

Flag and variable follow from the name: dots and underscores become dashes in the flag, dots become underscores in the
variable. A list is written with commas, and in YAML as a list. An address is \`host:port\`, \`[v6]:port\`, or the path of a
unix socket (anything with a slash). Port 0 takes a free one.

\`collie config show\` prints every setting with its value and where that came from; it takes the same flags. Commands
find the running node by its data directory, so give them the \`--data-dir\` or \`--config\` that the node was started with.

A value that cannot be used, an unknown setting in the file and an unknown flag end the program with code 78 (64 for
the flag) and a message that names it. An unknown \`COLLIE_*\` variable is only warned about.
`

const BACKENDS = `## Backends

By default there is one, \`sheepdog\`: the store of the own data directory. More are written as a list, each with a name
that stays:

    backends:
      - name: sheepdog                      # this node's own store
      - name: fast                          # another node on this machine
        data_dir: /srv/collie-fast
        volume_backend_name: ssd
        availability_zone: az2
        reserved_percentage: 5
      - name: remote                        # a node that is reached through forwarded sockets
        store: 127.0.0.1:17000
        control: /run/collie/remote-control.sock
        nbd: storage2.example.org:10809

A backend that does not answer is reported as down, takes no new volumes, and has the work on its volumes wait and be
repeated until it is back.
`

/** The whole page, in Markdown. */
export function configPage(): string {
  const root = z.toJSONSchema(SETTINGS_SCHEMA, { io: 'input' }) as Field
  const rows = SETTINGS.map(({ name, description }) => {
    const field = fieldOf(root, name)
    return `| \`${name}\` | ${showDefault(field.default)} | ${showValues(field)} | ${description} |`
  })
  const table = ['| setting | default | values | meaning |', '|---|---|---|---|', ...rows]
  return [INTRODUCTION, ...table, '', BACKENDS, ...backendTable(), ''].join('\n')
}

function backendTable(): string[] {
  const { properties = {} } = z.toJSONSchema(BACKEND_SCHEMA, { io: 'input' }) as Field
  const rows = Object.entries(properties).map(([key, field]) => {
    const values = field.default === undefined ? `${showValues(field)}, needed` : showValues(field)
    const preset = field.default === undefined || field.default === null ? '' : `, else ${showDefault(field.default)}`
    return `| \`${key}\` | ${values}${preset} | ${field.description} |`
  })
  return ['| key | values | meaning |', '|---|---|---|', ...rows]
}

function fieldOf(root: Field, dottedName: string): Field {
  const found = dottedName.split('.').reduce<Field | undefined>((group, key) => group?.properties?.[key], root)
  if (found === undefined) throw new Error(`the schema has no ${dottedName}`)
  return found
}

function showDefault(value: unknown): string {
  if (value === null || (Array.isArray(value) && value.length === 0)) return 'none'
  if (Array.isArray(value) && typeof value[0] === 'object') return `\`${JSON.stringify(value)}\``
  return `\`${Array.isArray(value) ? value.join(',') : String(value)}\``
}

function showValues(field: Field): string {
  if (field.anyOf !== undefined)
    return field.anyOf
      .filter(({ type }) => type !== 'null')
      .map(showValues)
      .join(' or ')
  if (field.enum !== undefined) return field.enum.map((value) => `\`${value}\``).join(', ')
  if (field.items !== undefined) return `a list of ${showValues(field.items)}`
  if (field.type === 'integer') return showRange(field)
  if (field.type === 'number') return `a number, ${showRange(field)}`
  if (field.type === 'boolean') return '`true`, `false`'
  if (field.type === 'object') return 'entries as below'
  return field.format === 'uri' ? 'URL' : 'text'
}

function showRange({ minimum, maximum }: Field): string {
  return maximum === undefined || maximum === Number.MAX_SAFE_INTEGER
    ? `${minimum} or more`
    : `${minimum} to ${maximum}`
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(CONFIG_PAGE, configPage())
