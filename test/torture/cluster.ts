import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { Result } from '../../src/control/methods.ts'
import { EtcdCluster } from '../tools/etcd-cluster.ts'
import type { NetworkHost } from '../tools/host-network.ts'
import { Host, PORTS } from './host.ts'

export type Status = Result<'cluster_status'>

export interface ClusterOptions {
  directory: string
  switchNamespace: string
  /** The first of these becomes the first node, with the API; of the others `gateways` have no store. */
  hosts: readonly NetworkHost[]
  gateways: number
  group: 'corosync' | 'etcd'
  /** Whether disks can fail. */
  canFail: boolean
  /** Of the host that this process is on. */
  ownAddress: string
}

const DISK_MIB = 512
export const RESERVE_MIB = 32
const FLAGS = [`--journal-size-mib=16`, `--reserve-mib=${RESERVE_MIB}`, '--log-level=info']
const SETTLE_MS = 120_000
const POLL_MS = 100

/** A cluster that was made by the commands that docs/cluster.md tells operators, on hosts of their own. */
export class Cluster {
  readonly hosts: Host[] = []
  /** Those that have a store. */
  readonly stores: Host[] = []
  readonly #etcd: EtcdCluster | null

  private constructor(etcd: EtcdCluster | null) {
    this.#etcd = etcd
  }

  static async start(options: ClusterOptions): Promise<Cluster> {
    const etcd = options.group === 'etcd' ? await EtcdCluster.start(1, { host: options.ownAddress }) : null
    const cluster = new Cluster(etcd)
    try {
      for (const [index, host] of options.hosts.entries()) {
        const hasStore = index < options.hosts.length - options.gateways
        const flags = [...FLAGS, `--nbd-listen=${host.address}:${PORTS.nbd}`]
        if (index === 0) flags.push(`--listen=${host.address}:${PORTS.api}`)
        const made = await Host.make({
          ...host,
          switchNamespace: options.switchNamespace,
          directory: path.join(options.directory, String(index + 1)),
          flags,
          diskMib: DISK_MIB,
          canFail: options.canFail,
          hasCorosync: etcd === null,
          hasStore,
        })
        cluster.hosts.push(made)
        if (hasStore) cluster.stores.push(made)
      }
      await cluster.#setUp()
      return cluster
    } catch (error) {
      await cluster.stop()
      throw error
    }
  }

  async #setUp(): Promise<void> {
    const [first, ...others] = this.hosts as [Host, ...Host[]]
    await first.collie(
      'cluster',
      'init',
      ...(this.#etcd ? ['--cluster', `etcd://${this.#etcd.endpoints[0]}/torture`] : []),
    )
    await first.startCorosync()
    await first.startNode()
    const named = this.#etcd ? [] : others.map(({ address }) => address)
    await Promise.all(others.map(await this.#joining(first, named)))
  }

  /** Makes a host whose disks are empty a node again, after another one has said that the node that it was is gone for good. */
  async replaceNode(host: Host): Promise<void> {
    const other = this.stores.find((store) => store !== host && store.isServing)!
    await other.collie('node', 'remove', '--force', `${host.address}:${PORTS.sheep}`)
    const join = await this.#joining(other, [])
    await join(host)
  }

  /** By the one command that `collie cluster join-info` says on a node that is in. */
  async #joining(other: Host, named: readonly string[]): Promise<(host: Host) => Promise<void>> {
    const { token } = JSON.parse(await other.collie('cluster', 'join-info', ...named, '--json')) as { token: string }
    return async (host) => {
      await host.collie('cluster', 'join', token)
      await host.startCorosync()
      await host.startNode()
    }
  }

  /** Resolves with the status as soon as it is so on a node that acts. */
  async until(what: string, isSo: (status: Status, host: Host) => boolean, among = this.hosts): Promise<Status> {
    const deadline = Date.now() + SETTLE_MS
    let last: unknown
    for (;;) {
      for (const host of among) {
        if (!host.isServing) continue
        const status = await host.ask('cluster_status', {}).catch((error: Error) => {
          last = error.message
          return null
        })
        last = status ?? last
        if (status?.is_acting && isSo(status, host)) return status
      }
      if (Date.now() > deadline) throw new Error(`not ${what} after ${SETTLE_MS} ms: ${JSON.stringify(last)}`)
      await pause(POLL_MS)
    }
  }

  /** All are in and say so, and every copy is where it belongs. */
  async untilWell(): Promise<void> {
    for (const host of this.hosts) {
      await this.until('well', (status) => status.nodes.length === this.hosts.length && isHome(status), [host])
    }
  }

  async heal(): Promise<void> {
    for (const host of this.hosts) await host.heal()
  }

  async stop(): Promise<void> {
    await Promise.all(this.hosts.map((host) => host.switchOff()))
    await this.#etcd?.stop()
  }

  logs(): string {
    return this.hosts.map((host) => `${host.address}:\n${host.tailOfLog()}`).join('\n')
  }
}

export const isHome = (status: Status) => status.families_to_bring_home === 0
