import type { Result } from '../control/methods.ts'
import { type Command, type CommandPorts, EXIT } from './command.ts'
import { askNode } from './node-access.ts'
import { describeRecovery } from './recovery-commands.ts'
import { formatBytes, table } from './table.ts'

/** What concerns the store as a whole. */
export function clusterCommands(ports: CommandPorts): Command[] {
  return [
    {
      name: 'cluster status',
      summary: 'Say who is in the cluster, what is being brought home, and which node may go down now.',
      run: async (call) => {
        const status = await askNode(ports, call, (node) => node.call('cluster_status', {}))
        call.print(status, () => describeStatus(status))
        return EXIT.OK
      },
    },
    {
      name: 'cluster info',
      summary: 'Say how the store is: state, epoch, space, nodes.',
      run: async (call) => {
        const info = await askNode(ports, call, (node) => node.call('cluster_info', {}))
        call.print(info, () => describeCluster(info))
        return EXIT.OK
      },
    },
    {
      name: 'cluster shutdown',
      summary: 'Stop all nodes of the cluster: each finishes what is under way, closes its store, and ends.',
      run: async (call) => {
        const told = await askNode(ports, call, (node) => node.call('cluster_shutdown', {}))
        call.print(told, () => describeShutdown(told))
        return told.unreached.length > 0 ? EXIT.UNAVAILABLE : EXIT.OK
      },
    },
  ]
}

function describeShutdown({ unreached }: Result<'cluster_shutdown'>): string {
  if (unreached.length === 0) return 'All nodes are stopping. They may be started in any order.'
  return `All nodes are stopping but these, which did not answer: ${unreached.join(', ')}. Stop them there: collie node stop`
}

function describeStatus(status: Result<'cluster_status'>): string {
  const facts = table([
    ['cluster', status.cluster ?? 'none: this node is alone'],
    ['epoch', String(status.epoch)],
    ['this node', status.is_acting ? 'serves' : 'waits: it is not in the view, or too few voters answer'],
    ['to bring home', `${status.families_to_bring_home} families of volumes`],
    ...status.away.map(({ address, seconds_left }) => [
      'away',
      `${address}, keeps its places ${keepsFor(seconds_left)}`,
    ]),
    ...(status.removed.length > 0 ? [['removed', status.removed.join(', ')]] : []),
    ['copying', describeRecovery(status.recovery)],
    ['voters away', status.voters_away.length > 0 ? status.voters_away.join(', ') : 'none'],
  ])
  const nodes = status.nodes.map((node) => [
    `${node.address}${node.is_self ? ' (this)' : ''}`,
    String(node.zone),
    String(node.vnodes),
    [node.is_voter ? 'votes' : '', node.is_draining ? 'drains' : ''].filter((word) => word !== '').join(', '),
    node.may_go_down ? 'yes' : `no: ${node.reason}`,
  ])
  return `${facts}\n\n${table([['NODE', 'ZONE', 'VNODES', 'STATE', 'MAY GO DOWN'], ...nodes])}`
}

function nodeState({ is_answering, failed_disks }: Result<'cluster_info'>['nodes'][number]): string {
  if (!is_answering) return 'does not answer'
  return failed_disks > 0 ? `${failed_disks} failed disks` : 'ok'
}

const keepsFor = (secondsLeft: number | null) => (secondsLeft === null ? 'for a while' : `for another ${secondsLeft} s`)

function describeCluster(info: Result<'cluster_info'>): string {
  const facts = table([
    ['status', info.status],
    ['epoch', String(info.epoch)],
    ['copies', String(info.copies)],
    ['space', `${formatBytes(info.free_bytes)} free of ${formatBytes(info.total_bytes)}`],
    ['provisioned', formatBytes(info.provisioned_bytes)],
    ['allocated', formatBytes(info.allocated_bytes)],
  ])
  const nodes = info.nodes.map((node) => [
    node.address,
    String(node.zone),
    String(node.vnodes),
    formatBytes(node.total_bytes),
    formatBytes(node.free_bytes),
    nodeState(node),
  ])
  return `${facts}\n\n${table([['NODE', 'ZONE', 'VNODES', 'DISKS', 'FREE', 'STATE'], ...nodes])}`
}
