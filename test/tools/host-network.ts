import { spawnSync } from 'node:child_process'
import { OWN_PREFIX, removeLeftNamespaces } from './leftovers.ts'
import { runCommand } from './run-command.ts'

/** A host of a `HostNetwork`, at `address`, with nothing running on it. */
export interface NetworkHost {
  readonly namespace: string
  readonly address: string
}

/**
 * Several hosts as network namespaces on one bridge, which is in a namespace too, so that nothing of this machine's own network
 * is touched.
 */
export class HostNetwork {
  readonly hosts: readonly NetworkHost[]
  readonly #bridge = `${OWN_PREFIX}switch`
  /** When the tests end without `remove`. */
  readonly #removeWithUs = () => {
    for (const namespace of this.#namespaces) spawnSync('ip', ['netns', 'del', namespace])
  }

  private constructor(count: number) {
    this.hosts = Array.from({ length: count }, (_, i) => ({
      namespace: `${OWN_PREFIX}${i + 1}`,
      address: `10.77.0.${i + 1}`,
    }))
  }

  static async make(count: number): Promise<HostNetwork> {
    await removeLeftNamespaces()
    const network = new HostNetwork(count)
    process.once('exit', network.#removeWithUs)
    try {
      await network.#make()
      return network
    } catch (error) {
      await network.remove()
      throw error
    }
  }

  async #make(): Promise<void> {
    const bridge = this.#bridge
    await ip('netns', 'add', bridge)
    await ip('-n', bridge, 'link', 'add', 'bridge', 'type', 'bridge')
    await ip('-n', bridge, 'link', 'set', 'bridge', 'up')
    for (const { namespace, address } of this.hosts) {
      const port = portOf(address)
      await ip('netns', 'add', namespace)
      await ip('-n', bridge, 'link', 'add', port, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace)
      await ip('-n', bridge, 'link', 'set', port, 'master', 'bridge', 'up')
      await ip('-n', namespace, 'addr', 'add', `${address}/24`, 'dev', 'eth0')
      await ip('-n', namespace, 'link', 'set', 'eth0', 'up')
      await ip('-n', namespace, 'link', 'set', 'lo', 'up')
    }
  }

  /** Where the cables end, for who has to cut them from another process. */
  get switchNamespace(): string {
    return this.#bridge
  }

  async remove(): Promise<void> {
    for (const namespace of this.#namespaces) {
      await ip('netns', 'del', namespace).catch(() => {}) // it may never have been made
    }
    process.off('exit', this.#removeWithUs)
  }

  get #namespaces(): string[] {
    return [...this.hosts.map(({ namespace }) => namespace), this.#bridge]
  }
}

/** Pulls the cable of the host with this address, or puts it in again. */
export async function setCable(switchNamespace: string, address: string, isPluggedIn: boolean): Promise<void> {
  await ip('-n', switchNamespace, 'link', 'set', portOf(address), isPluggedIn ? 'up' : 'down')
}

const portOf = (address: string) => `port${address.split('.').at(-1)}`

async function ip(...words: string[]): Promise<void> {
  await runCommand(['ip', ...words])
}
