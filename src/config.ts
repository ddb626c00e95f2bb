import { parseArgs } from 'node:util'
import { parse } from 'yaml'
import { parseAddress } from './runtime/network.ts'
import { type Config, SETTINGS, SETTINGS_SCHEMA, shownValue } from './settings.ts'

export type { Config } from './settings.ts'

/** Settings that cannot be used: every problem in one message, a line each, naming the setting and where it was set. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'

  constructor(problems: readonly string[]) {
    super(problems.join('\n'))
  }
}

export interface ConfigInputs {
  /** Flags only: `--data-dir X`, `--config FILE`, and so on. */
  argv: readonly string[]
  env: Readonly<Record<string, string | undefined>>
  /** The text of a file; throws what the file system throws. */
  readFile(path: string): string
}

export interface LoadedConfig {
  config: Config
  /** For every setting by its dotted name: `--listen`, `COLLIE_LISTEN`, the file's path or `default`. */
  sources: ReadonlyMap<string, string>
  /** What is likely a mistake but does no harm. */
  warnings: readonly string[]
}

interface Found {
  value: unknown
  source: string
}

/**
 * The settings of this process: a flag wins over the environment (`COLLIE_*`), that over the file named by `--config` or
 * `COLLIE_CONFIG`, that over the default. Throws a ConfigError.
 */
export function loadConfig({ argv, env, readFile }: ConfigInputs): LoadedConfig {
  const flags = parseFlags(argv)
  const file = flags.config ?? env.COLLIE_CONFIG
  const found = new Map<string, Found>()
  if (file !== undefined)
    for (const [name, value] of readSettings(file, readFile)) found.set(name, { value, source: file })
  for (const { name, variable, flag, fromText } of SETTINGS) {
    const fromEnv = env[variable]
    if (fromEnv !== undefined) found.set(name, { value: fromText(fromEnv), source: variable })
    const fromFlag = flags[flag]
    if (fromFlag !== undefined) found.set(name, { value: fromText(fromFlag), source: `--${flag}` })
  }
  const sources = new Map(SETTINGS.map(({ name }) => [name, found.get(name)?.source ?? 'default']))
  const config = validate(found, sources)
  const problems = COMBINATIONS.flatMap((check) => check(config) ?? [])
  if (problems.length > 0) throw new ConfigError(problems)
  return { config: freeze(config), sources, warnings: unknownVariables(env) }
}

/** The flags of all settings, and `--config`, for parseArgs. */
export const SETTING_FLAGS = Object.fromEntries(['config', ...SETTINGS.map(({ flag }) => flag)].map(stringFlag))

function stringFlag(flag: string): [string, { type: 'string' }] {
  return [flag, { type: 'string' }]
}

function parseFlags(argv: readonly string[]): Record<string, string | undefined> {
  try {
    return parseArgs({ args: [...argv], options: SETTING_FLAGS, strict: true, allowPositionals: false }).values
  } catch (error) {
    throw new ConfigError([(error as Error).message])
  }
}

/** Setting names and values of a YAML file; groups may be nested or dotted. Null means "not set". */
function readSettings(file: string, readFile: (path: string) => string): [string, unknown][] {
  let document: unknown
  try {
    document = parse(readFile(file)) ?? {}
  } catch (error) {
    throw new ConfigError([`${file}: ${(error as Error).message.trimEnd()}`])
  }
  if (!isRecord(document)) throw new ConfigError([`${file}: expected settings, such as \`log: { level: debug }\``])
  const settings = flatten('', document).filter(([, value]) => value !== null)
  const unknown = settings.filter(([name]) => !SETTINGS.some((setting) => setting.name === name))
  if (unknown.length > 0) {
    throw new ConfigError(
      unknown.map(([name]) => `${name}: there is no such setting (from ${file}); see \`collie config show\``),
    )
  }
  return settings
}

