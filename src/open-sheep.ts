import path from 'node:path'
import type { Config } from './config.ts'
import { encodeNodeAddress } from './protocol/structs.ts'
import { systemClock } from './runtime/clock.ts'
import { fileExists, readTextFile, removeFile } from './runtime/files.ts'
import { isOfThisHost } from './runtime/host-addresses.ts'
import { systemHttpPoster } from './runtime/http-poster.ts'
import type { Log } from './runtime/log.ts'
import { type Network, parseAddress, systemNetwork } from './runtime/network.ts'
import { systemRandom } from './runtime/random.ts'
import { loadAuthorities } from './runtime/tls.ts'
import { type ClusterSecret, decodeKeyFile, FOUND_FILE } from './sheep/cluster/cluster-secret.ts'
import { joinCorosync } from './sheep/cluster/corosync.ts'
import { joinEtcd } from './sheep/cluster/etcd.ts'
import { parseEtcdUrl } from './sheep/cluster/etcd-client.ts'
import type { JoinGroup } from './sheep/cluster/group.ts'
import { joinHub } from './sheep/cluster/hub-group.ts'
import { ClusteredSheep, type ClusteredSheepOptions } from './sheep/clustered/clustered-sheep.ts'
import { foundCluster } from './sheep/clustered/found-cluster.ts'
import { runOperation } from './sheep/ops.ts'
import { PeerNetwork } from './sheep/peer/peer-network.ts'
import { zoneOfAddress } from './sheep/ring.ts'
import type { SheepServerOptions } from './sheep/server.ts'
import { Sheep, type SheepOptions } from './sheep/sheep.ts'

/** A sheep, alone or one of several, and how its clients reach it. */
export interface OpenedSheep extends Required<Pick<SheepServerOptions, 'clientOpened' | 'clientClosed'>> {
  sheep: Sheep
  /** Runs what a client asks; null is this process. */
  run(...call: Parameters<typeof runOperation> extends [Sheep, ...infer Rest] ? Rest : never): void
  /** What the door listens on. */
  network: Network
  /** What there is to say of the cluster; null for a sheep that is alone. */
  clustered: ClusteredSheep | null
  close(): Promise<void>
}

type CommonOptions = Omit<SheepOptions, 'address' | 'zone' | 'copies'> & Pick<ClusteredSheepOptions, 'onStopAsked'>

const MIB = 1024 * 1024
const HUB = 'hub:'
const COPIES_MIN_DEFAULT = 2

export async function openSheep(config: Config, options: CommonOptions): Promise<OpenedSheep> {
  const address = addressOf(config)
  if (config.cluster === 'single') {
    const sheep = await Sheep.open({ ...options, address, zone: 0, copies: config.copies })
    return {
      sheep,
      clustered: null,
      network: systemNetwork,
      run: (request, holder, reply) => runOperation(sheep, request, holder, reply),
      clientOpened: (client) => sheep.clientOpened(client),
      clientClosed: (client) => sheep.clientClosed(client),
      close: () => sheep.close(),
    }
  }
  const secret = readSecret(config)
  const zone = config.zone ?? zoneOf(address)
  await foundIfAsked(config, options, { secret, address, zone })
  const clustered = await ClusteredSheep.open({
    ...options,
    address,
    zone,
    copies: config.copies,
    cluster: {
      cluster: secret.name,
      join: joinOf(config, secret),
      rebalanceDelayMs: config.rebalance_delay * 1000,
      network: new PeerNetwork({
        network: systemNetwork,
        clock: systemClock,
        random: systemRandom,
        key: secret.key,
        onRefused: (peer, reason) => options.log.warn({ peer, reason }, 'a node was refused'),
      }),
      copiesMin: config.copies_min ?? Math.min(COPIES_MIN_DEFAULT, config.copies),
      recoveryBytesPerSecond: config.recovery_rate_mib * MIB,
      vnodes: config.roles.includes('store') ? config.vnodes : 0,
    },
  })
  const { network } = clustered
  return {
    sheep: clustered.sheep,
    clustered,
    network: config.sheep_clients === 'any' ? network : forThisHost(network, options.log),
    run: (request, holder, reply) => clustered.handle(request, holder, reply),
    clientOpened: (client) => clustered.clientOpened(client),
    clientClosed: (client) => clustered.clientClosed(client),
    close: () => clustered.close(),
  }
}

/** Others than nodes are only let in from this host: whoever reaches the address could read and write every volume. */
function forThisHost(network: Network, log: Log): Network {
  return {
    connect: (address) => network.connect(address),
    listen: (address, accept) =>
      network.listen(address, (connection) => {
        if (isOfThisHost(connection.peer)) return accept(connection)
        log.warn(
          { peer: connection.peer },
          'refused a client of the Sheepdog protocol from another host: see the setting sheep_clients',
        )
        connection.destroy()
      }),
  }
}

/** Where other nodes reach this one: `advertise` is a host, the port is that of the door. */
function addressOf({ advertise, sheep_listen }: Config): string {
  if (advertise === null) return sheep_listen
  const target = parseAddress(sheep_listen)
  return 'port' in target ? `${advertise}:${target.port}` : advertise
}

function zoneOf(address: string): number {
  const target = parseAddress(address)
  return 'host' in target ? zoneOfAddress(encodeNodeAddress(target.host)) : 0
}

/** Without a key only nodes of this host reach each other: what they share protects nothing, and need not. */
function readSecret({ cluster_key_file, cluster }: Config): ClusterSecret {
  if (cluster_key_file !== null) {
    const text = readTextFile(cluster_key_file)
    if (text === null) throw new TypeError(`cluster_key_file: ${cluster_key_file} is not there`)
    return decodeKeyFile(text)
  }
  if (cluster === 'corosync' || cluster.startsWith(HUB)) return { name: 'loopback', key: Buffer.alloc(32) }
  const name = parseEtcdUrl(cluster).prefix.replaceAll('/', '-').replace(/-$/, '')
  return { name, key: Buffer.alloc(32) }
}

function joinOf({ cluster, cluster_cafile }: Config, { name }: ClusterSecret): JoinGroup {
  const ports = { clock: systemClock, random: systemRandom }
  if (cluster === 'corosync') return joinCorosync({ ...ports, cluster: name })
  if (cluster.startsWith(HUB)) return joinHub({ ...ports, network: systemNetwork, address: cluster.slice(HUB.length) })
  const http = systemHttpPoster(loadAuthorities('cluster_cafile', cluster_cafile))
  return joinEtcd({ ...ports, place: parseEtcdUrl(cluster), http })
}

/** Done once: a start that was cut short goes on with it. */
async function foundIfAsked(
  config: Config,
  options: CommonOptions,
  { secret, address, zone }: { secret: ClusterSecret; address: string; zone: number },
): Promise<void> {
  const file = path.resolve(config.data_dir, FOUND_FILE)
  if (!fileExists(file)) return
  await foundCluster({
    ...options,
    cluster: secret.name,
    founder: { address, zone, ...(config.vnodes !== null && { vnodes: config.vnodes }) },
  })
  removeFile(file)
  options.log.info({ cluster: secret.name }, 'this node is the first of a new cluster')
}
