import { z } from 'zod'
import { parseAddress } from './runtime/network.ts'

/**
 * Every setting, once: its name, type, default and meaning. config.ts finds the values; flags (`--log-level`) and
 * environment variables (`COLLIE_LOG_LEVEL`) are derived from the names.
 */

const address = z.string().refine(isAddress, { error: 'expected host:port or the path of a unix socket' })

const pemFile = z.string().min(1).nullable().default(null)

const limit = z.int().min(-1)

const weight = z.number().min(-1000).max(1000)

/** A part of `host@backend#pool`. */
const hostPart = z.string().regex(/^[\w.:-]{1,64}$/, { error: 'expected letters, digits and _ . : -, at most 64' })

/** One entry of `backends`. */
const backend = z.strictObject({
  name: hostPart.describe(
    'Middle of the `host` of its volumes, `host@name#pool`; must not change while there are any.',
  ),
  driver: z.enum(['sheepdog']).default('sheepdog').describe('What kind of store it is.'),
  data_dir: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe('Data directory of the store node, on this machine; by default the one of this process.'),
  store: address
    .nullable()
    .default(null)
    .describe('Where the node speaks the Sheepdog protocol; by default the socket in its data directory.'),
  control: address
    .nullable()
    .default(null)
    .describe('Control socket of the node; by default the one in its data directory.'),
  nbd: address
    .nullable()
    .default(null)
    .describe('Where clients reach the NBD gateway of the store; by default what the node says.'),
  pool: hostPart.nullable().default(null).describe('Name of its pool; by default that of the backend.'),
  availability_zone: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe('Zone of its volumes; by default the setting `availability_zone`.'),
  volume_backend_name: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe('Name by which volume types ask for it; by default that of the backend. Several may share one.'),
  reserved_percentage: z
    .int()
    .min(0)
    .max(100)
    .default(0)
    .describe('Part of the capacity that volumes are not placed in.'),
  max_over_subscription_ratio: z
    .number()
    .min(1)
    .max(1000)
    .default(20)
    .describe('How many times its capacity thin volumes may promise.'),
  thin: z.boolean().default(true).describe('False promises no more than the capacity.'),
  timeout_seconds: z
    .int()
    .min(1)
    .max(55)
    .default(30)
    .describe('How long a call may take before it counts as failed and is repeated.'),
  faults: z
    .array(z.string().min(1))
    .default([])
    .describe('Faults to rehearse with, such as `error(before 2nd of createVolume)`: see ARCHITECTURE.'),
})

