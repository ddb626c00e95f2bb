import { z } from 'zod'
import { address } from './settings/address.ts'
import { BACKEND_SCHEMA } from './settings/backend.ts'
import { BACKUP, BACKUP_S3, BACKUP_SWIFT } from './settings/backup.ts'
import { BARBICAN, COMPUTE_SERVICE, IMAGE_SERVICE, KEY_MANAGER, KEYSTONE } from './settings/other-services.ts'
import { STORE_SETTINGS } from './settings/store.ts'

/**
 * Every setting, once: its name, type, default and meaning. config.ts finds the values; flags (`--log-level`) and
 * environment variables (`COLLIE_LOG_LEVEL`) are derived from the names.
 */

const pemFile = z.string().min(1).nullable().default(null)

const limit = z.int().min(-1)

const weight = z.number().min(-1000).max(1000)

export const SETTINGS_SCHEMA = z.strictObject({
  data_dir: z.string().min(1).default('./data').describe('Directory of everything that is kept; created when absent.'),
  roles: z
    .array(z.enum(['api', 'store', 'gateway']))
    .min(1)
    .default(['api', 'store', 'gateway'])
    .describe('What this process runs: the block storage API, a store node, the gateway that serves volumes over NBD.'),

  listen: address.default('127.0.0.1:8776').describe('Address of the block storage API.'),
  sheep_listen: address
    .default('127.0.0.1:7000')
    .describe('Address of the Sheepdog protocol, besides the socket in the data directory.'),
  sheep_clients: z
    .enum(['host', 'any'])
    .default('host')
    .describe(
      'Who may use the Sheepdog protocol, which knows no authentication, where `sheep_listen` can be reached from outside: processes of this host, or all who reach it. Nodes of the cluster prove their key either way.',
    ),
  nbd_listen: address
    .default('127.0.0.1:10809')
    .describe('Address of the NBD gateway, besides the socket in the data directory.'),
  nbd_tls: z
    .enum(['off', 'optional', 'required'])
    .default('off')
    .describe(
      'TLS of the NBD gateway: clients may begin it (`optional`), or have to before anything else (`required`); then attachments tell `nbds://`.',
    ),
  nbd_tls_cert: pemFile.describe(
    'Its certificate, for the name that clients know it by, with those between it and the root; PEM.',
  ),
  nbd_tls_key: pemFile.describe('The key of the certificate; PEM.'),
  nbd_tls_ca: pemFile.describe(
    'Authorities that sign the certificates of clients, PEM: with it only clients that have one begin TLS.',
  ),
  metrics_listen: address
    .nullable()
    .default(null)
    .describe(
      'Address for `/metrics` and `/healthcheck` alone, for a store without the API, or beside it; off when not set. It asks for no token.',
    ),
  advertise: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe('Host name or address that clients reach this node by; needed when a listener takes all addresses.'),
  public_endpoint: z
    .url({ protocol: /^https?$/ })
    .nullable()
    .default(null)
    .describe(
      'URL of the API as clients see it, for links, when requests do not show it (a proxy that rewrites Host).',
    ),

  auth: z
    .enum(['local', 'keystone', 'noauth'])
    .default('local')
    .describe(
      'Who may call the API: `local` is a small identity of its own, `keystone` asks the one of a cloud, `noauth` believes everyone (loopback only).',
    ),
  policy_file: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe(
      "Rules that differ from upstream's defaults, in Cinder's names and the language of OpenStack's policy files (YAML or JSON). Read at the start.",
    ),
  keystone: KEYSTONE,
  host: z
    .string()
    .regex(/^[\w.-]{1,128}$/, { error: 'expected a host name' })
    .nullable()
    .default(null)
    .describe('Name of this service in `host@backend#pool`; by default the name of the machine.'),
  availability_zone: z
    .string()
    .min(1)
    .default('nova')
    .describe('The availability zone of volumes that ask for none, and of backends that name none.'),
  default_group_type: z
    .string()
    .min(1)
    .max(255)
    .nullable()
    .default(null)
    .describe('Name of the group type that `group_types/default` answers; without it there is none.'),
  backends: z
    .array(BACKEND_SCHEMA)
    .min(1)
    .prefault([{ name: 'sheepdog' }])
    .describe(
      'Stores that volumes can be in, each with the keys that docs/configuration.md lists; as a flag or variable, JSON.',
    ),
  scheduler: z
    .strictObject({
      capacity_weight: weight
        .default(1)
        .describe(
          'How much room counts for where a new volume goes; a negative weight fills one pool after the other.',
        ),
      allocated_capacity_weight: weight
        .default(0)
        .describe('How much the GiB of the volumes there count; a negative weight spreads.'),
      volume_number_weight: weight
        .default(0)
        .describe('How much the number of volumes there counts; a negative weight spreads.'),
      goodness_weight: weight
        .default(0)
        .describe('How much the free part of a pool counts, so that small and large ones fill alike.'),
      max_attempts: z
        .int()
        .min(1)
        .max(100)
        .default(3)
        .describe('Pools that are tried for one volume when they fail to make it.'),
    })
    .prefault({}),
  database: z
    .string()
    .refine(isDatabaseUrl, { error: 'expected postgres://user:password@host/name' })
    .nullable()
    .default(null)
    .meta({ isSecret: true })
    .describe(
      'PostgreSQL to keep volumes and their work in, `postgres://user:password@host/name`, for several API processes; without it, SQLite in the data directory. A password may be left to ~/.pgpass.',
    ),
  database_connections: z
    .int()
    .min(2)
    .max(1000)
    .default(16)
    .describe('Connections to PostgreSQL that one process has at most.'),

  api_share: z
    .number()
    .min(0.01)
    .max(1)
    .nullable()
    .default(null)
    .describe(
      'Part of a processor that requests to the API may take while volumes of the same process are read and written; 1 is off. By default 0.3 on a machine with fewer than four processors, and off on a larger one.',
    ),

  message_ttl_days: z
    .int()
    .min(1)
    .max(3650)
    .default(30)
    .describe('How long the messages API tells why work failed; older messages are removed.'),

  ...STORE_SETTINGS,

  backup: BACKUP,

  backup_s3: BACKUP_S3,

  backup_swift: BACKUP_SWIFT,

  image_service: IMAGE_SERVICE,

  key_manager: KEY_MANAGER,

  barbican: BARBICAN,

  compute_service: COMPUTE_SERVICE,

  log: z
    .strictObject({
      level: z
        .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])
        .default('info')
        .describe('The least important messages to log.'),
    })
    .prefault({}),

  quota: z
    .strictObject({
      volumes: limit.default(-1).describe('Volumes that a project may have; -1 is no limit, here and below.'),
      snapshots: limit.default(-1).describe('Snapshots that a project may have.'),
      gigabytes: limit.default(-1).describe('GiB of all volumes and snapshots of a project.'),
      per_volume_gigabytes: limit.default(-1).describe('GiB of a single volume.'),
      backups: limit.default(-1).describe('Backups that a project may have.'),
      backup_gigabytes: limit.default(-1).describe('GiB of all backups of a project.'),
      groups: limit.default(-1).describe('Groups of volumes that a project may have.'),
    })
    .prefault({}),
})

