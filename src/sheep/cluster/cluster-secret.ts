import { hkdfSync } from 'node:crypto'
import type { Random } from '../../runtime/random.ts'

/** What all nodes of a cluster know and nobody else does. Whoever has the key is a node. */
export interface ClusterSecret {
  /** Apart from other clusters on the same network, and in the same corosync or etcd. */
  readonly name: string
  /** 32 bytes. */
  readonly key: Buffer
}

/** In the data directory: the next start of the node makes the cluster, and removes the file. */
export const FOUND_FILE = 'cluster.found'

const KEY_BYTES = 32
const COROSYNC_KEY_BYTES = 256
const NAME = /^[a-z0-9][a-z0-9._-]{0,31}$/i

/** Without a name it gets one that no other cluster is likely to have. */
export function createClusterSecret(name: string | null, random: Random): ClusterSecret {
  return checkedSecret({ name: name ?? `collie-${random.bytes(4).toString('hex')}`, key: random.bytes(KEY_BYTES) })
}

/** Throws a TypeError that says what is wrong. */
export function checkedSecret(secret: ClusterSecret): ClusterSecret {
  if (!NAME.test(secret.name))
    throw new TypeError(`"${secret.name}" is no name of a cluster: 1 to 32 letters, digits, dots, dashes, underscores`)
  if (secret.key.length !== KEY_BYTES) throw new TypeError(`the key has ${secret.key.length} bytes, not ${KEY_BYTES}`)
  return secret
}

/** The text of the file that `cluster_key_file` names. */
export function encodeKeyFile({ name, key }: ClusterSecret): string {
  return [
    '# Whoever has this is a node of the cluster: keep it as a password. The same on all nodes.',
    `cluster ${name}`,
    `key ${key.toString('base64url')}`,
    '',
  ].join('\n')
}

/** Throws a TypeError when it is none. */
export function decodeKeyFile(text: string): ClusterSecret {
  const name = /^cluster (\S+)$/m.exec(text)?.[1]
  const key = /^key ([\w-]+)$/m.exec(text)?.[1]
  if (name === undefined || key === undefined) throw new TypeError('it is no key file: it has no cluster and no key')
  return checkedSecret({ name, key: Buffer.from(key, 'base64url') })
}

/** The key of corosync's own traffic, so that there is one secret to keep. */
export function corosyncKey({ key }: ClusterSecret): Buffer {
  return Buffer.from(hkdfSync('sha256', key, Buffer.alloc(0), 'collie corosync', COROSYNC_KEY_BYTES))
}
