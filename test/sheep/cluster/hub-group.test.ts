import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../../src/runtime/clock.ts'
import { type Connection, type Network, systemNetwork } from '../../../src/runtime/network.ts'
import { systemRandom } from '../../../src/runtime/random.ts'
import { Hub, joinHub } from '../../../src/sheep/cluster/hub-group.ts'
import { skipUnless } from '../../tools/require-command.ts'
import { groupContract, type Stage } from './group-contract.ts'
import { LocalMember } from './group-member.ts'
import { untilDeadline } from './until.ts'

const directory = mkdtempSync(path.join(tmpdir(), 'collie-hub-'))
const hubs = new Map<string, Hub>()

afterAll(() => {
  for (const hub of hubs.values()) hub.close()
  rmSync(directory, { recursive: true })
})

const addressOf = (cluster: string) => path.join(directory, `${cluster}.sock`)

/** Members in this process, each on a connection of its own, which ends when the node is killed. */
class HubStage implements Stage {
  readonly nodes = ['n1', 'n2', 'n3']
  readonly until = untilDeadline
  readonly #connections = new Map<string, Connection[]>()

  async join(node: string, cluster: string) {
    if (!hubs.has(cluster)) {
      const hub = new Hub(systemRandom)
      hubs.set(cluster, hub)
      await hub.listen(systemNetwork, addressOf(cluster))
    }
    const connections = this.#connections.get(node) ?? []
    this.#connections.set(node, connections)
    const network: Network = {
      ...systemNetwork,
      connect: async (address) => {
        const connection = await systemNetwork.connect(address)
        connections.push(connection)
        return connection
      },
    }
    return LocalMember.join(joinHub({ network, clock: systemClock, address: addressOf(cluster) }))
  }

  readonly kill = async (node: string) => {
    for (const connection of this.#connections.get(node)?.splice(0) ?? []) connection.destroy()
  }
}

describe('the group of processes on one host', () => {
  const stage = new HubStage()
  groupContract(skipUnless(false), () => stage, ['kill'])

  it('is lost with its hub, and cannot be joined without', async () => {
    const member = await stage.join('n1', 'mortal')
    await untilDeadline(() => member.told.length === 1)
    hubs.get('mortal')!.close()
    await untilDeadline(() => member.told.length > 1)
    expect(member.told.at(-1)).toMatchObject({ kind: 'lost', reason: expect.stringContaining('has ended') })
    const ports = { network: systemNetwork, clock: systemClock }
    await expect(LocalMember.join(joinHub({ ...ports, address: addressOf('none') }))).rejects.toThrow(
      'there is no hub at',
    )
  })
})
