import type { Result } from '../control/methods.ts'
import { type Command, type CommandPorts, EXIT } from './command.ts'
import { askNode } from './node-access.ts'
import { formatBytes, table } from './table.ts'

/** What concerns the store as a whole. */
export function clusterCommands(ports: CommandPorts): Command[] {
  return [
    {
      name: 'cluster info',
      summary: 'Say how the store is: state, epoch, space, nodes.',
      run: async (call) => {
        const info = await askNode(ports, call, (node) => node.call('cluster_info', {}))
        call.print(info, () => describeCluster(info))
        return EXIT.OK
      },
    },
  ]
}

function describeCluster(info: Result<'cluster_info'>): string {
  const facts = table([
    ['status', info.status],
    ['epoch', String(info.epoch)],
    ['copies', String(info.copies)],
    ['space', `${formatBytes(info.free_bytes)} free of ${formatBytes(info.total_bytes)}`],
    ['provisioned', formatBytes(info.provisioned_bytes)],
    ['allocated', formatBytes(info.allocated_bytes)],
  ])
  const nodes = info.nodes.map(({ address, zone, vnodes }) => [address, String(zone), String(vnodes)])
  return `${facts}\n\n${table([['NODE', 'ZONE', 'VNODES'], ...nodes])}`
}
