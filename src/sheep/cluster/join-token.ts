import { type ClusterSecret, checkedSecret, corosyncKey } from './cluster-secret.ts'
import { type CorosyncCluster, type CorosyncNode, checkedCluster } from './corosync-files.ts'

/** All that a host needs to become a node, as one word. It has the key: it is a secret. */
export interface JoinInfo {
  readonly secret: ClusterSecret
  /** The setting: `corosync`, or the URL of an etcd. */
  readonly cluster: string
  /** Null with an etcd. Has the nodes that are to join, too. */
  readonly corosync: { readonly port: number; readonly nodes: readonly CorosyncNode[] } | null
}

const PREFIX = 'collie-join-1.'

export function encodeJoinToken({ secret, cluster, corosync }: JoinInfo): string {
  const { name, key } = secret
  const nodes = corosync?.nodes.map(({ id, address }) => [id, address])
  const record = { name, key: key.toString('base64url'), cluster, ...(corosync && { port: corosync.port, nodes }) }
  return PREFIX + Buffer.from(JSON.stringify(record)).toString('base64url')
}

/** Throws a TypeError when it is none, or has been cut short. */
export function decodeJoinToken(token: string): JoinInfo {
  const word = token.trim()
  if (!word.startsWith(PREFIX)) throw new TypeError(`this is no join token: it begins with ${PREFIX}`)
  try {
    const { name, key, cluster, port, nodes } = JSON.parse(
      Buffer.from(word.slice(PREFIX.length), 'base64url').toString(),
    )
    const secret = checkedSecret({ name, key: Buffer.from(key, 'base64url') })
    if (nodes === undefined) return { secret, cluster: String(cluster), corosync: null }
    const corosync = { port, nodes: (nodes as [number, string][]).map(([id, address]) => ({ id, address })) }
    corosyncOf({ secret, corosync })
    return { secret, cluster: 'corosync', corosync }
  } catch (cause) {
    throw new TypeError('this join token is damaged; copy all of it', { cause })
  }
}

/** What corosync's files are made of. Throws a TypeError when something is wrong with it. */
export function corosyncOf({ secret, corosync }: Pick<JoinInfo, 'secret' | 'corosync'>): CorosyncCluster {
  const { port, nodes } = corosync!
  return checkedCluster({ name: secret.name, key: corosyncKey(secret), port, nodes })
}