/** Settings of one backend, for the page of settings. */
export const BACKEND_SCHEMA = backend

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
  keystone: z
    .strictObject({
      url: z
        .url({ protocol: /^https?$/ })
        .nullable()
        .default(null)
        .describe('Keystone of the cloud, `http://host:5000/v3`, for `auth: keystone`.'),
      username: z
        .string()
        .min(1)
        .default('cinder')
        .describe('The account that may validate tokens, of the role `service` or `admin`.'),
      password: z.string().min(1).nullable().default(null).meta({ isSecret: true }).describe('Its password.'),
      project: z.string().min(1).default('service').describe('Its project.'),
      user_domain: z.string().min(1).default('Default').describe('Name of its domain.'),
      project_domain: z.string().min(1).default('Default').describe("Name of its project's domain."),
      public_url: z
        .url({ protocol: /^https?$/ })
        .nullable()
        .default(null)
        .describe('Where clients get tokens, as a 401 says it, when not at `url`.'),
      service_roles: z
        .array(z.string().min(1))
        .default(['service'])
        .describe('Whoever sends an X-Service-Token with one of these roles is a service, such as Nova.'),
      cache_seconds: z
        .int()
        .min(0)
        .max(3600)
        .default(60)
        .describe('How long a valid token is not asked about again, and one that has been revoked may still be taken.'),
      timeout_seconds: z
        .int()
        .min(1)
        .max(120)
        .default(10)
        .describe('How long Keystone may stay silent before requests are answered with 503.'),
    })
    .prefault({}),
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
    .array(backend)
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

  message_ttl_days: z
    .int()
    .min(1)
    .max(3650)
    .default(30)
    .describe('How long the messages API tells why work failed; older messages are removed.'),

  cluster: z
    .string()
    .refine(isCluster, {
      error:
        'expected `single`, `corosync` or `etcd://[user:password@]host:port[,host:port…][/name]` (`etcds://` for TLS)',
    })
    .default('single')
    .meta({ hasLogin: true })
    .describe(
      'How store nodes find each other: `single` is one node alone, `corosync` that of this host, `etcd://host:port,…/name` an etcd, in which clusters differ by name.',
    ),
  cluster_key_file: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe(
      'File with the name and the key of the cluster, the same on all its nodes; `collie cluster init` makes it. Only nodes on loopback do without.',
    ),
  zone: z
    .int()
    .min(0)
    .max(0xffff_ffff)
    .nullable()
    .default(null)
    .describe(
      'Number of what this node may fail together with, such as a rack: copies of an object are in different zones. By default each node is one.',
    ),
  vnodes: z
    .int()
    .min(1)
    .max(16_384)
    .nullable()
    .default(null)
    .describe(
      'Places of this node on the ring, by which it gets its share of all objects. By default in proportion to its room, 512 for what the first node of the cluster had when that was made.',
    ),
  copies: z.int().min(1).max(31).default(1).describe('Copies of each object; a single node holds one.'),
  copies_min: z
    .int()
    .min(1)
    .max(31)
    .nullable()
    .default(null)
    .describe(
      'Copies that must be on nodes that are there for a write to be acknowledged; by default two, or as many as there are copies.',
    ),
  rebalance_delay: z
    .int()
    .min(0)
    .max(86_400)
    .default(600)
    .describe(
      'Seconds that a node may be away before what it held is made anew elsewhere. Of objects that would have one copy only, another one is made at once.',
    ),
  disks: z
    .array(z.string().min(1))
    .default([])
    .describe(
      'Directories on other disks that hold objects too, besides the data directory; an empty one becomes part of the store.',
    ),
  without_disks: z
    .array(z.string().min(1))
    .default([])
    .describe('Disks that are lost for good: the store starts without them, and what they held answers errors.'),
  durability: z
    .enum(['flush', 'write'])
    .default('flush')
    .describe('When a write survives loss of power: at the next flush, or (`write`) as soon as it is acknowledged.'),
  journal_size_mib: z
    .int()
    .min(16)
    .max(65536)
    .default(128)
    .describe('Size of the journal. A larger one smooths longer bursts of writes and takes longer to replay.'),
  reserve_mib: z
    .int()
    .min(0)
    .default(256)
    .describe('Free space of the disk that writes leave alone, so that deleting always works.'),
  recovery_rate_mib: z
    .int()
    .min(1)
    .max(100_000)
    .default(100)
    .describe(
      'How many MiB per second this node copies, for each volume family that it owns, to nodes that lack them.',
    ),
  scrub_rate_mib: z
    .int()
    .min(0)
    .max(65536)
    .default(8)
    .describe(
      'MiB per second that the scrub reads in the background, at most one round a day, to find rot early; 0 is off.',
    ),

  lock_grace_seconds: z
    .int()
    .min(0)
    .max(3600)
    .default(10)
    .describe('How long a lock of QEMU or tgt outlives their last connection.'),

  backup: z
    .strictObject({
      directory: z
        .string()
        .min(1)
        .nullable()
        .default(null)
        .describe(
          'Where backups are kept: a directory, best on another host; by default `backups` in the data directory. Created when absent.',
        ),
    })
    .prefault({}),

  image_service: z
    .strictObject({
      url: z
        .url({ protocol: /^https?$/ })
        .nullable()
        .default(null)
        .describe(
          'Where volumes get images from and are uploaded to: OpenStack Glance, `http://host:9292`. It is called with the token of whoever asks. Without it, images are refused.',
        ),
      timeout_seconds: z
        .int()
        .min(1)
        .max(45)
        .default(30)
        .describe('How long it may stay silent before a transfer counts as broken off and is tried again.'),
      transfers: z
        .int()
        .min(1)
        .max(16)
        .default(4)
        .describe('Images that are downloaded at the same time, and as many that are uploaded; others wait.'),
      conversion_directory: z
        .string()
        .min(1)
        .nullable()
        .default(null)
        .describe(
          'Where images that are not raw lie while they are converted; by default `conversion` in the data directory. Created when absent; no two processes may share it.',
        ),
      conversion_gib: z
        .int()
        .min(1)
        .max(1_048_576)
        .default(64)
        .describe('How much of that directory images may fill; one that needs more is refused.'),
    })
    .prefault({}),

  compute_service: z
    .strictObject({
      auth_url: z
        .url({ protocol: /^https?$/ })
        .nullable()
        .default(null)
        .describe(
          'Keystone of the cloud whose servers use the volumes, `http://host:5000/v3`: with it Nova is told when a volume in use has grown or got another image, and moves volumes in use to other backends. Without it, nobody does.',
        ),
      username: z
        .string()
        .min(1)
        .default('cinder')
        .describe(
          'The account that may tell Nova, of the role `service` or `admin`; to move volumes it takes `admin`.',
        ),
      password: z.string().min(1).nullable().default(null).meta({ isSecret: true }).describe('Its password.'),
      project_name: z.string().min(1).default('service').describe('Its project.'),
      user_domain_name: z.string().min(1).default('Default').describe('Domain of the account.'),
      project_domain_name: z.string().min(1).default('Default').describe('Domain of its project.'),
      region_name: z.string().min(1).nullable().default(null).describe('Region whose Nova it is; by default any.'),
      interface: z
        .enum(['public', 'internal', 'admin'])
        .default('public')
        .describe('Which of the endpoints in the catalog.'),
      url: z
        .url({ protocol: /^https?$/ })
        .nullable()
        .default(null)
        .describe('Where Nova is, `http://host:8774/v2.1`, when not where the catalog says.'),
      timeout_seconds: z
        .int()
        .min(1)
        .max(45)
        .default(10)
        .describe('How long Keystone and Nova may stay silent before the call counts as failed and is repeated.'),
      swap_timeout_minutes: z
        .int()
        .min(1)
        .max(20_160) // a timer has 31 bits of milliseconds
        .default(1440)
        .describe(
          'How long Nova may take to move a volume in use to another backend. One that it has not moved by then stays where it is, and its migration has failed.',
        ),
    })
    .prefault({})
    .refine(({ auth_url, password }) => auth_url === null || password !== null, {
      error: 'auth_url needs a password',
      path: ['password'],
    }),

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

const ETCD_URL =
  /^etcds?:\/\/([^/@\s]+@)?(\[[\da-f:]+\]|[\w.-]+):\d{1,5}(,(\[[\da-f:]+\]|[\w.-]+):\d{1,5})*(\/[\w./-]*)?$/i

function isCluster(text: string): boolean {
  return text === 'single' || text === 'corosync' || ETCD_URL.test(text)
}

function isDatabaseUrl(text: string): boolean {
  return URL.canParse(text) && /^postgres(ql)?:$/.test(new URL(text).protocol) && new URL(text).pathname.length > 1
}

function isAddress(text: string): boolean {
  try {
    parseAddress(text)
    return true
  } catch {
    return false
  }
}
