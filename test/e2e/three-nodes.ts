import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Result } from '../../src/control/methods.ts'
import { FOUND_FILE } from '../../src/sheep/cluster/cluster-secret.ts'
import { Collie } from '../tools/collie.ts'
import { EtcdCluster } from '../tools/etcd-cluster.ts'
import type { ExportAddress } from '../tools/verifier.ts'

const NODES = 3
export const POLL_MS = 100
const SETTLE_MS = 90_000

export type Status = Result<'cluster_status'>

/** Three processes of `collie serve` that are one store, on a real etcd. */
export class ThreeNodes {
  readonly nodes: Collie[] = []
  readonly #etcd: EtcdCluster

  private constructor(etcd: EtcdCluster) {
    this.#etcd = etcd
  }

  static async start(): Promise<ThreeNodes> {
    const three = new ThreeNodes(await EtcdCluster.start(1))
    const cluster = `--cluster=etcd://${three.#etcd.endpoints[0]}/collie`
    for (let i = 0; i < NODES; i++) {
      const roles = i === 0 ? 'api,store,gateway' : 'store,gateway'
      three.nodes.push(await Collie.create(cluster, `--zone=${i + 1}`, '--copies=3', `--roles=${roles}`))
    }
    mkdirSync(three.nodes[0]!.dataDir, { recursive: true })
    writeFileSync(path.join(three.nodes[0]!.dataDir, FOUND_FILE), 'collie\n')
    await Promise.all(three.nodes.map((node) => node.start()))
    await three.until(0, ({ nodes }) => nodes.length === NODES)
    return three
  }

  /** The same export, through the gateway of a node. */
  gateway(index: number, { name }: ExportAddress): ExportAddress {
    return { address: this.nodes[index]!.info.addresses.nbd!, name }
  }

  async until(index: number, isSo: (status: Status) => boolean): Promise<Status> {
    const endMs = Date.now() + SETTLE_MS
    for (;;) {
      const status = await this.nodes[index]!.ask<Status>('cluster', 'status')
      if (status.is_acting && isSo(status)) return status
      if (Date.now() > endMs) throw new Error(`not so after ${SETTLE_MS} ms: ${JSON.stringify(status)}`)
      await sleep(POLL_MS)
    }
  }

  /** All are in, and every copy is where it belongs. */
  untilWell(index: number): Promise<Status> {
    return this.until(index, (status) => status.nodes.length === NODES && status.families_to_bring_home === 0)
  }

  async dispose(): Promise<void> {
    for (const node of this.nodes) if (node.isRunning) await node.kill('SIGKILL')
    for (const node of this.nodes) await node.dispose()
    await this.#etcd.stop()
  }
}
