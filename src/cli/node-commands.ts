import type { Result } from '../control/methods.ts'
import { type Command, type CommandPorts, EXIT } from './command.ts'
import { askNode } from './node-access.ts'
import { table } from './table.ts'

/** What the process that runs the store is, counts and does. */
export function nodeCommands(ports: CommandPorts): Command[] {
  return [
    {
      name: 'node info',
      summary: 'Say what the running node is: process, roles, addresses.',
      run: async (call) => {
        const info = await askNode(ports, call, (node) => node.call('info', {}))
        call.print(info, () => describeNode(info))
        return EXIT.OK
      },
    },
    {
      name: 'node stats',
      summary: 'Print the counters of the running node.',
      run: async (call) => {
        const stats = await askNode(ports, call, (node) => node.call('stats', {}))
        const rows = Object.entries(stats).flatMap(([part, counters]) =>
          Object.entries(counters).map(([name, value]) => [`${part}.${name}`, String(value)]),
        )
        call.print(stats, () => table(rows))
        return EXIT.OK
      },
    },
    {
      name: 'node stop',
      summary: 'Stop the running node: finish what is under way, close the store, end.',
      run: async (call) => {
        await askNode(ports, call, (node) => node.call('stop', {}))
        call.print({ stopping: true }, () => 'The node is stopping.')
        return EXIT.OK
      },
    },
  ]
}

function describeNode(info: Result<'info'>): string {
  return table([
    ['process', String(info.pid)],
    ['version', info.version],
    ['data', info.data_dir],
    ['roles', info.roles.join(', ')],
    ...Object.entries(info.addresses),
  ])
}
