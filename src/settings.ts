import { z } from 'zod'
import { parseAddress } from './runtime/network.ts'

/**
 * Every setting, once: its name, type, default and meaning. config.ts finds the values; flags (`--log-level`) and
 * environment variables (`COLLIE_LOG_LEVEL`) are derived from the names.
 */

const address = z.string().refine(isAddress, { error: 'expected host:port or the path of a unix socket' })

const limit = z.int().min(-1)

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
    .enum(['local', 'noauth'])
    .default('local')
    .describe(
      'Who may call the API: `local` is a small identity of its own, `noauth` believes everyone (loopback only).',
    ),
  availability_zone: z.string().min(1).default('nova').describe('The availability zone that volumes are in.'),

  cluster: z
    .enum(['single'], { error: 'only `single`, one node alone, is available in this version' })
    .default('single')
    .describe('How store nodes find each other; `single` is one node alone.'),
  copies: z.int().min(1).max(31).default(1).describe('Copies of each object; a single node holds one.'),
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
      fromText: textReader(inner),
    }
    return [setting]
  })
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
  if (schema instanceof z.ZodNumber) return (text) => (/^-?\d+$/.test(text) ? Number(text) : text)
  if (schema instanceof z.ZodArray) return (text) => text.split(',').map((item) => item.trim())
  return (text) => text
}

function isAddress(text: string): boolean {
  try {
    parseAddress(text)
    return true
  } catch {
    return false
  }
}
