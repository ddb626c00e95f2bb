import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, vi } from 'vitest'
import type { Result } from '../../src/control/methods.ts'
import { FOUND_FILE } from '../../src/sheep/cluster/cluster-secret.ts'
import { CinderApi } from '../tools/cinder-api.ts'
import { Collie } from '../tools/collie.ts'
import { EtcdCluster, withEtcd } from '../tools/etcd-cluster.ts'
import { type ExportAddress, Verifier } from '../tools/verifier.ts'

const NODES = 3
const GIB = 1024 ** 3
const POLL_MS = 100
const SETTLE_MS = 90_000

type Status = Result<'cluster_status'>

vi.setConfig({ testTimeout: 300_000 })

/** Three processes of `collie serve` that are one store, on a real etcd. */
class ThreeNodes {
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

withEtcd.test('three nodes keep what was acknowledged, whichever of them are killed', async () => {
  const directory = mkdtempSync(path.join(tmpdir(), 'collie-cluster-'))
  const three = await ThreeNodes.start()
  const [first, second, third] = three.nodes as [Collie, Collie, Collie]
  const verifier = new Verifier({ seed: 1, ledgerPath: path.join(directory, 'ledger'), sizeBytes: GIB })
  const writes = async () => (await verifier.tally()).writes
  const writesOn = async () => {
    const before = await writes()
    while ((await writes()) < before + 20) await sleep(POLL_MS)
  }
  try {
    const api = new CinderApi(`${first.dataDir}/openrc`)
    const volumeId = await api.createVolume({ size: 1 })
    await api.until('volume', volumeId, 'available')
    const attached = await api.attach(volumeId)

    expect(await verifier.run(three.gateway(1, attached))).toBe(true)
    await writesOn()

    // A node that the client has nothing to do with: it feels a pause.
    await third.kill('SIGKILL')
    await writesOn()
    await third.start()
    await three.untilWell(0)
    await writesOn()

    // The gateway of the client: it goes on at another one.
    await second.kill('SIGKILL')
    while (!(await verifier.run(three.gateway(2, attached)))) await sleep(POLL_MS)
    await writesOn()
    await second.start()
    await three.untilWell(2)

    // All at once, and back in another order.
    await Promise.all(three.nodes.map((node) => node.kill('SIGKILL')))
    for (const node of [third, first, second]) await node.start()
    await three.untilWell(0)
    while (!(await verifier.run(three.gateway(0, attached)))) await sleep(POLL_MS)
    await writesOn()
    await verifier.pause()
    expect(await verifier.run(three.gateway(1, attached))).toBe(true)
    await verifier.pause()
    console.info(await verifier.tally())

    await api.detach(attached.id)
    await api.delete('volume', volumeId)
    await api.untilGone('volume', volumeId)

    await second.ask('cluster', 'recovery', 'throttle', '100M')
    const shown = await third.ask<Result<'recovery_status'>>('cluster', 'recovery', 'show')
    expect(shown.limit_bytes_per_second).toBe(100 * 1024 * 1024)

    const ended = three.nodes.map((node) => node.ended())
    expect(await second.ask('cluster', 'shutdown')).toEqual({ unreached: [] })
    expect(await Promise.all(ended)).toEqual([0, 0, 0])
    for (const node of [second, third, first]) await node.start()
    await three.untilWell(1)
  } finally {
    await verifier.kill()
    await three.dispose()
    rmSync(directory, { recursive: true })
  }
})