function flatten(prefix: string, group: Record<string, unknown>): [string, unknown][] {
  return Object.entries(group).flatMap(([key, value]): [string, unknown][] =>
    isRecord(value) ? flatten(`${prefix}${key}.`, value) : [[prefix + key, value]],
  )
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function validate(found: ReadonlyMap<string, Found>, sources: ReadonlyMap<string, string>): Config {
  const input: Record<string, unknown> = {}
  for (const [name, { value }] of found) {
    const [group, key] = name.split('.') as [string, string?]
    if (key === undefined) input[group] = value
    else input[group] = { ...(input[group] as object | undefined), [key]: value }
  }
  const parsed = SETTINGS_SCHEMA.safeParse(input)
  if (parsed.success) return parsed.data
  throw new ConfigError(
    parsed.error.issues.map(({ path: keys, message }) => {
      const name = keys.filter((part) => typeof part === 'string').join('.')
      const setting = SETTINGS.find((one) => name === one.name || name.startsWith(`${one.name}.`))
      const from = setting?.name ?? name
      const value = setting ? shownValue(setting, found.get(from)?.value) : found.get(from)?.value
      return `${name}: ${message} (from ${sources.get(from)}: ${JSON.stringify(value)})`
    }),
  )
}

/** Settings that are each valid but cannot work together. Each says what to do instead. */
const COMBINATIONS: readonly ((config: Config) => string | null)[] = [
  ({ roles, cluster }) =>
    roles.includes('gateway') && !roles.includes('store') && cluster === 'single'
      ? 'roles: a gateway without `store` would need a cluster to join, and `cluster: single` is none; add `store`'
      : null,
  ({ roles }) => (new Set(roles).size === roles.length ? null : 'roles: each role at most once'),
  ({ backends }) => {
    const names = backends.map(({ name }) => name)
    const twice = names.find((name, index) => names.indexOf(name) !== index)
    return twice === undefined ? null : `backends: there are two of the name ${twice}`
  },
  ({ backends }) => {
    const blind = backends.find(
      ({ store, data_dir, control }) => store !== null && data_dir === null && control === null,
    )
    return blind === undefined
      ? null
      : `backends: ${blind.name} needs \`control\`, the control socket of the node at ${blind.store}, to end exports`
  },
  ({ backends, availability_zone: fallback }) =>
    backends.some(({ availability_zone }) => (availability_zone ?? fallback) === fallback)
      ? null
      : `availability_zone: no backend is in ${fallback}, so that volumes that ask for no zone have no place`,
  ({ copies, cluster }) =>
    copies === 1 || cluster !== 'single'
      ? null
      : `copies: ${copies} copies need as many nodes, and \`cluster: ${cluster}\` has one; leave it at 1`,
  ({ copies, copies_min }) =>
    copies_min === null || copies_min <= copies
      ? null
      : `copies_min: no write could be acknowledged by ${copies_min} nodes, as there are ${copies} copies; raise \`copies\`, or leave it out`,
  ({ auth, listen }) =>
    auth !== 'noauth' || isLoopback(listen)
      ? null
      : `auth: \`noauth\` lets everyone who reaches ${listen} do everything; listen on loopback or use \`auth: local\``,
  ({ auth, keystone }) =>
    auth === 'keystone' && (keystone.url === null || keystone.password === null)
      ? `keystone.${keystone.url === null ? 'url' : 'password'}: \`auth: keystone\` needs to know where Keystone is, and an account that may validate tokens`
      : null,
  ({ backup, backup_s3 }) => {
    const missing = (['bucket', 'access_key', 'secret_key'] as const).find((name) => backup_s3[name] === null)
    return backup.target === 's3' && missing !== undefined
      ? `backup_s3.${missing}: \`backup.target: s3\` needs a bucket, and a key with its secret that may use it`
      : null
  },
  ({ backup, backup_swift }) => {
    const missing = (['auth_url', 'password'] as const).find((name) => backup_swift[name] === null)
    return backup.target === 'swift' && missing !== undefined
      ? `backup_swift.${missing}: \`backup.target: swift\` needs to know who gives tokens, and an account that gets one`
      : null
  },
  ({ key_manager, auth }) =>
    key_manager === 'barbican' && auth !== 'keystone'
      ? `key_manager: Barbican is asked with tokens of Keystone, and \`auth: ${auth}\` takes others; use \`auth: keystone\` or leave it at local`
      : null,
  ({ sheep_listen, cluster }) =>
    isLoopback(sheep_listen) || cluster !== 'single'
      ? null
      : `sheep_listen: the Sheepdog protocol knows no authentication and ${sheep_listen} can be reached from outside; listen on loopback`,
  ({ sheep_listen, cluster }) =>
    cluster === 'single' || !('path' in parseAddress(sheep_listen))
      ? null
      : `sheep_listen: other nodes cannot reach ${sheep_listen}; give a host and a port`,
  ({ sheep_listen, cluster, cluster_key_file }) =>
    cluster === 'single' || cluster_key_file !== null || isLoopback(sheep_listen)
      ? null
      : `cluster_key_file: ${sheep_listen} can be reached from outside, and without a key anybody could be a node; make one with \`collie cluster init\`, or listen on loopback`,
  ({ sheep_listen, cluster, advertise }) =>
    cluster === 'single' || advertise !== null || !isWildcard(sheep_listen)
      ? null
      : `advertise: other nodes cannot connect to ${sheep_listen}; say which host name or address they reach this node by`,
  ({ nbd_listen, advertise, roles }) =>
    !roles.includes('gateway') || advertise !== null || !isWildcard(nbd_listen)
      ? null
      : `advertise: clients cannot connect to ${nbd_listen}; say which host name or address they reach this node by`,
  ({ nbd_tls, nbd_tls_cert, nbd_tls_key }) =>
    nbd_tls === 'off' || (nbd_tls_cert !== null && nbd_tls_key !== null)
      ? null
      : `nbd_tls_${nbd_tls_cert === null ? 'cert' : 'key'}: \`nbd_tls: ${nbd_tls}\` needs a certificate and its key`,
  ({ nbd_tls, nbd_tls_cert, nbd_tls_key, nbd_tls_ca }) =>
    nbd_tls !== 'off' || (nbd_tls_cert ?? nbd_tls_key ?? nbd_tls_ca) === null
      ? null
      : 'nbd_tls: certificates are named, and `off` uses none of them; say `optional` or `required`',
  (config) => {
    const addresses = [config.listen, config.sheep_listen, config.nbd_listen].filter(
      (address) => !address.endsWith(':0'),
    )
    const twice = addresses.find((address, index) => addresses.indexOf(address) !== index)
    return twice === undefined ? null : `listen, sheep_listen, nbd_listen: ${twice} can only be used once`
  },
]

function isLoopback(address: string): boolean {
  const target = parseAddress(address)
  return (
    'path' in target || target.host === 'localhost' || target.host === '::1' || /^127(\.\d{1,3}){3}$/.test(target.host)
  )
}

function isWildcard(address: string): boolean {
  const target = parseAddress(address)
  return 'host' in target && ['0.0.0.0', '::', ''].includes(target.host)
}

function unknownVariables(env: ConfigInputs['env']): string[] {
  const known = new Set(['COLLIE_CONFIG', ...SETTINGS.map(({ variable }) => variable)])
  return Object.keys(env)
    .filter((variable) => variable.startsWith('COLLIE_') && !known.has(variable))
    .map((variable) => `${variable} is set in the environment, but there is no such setting`)
}

function freeze<T extends object>(config: T): T {
  for (const value of Object.values(config)) if (typeof value === 'object' && value !== null) freeze(value)
  return Object.freeze(config)
}
