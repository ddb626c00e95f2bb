import path from 'node:path'
import { loadConfig } from '../config.ts'
import type { ControlClient } from '../control/client.ts'
import { CONTROL_SOCKET, ControlError } from '../control/messages.ts'
import type { Result } from '../control/methods.ts'
import { connectControl } from '../control/socket-client.ts'
import type { Network } from '../runtime/network.ts'
import { type Command, type CommandCall, EXIT } from './command.ts'
import { formatBytes, table } from './table.ts'

/** The commands that ask the running node, which they find by the data directory. */
export function nodeCommands(network: Network): Command[] {
  const ask = async <T>({ io, argv }: CommandCall, question: (node: ControlClient) => Promise<T>): Promise<T> => {
    const { config } = loadConfig({ argv, env: io.env, readFile: io.readFile })
    const socket = path.resolve(config.data_dir, CONTROL_SOCKET)
    const node = await connectControl(network, socket).catch(() => {
      throw new ControlError(
        'Disconnected',
        `no node is running on ${config.data_dir}; start one with \`collie serve\`, or name its directory with --data-dir`,
      )
    })
    try {
      return await question(node)
    } finally {
      node.close()
    }
  }

  return [
    {
      name: 'node info',
      summary: 'Say what the running node is: process, roles, addresses.',
      run: async (call) => {
        const info = await ask(call, (node) => node.call('info', {}))
        call.print(info, () => describeNode(info))
        return EXIT.OK
      },
    },
    {
      name: 'node stats',
      summary: 'Print the counters of the running node.',
      run: async (call) => {
        const stats = await ask(call, (node) => node.call('stats', {}))
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
        await ask(call, (node) => node.call('stop', {}))
        call.print({ stopping: true }, () => 'The node is stopping.')
        return EXIT.OK
      },
    },
    {
      name: 'cluster info',
      summary: 'Say how the store is: state, epoch, space, nodes.',
      run: async (call) => {
        const info = await ask(call, (node) => node.call('cluster_info', {}))
        call.print(info, () => describeCluster(info))
        return EXIT.OK
      },
    },
    {
      name: 'cluster audit',
      summary: 'Look for orphans, dangling references and damage in the store.',
      description: `Exits with ${EXIT.DATA_UNSOUND} when the store is not sound.`,
      run: async (call) => {
        const audit = await ask(call, (node) => node.call('audit', {}))
        call.print(audit, () => describeAudit(audit))
        return audit.sound ? EXIT.OK : EXIT.DATA_UNSOUND
      },
    },
    {
      name: 'vdi list',
      summary: 'List the VDIs of the store: working ones and snapshots.',
      run: async (call) => {
        const { vdis } = await ask(call, (node) => node.call('vdi_list', {}))
        call.print(vdis, () => listVdis(vdis))
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

function describeCluster(info: Result<'cluster_info'>): string {
  const facts = table([
    ['status', info.status],
    ['epoch', String(info.epoch)],
    ['copies', String(info.copies)],
    ['space', `${formatBytes(info.free_bytes)} free of ${formatBytes(info.total_bytes)}`],
  ])
  const nodes = info.nodes.map(({ address, zone, vnodes }) => [address, String(zone), String(vnodes)])
  return `${facts}\n\n${table([['NODE', 'ZONE', 'VNODES'], ...nodes])}`
}

function describeAudit(audit: Result<'audit'>): string {
  const checked = Object.entries(audit.checked).map(([name, count]) => `${count} ${name}`)
  const findings = audit.findings.map(({ kind, detail }) => [kind, detail])
  return [
    audit.sound ? 'The store is sound.' : 'The store is NOT sound.',
    `Checked: ${checked.join(', ')}.`,
    ...(findings.length > 0 ? ['', table(findings)] : []),
  ].join('\n')
}

function listVdis(vdis: Result<'vdi_list'>['vdis']): string {
  const rows = vdis.map((vdi) => [
    vdi.name,
    vdi.is_snapshot ? vdi.tag || `#${vdi.snap_id}` : '',
    vdi.vid.toString(16).padStart(6, '0'),
    formatBytes(vdi.size_bytes),
    vdi.created_at,
  ])
  return table([['NAME', 'SNAPSHOT', 'VID', 'SIZE', 'CREATED'], ...rows])
}
