import { z } from 'zod'
import { cafile } from './cafile.ts'

const ETCD_URL =
  /^etcds?:\/\/([^/@\s]+@)?(\[[\da-f:]+\]|[\w.-]+):\d{1,5}(,(\[[\da-f:]+\]|[\w.-]+):\d{1,5})*(\/[\w./-]*)?$/i

/** The store, and how several nodes are one. */
export const STORE_SETTINGS = {
  cluster: z
    .string()
    .refine(isCluster, {
      error:
        'expected `single`, `corosync` or `etcd://[user:password@]host:port[,host:port…][/name]` (`etcds://` for TLS)',
    })
    .default('single')
    .meta({ hasLogin: true })
    .describe(
      'How store nodes find each other: `single` is one node alone, `corosync` that of this host, `etcd://host:port,…/name` an etcd, in which clusters differ by name; `hub:SOCKET` is for `collie dev-cluster`.',
    ),
  cluster_cafile: cafile('the certificates of an `etcds://`'),
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
}

/** For trying out: see dev-cluster. */
const HUB = /^hub:.+$/

function isCluster(text: string): boolean {
  return text === 'single' || text === 'corosync' || ETCD_URL.test(text) || HUB.test(text)
}