type DeepReadonly<T> = T extends object ? { readonly [K in keyof T]: DeepReadonly<T[K]> } : T

/** The settings of a process, frozen; read once at its start and passed down as an argument. */
export type Config = DeepReadonly<z.output<typeof SETTINGS_SCHEMA>>

export interface Setting {
  /** Dotted: `log.level`. */
  name: string
  /** `--log-level`, without the dashes in front. */
  flag: string
  /** `COLLIE_LOG_LEVEL`. */
  variable: string
  description: string
  /** May hold a password: never shown, except for where it leads. */
  isSecret: boolean
  /** May hold one before an `@`, which is not shown. */
  hasLogin: boolean
  /** Turns text of a flag or variable into what the schema expects; text that makes no sense is left for it to refuse. */
  fromText(text: string): unknown
}

export const SETTINGS: readonly Setting[] = leaves('', SETTINGS_SCHEMA)

function leaves(prefix: string, schema: z.ZodObject): Setting[] {
  return Object.entries(schema.shape as Record<string, z.ZodType>).flatMap(([key, field]) => {
    const name = prefix + key
    const inner = unwrap(field)
    if (inner instanceof z.ZodObject) return leaves(`${name}.`, inner)
    const words = name.replace('.', '_')
    const setting: Setting = {
      name,
      flag: words.replaceAll('_', '-'),
      variable: `COLLIE_${words.toUpperCase()}`,
      description: field.description ?? '',
      isSecret: field.meta()?.isSecret === true,
      hasLogin: field.meta()?.hasLogin === true,
      fromText: textReader(inner),
    }
    return [setting]
  })
}

/** What people may see of a value: of a secret URL, where it leads. */
export function shownValue({ isSecret, hasLogin }: Setting, value: unknown): unknown {
  if (typeof value !== 'string') return value
  if (hasLogin) return value.replace(/\/\/.*@/, '//…@')
  if (!isSecret) return value
  if (!URL.canParse(value)) return '…'
  const { protocol, host, pathname } = new URL(value)
  return `${protocol}//…@${host}${pathname}`
}

/** The type below its default and its null. */
function unwrap(schema: z.ZodType): z.ZodType {
  let inner = schema
  while (inner instanceof z.ZodDefault || inner instanceof z.ZodPrefault || inner instanceof z.ZodNullable) {
    inner = inner.unwrap() as z.ZodType
  }
  return inner
}

function textReader(schema: z.ZodType): (text: string) => unknown {
  if (schema instanceof z.ZodNumber) return (text) => (/^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text)
  if (schema instanceof z.ZodArray && schema.element instanceof z.ZodObject) return readJson
  if (schema instanceof z.ZodArray) return (text) => text.split(',').map((item) => item.trim())
  return (text) => text
}

function readJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

function isDatabaseUrl(text: string): boolean {
  return URL.canParse(text) && /^postgres(ql)?:$/.test(new URL(text).protocol) && new URL(text).pathname.length > 1
}
