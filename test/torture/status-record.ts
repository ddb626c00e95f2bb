import { setTimeout as pause } from 'node:timers/promises'
import type { Cluster, Status } from './cluster.ts'
import { isHome } from './cluster.ts'

const EVERY_MS = 400

/** What `collie cluster status` said, asked at all nodes all the time. */
export class StatusRecord {
  answers = 0
  /** Asked of a node that was to run, and not answered in time. */
  silent = 0
  readonly #cluster: Cluster
  readonly #say: (line: string) => void
  readonly #last = new Map<string, string>()
  #isStopping = false
  #life: Promise<void> = Promise.resolve()

  constructor(cluster: Cluster, say: (line: string) => void) {
    this.#cluster = cluster
    this.#say = say
  }

  start(): void {
    this.#life = this.#live()
  }

  async stop(): Promise<void> {
    this.#isStopping = true
    await this.#life
  }

  async #live(): Promise<void> {
    while (!this.#isStopping) {
      await Promise.all([
        pause(EVERY_MS),
        ...this.#cluster.hosts
          .filter(({ isServing }) => isServing)
          .map(async (host) => {
            try {
              const status = await host.ask('cluster_status', {})
              this.answers++
              this.#tell(host.address, summaryOf(status))
            } catch {
              this.silent++
            }
          }),
      ])
    }
  }

  #tell(address: string, summary: string): void {
    if (this.#last.get(address) === summary) return
    this.#last.set(address, summary)
    this.#say(`  ${address} says: ${summary}`)
  }
}

function summaryOf(status: Status): string {
  const names = (nodes: Status['nodes']) => nodes.map(({ address }) => shortName(address)).join(' ')
  const may = status.nodes.filter((node) => node.may_go_down)
  const no = status.nodes.find((node) => !node.may_go_down)
  return [
    `epoch ${status.epoch}`,
    status.is_acting ? 'serves' : 'waits',
    `in: ${names(status.nodes)}`,
    isHome(status) ? 'all home' : `${status.families_to_bring_home} families to bring home`,
    may.length > 0 ? `may go down: ${names(may)}` : 'nobody may go down',
    ...(no ? [`${shortName(no.address)} not: ${no.reason}`] : []),
  ].join('; ')
}

const shortName = (address: string) => `.${address.replace(/:\d+$/, '').split('.').at(-1)}`
