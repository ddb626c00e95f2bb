import { afterAll, beforeAll, describe } from 'vitest'
import { CorosyncHosts, withCorosync } from '../../tools/corosync-cluster.ts'
import { groupContract, type Stage } from './group-contract.ts'
import { NodeProcess } from './process-nodes.ts'
import { untilDeadline } from './until.ts'

const NODES = ['1', '2', '3']

class CorosyncStage implements Stage {
  readonly nodes = NODES
  readonly minority = 'goes on'
  readonly until = untilDeadline
  readonly #hosts: CorosyncHosts
  readonly #processes = new Map<string, NodeProcess>()

  private constructor(hosts: CorosyncHosts) {
    this.#hosts = hosts
  }

  static async start(): Promise<CorosyncStage> {
    const stage = new CorosyncStage(await CorosyncHosts.start(NODES.length))
    await stage.#hosts.untilTogether()
    return stage
  }

  async close(): Promise<void> {
    for (const process of this.#processes.values()) await process.kill()
    await this.#hosts.stop()
  }

  async join(node: string, cluster: string) {
    const process = this.#processes.get(node) ?? new NodeProcess({ name: 'corosync' }, this.#hosts.beside(Number(node)))
    this.#processes.set(node, process)
    return process.join(cluster)
  }

  readonly kill = async (node: string) => {
    await this.#processes.get(node)!.kill()
    this.#processes.delete(node)
  }
  readonly stop = async (node: string) => this.#processes.get(node)!.stop()
  readonly resume = async (node: string) => this.#processes.get(node)!.resume()
  readonly cut = (node: string) => this.#hosts.cut(Number(node))
  readonly heal = (node: string) => this.#hosts.heal(Number(node))
  readonly endEngine = (node: string) => this.#hosts.killDaemon(Number(node))
  /** A new daemon has its files where the processes of before do not see them. */
  readonly restartEngine = async (node: string) => {
    await this.kill(node)
    await this.#hosts.startDaemon(Number(node))
  }
}

describe('corosync', () => {
  let stage: CorosyncStage | null = null
  beforeAll(async () => {
    if (withCorosync.isPossible) stage = await CorosyncStage.start()
  })
  afterAll(async () => {
    await stage?.close()
  })
  groupContract(withCorosync.test, () => stage!, [
    'kill',
    'stop',
    'resume',
    'cut',
    'heal',
    'minority',
    'endEngine',
    'restartEngine',
  ])
})
