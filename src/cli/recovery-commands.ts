import type { Result } from '../control/methods.ts'
import { UsageError } from '../errors.ts'
import { type Command, type CommandPorts, EXIT } from './command.ts'
import { askNode } from './node-access.ts'
import { parseBytes } from './size.ts'
import { formatBytes, table } from './table.ts'

type Recovery = Result<'recovery_status'>

const NODE = { name: 'NODE', meaning: 'The id of the node, or its address, as `collie cluster status` says them.' }

/** Bringing copies to where they belong, on all nodes, and nodes that are to hold none. */
export function recoveryCommands(ports: CommandPorts): Command[] {
  const set = async (call: Parameters<Command['run']>[0], wanted: object) => {
    const recovery = await askNode(ports, call, (node) => node.call('recovery_set', wanted))
    call.print(recovery, () => describeAll(recovery))
    return EXIT.OK
  }
  return [
    {
      name: 'cluster recovery show',
      summary: 'Say what is being copied to where it belongs, how fast, and how long it will take.',
      run: async (call) => {
        const recovery = await askNode(ports, call, (node) => node.call('recovery_status', {}))
        call.print(recovery, () => describeAll(recovery))
        return EXIT.OK
      },
    },
    {
      name: 'cluster recovery pause',
      summary: 'Copy nothing in the background, on any node, until it is resumed.',
      description:
        'Clients are served as before. What has too few copies stays so: a node that fails meanwhile may be the last one with data.',
      run: (call) => set(call, { is_paused: true }),
    },
    {
      name: 'cluster recovery resume',
      summary: 'Go on with the copying after a pause.',
      run: (call) => set(call, { is_paused: false }),
    },
    {
      name: 'cluster recovery throttle',
      summary: 'Say how much each node may copy in a second; it holds until somebody says something else.',
      operands: [
        {
          name: 'RATE',
          meaning: 'Bytes per second, with K, M, G in 1024s; or `default`: each node goes by its setting again.',
        },
      ],
      run: (call) => {
        const [rate] = call.operands
        return set(call, { limit_bytes_per_second: rate === 'default' ? null : rateOf(rate!) })
      },
    },
    {
      name: 'node drain',
      summary: 'Bring all data away from a node; it goes on to serve clients.',
      description:
        'Answers when nothing new is written there any more. `collie cluster status` says how far it is; when nothing is to be brought\nhome, the node may be removed.',
      operands: [NODE],
      options: [{ flag: 'undo', meaning: 'Give it data again.' }],
      run: async (call) => {
        const node = call.operands[0]!
        const undo = call.options.undo !== undefined
        await askNode(ports, call, (asked) => asked.call('node_drain', { node, undo }))
        call.print({ node, is_draining: !undo }, () =>
          undo ? `${node} gets data again.` : `${node} is being drained.`,
        )
        return EXIT.OK
      },
    },
    {
      name: 'node remove',
      summary: 'Take a node out of the cluster for good: one that was drained, or that will never come back.',
      description:
        'Refused, with the reason, while the node may have the only good copies of something. The store on its disks is no member any\nmore, and cannot come back; as a new, empty one the host may join again.',
      operands: [NODE],
      options: [
        {
          flag: 'force',
          meaning:
            'Its disks are lost: give up what only they had. Reads of that answer errors, instead of waiting for the node.',
        },
      ],
      run: async (call) => {
        const node = call.operands[0]!
        await askNode(ports, call, (asked) =>
          asked.call('node_remove', { node, force: call.options.force !== undefined }),
        )
        call.print({ node, is_removed: true }, () => `${node} is no part of the cluster any more.`)
        return EXIT.OK
      },
    },
  ]
}

function rateOf(text: string): number {
  const bytes = parseBytes(text, 'RATE')
  if (bytes === 0) throw new UsageError('RATE: use `collie cluster recovery pause` to copy nothing')
  return bytes
}

/** In a line. */
export function describeRecovery(recovery: Recovery): string {
  if (recovery.is_paused) return 'paused: `collie cluster recovery resume` goes on'
  if (recovery.families === 0) return 'nothing'
  const left = recovery.objects - recovery.objects_done
  const time = recovery.seconds_left === null ? '' : `, about ${recovery.seconds_left} s`
  const bytes = `${formatBytes(recovery.bytes_left)} to copy, ${formatBytes(recovery.bytes_per_second)}/s`
  return `${left} of ${recovery.objects} objects to bring home, ${bytes}${time}`
}

function describeAll(recovery: Recovery): string {
  const limit = recovery.limit_bytes_per_second
  return table([
    ['copying', describeRecovery(recovery)],
    ['families', String(recovery.families)],
    ['copied', `${formatBytes(recovery.bytes_copied)} since the nodes were started`],
    ['limit', limit === null ? 'the setting recovery_rate_mib of each node' : `${formatBytes(limit)}/s for each node`],
  ])
}
