import path from 'node:path'
import type { ControlClient } from '../control/client.ts'
import type { Result } from '../control/methods.ts'
import { type Command, type CommandCall, type CommandPorts, EXIT } from './command.ts'
import { askNode } from './node-access.ts'
import { formatBytes, table } from './table.ts'

type Disk = Result<'disk_list'>['disks'][number]

const PATH = { name: 'PATH', meaning: 'The directory of the disk.' }
const LOOK_INTERVAL_MS = 1000
const CLEAR_LINE = '\r\u001b[K'

/** The disks of the running node. */
export function diskCommands(ports: CommandPorts): Command[] {
  return [
    {
      name: 'node disk list',
      summary: 'List the disks of the node: state, space, objects.',
      run: async (call) => {
        const { disks } = await askNode(ports, call, (node) => node.call('disk_list', {}))
        call.print(disks, () => listDisks(disks))
        return EXIT.OK
      },
    },
    {
      name: 'node disk plug',
      summary: 'Take an empty directory in as a disk; new objects come to it from then on.',
      operands: [PATH],
      run: async (call) => {
        const disk = path.resolve(call.operands[0]!)
        await askNode(ports, call, (node) => node.call('disk_plug', { path: disk }))
        call.print({ path: disk }, () => `${disk} is a disk of the store now.`)
        return EXIT.OK
      },
    },
    {
      name: 'node disk unplug',
      summary: 'Move what a disk holds to the others, and forget the disk; one that has failed is forgotten at once.',
      description:
        'Volumes stay in use meanwhile. An interrupt ends only the waiting; the node goes on, also after a restart. When the other disks have no room, the disk stays.',
      operands: [PATH],
      run: async (call) => {
        const disk = path.resolve(call.operands[0]!)
        const { moved, is_configured } = await askNode(ports, call, (node) => unplug(ports, call, node, disk))
        call.print(
          { path: disk, moved, is_configured },
          () => `${disk} can be taken away; ${moved} objects were moved.`,
        )
        if (is_configured)
          call.io.err(`collie: ${disk} is still in the setting \`disks\`; a start would plug it in again`)
        return EXIT.OK
      },
    },
  ]
}

/** Shows how far it is until it is done. */
async function unplug(ports: CommandPorts, call: CommandCall, node: ControlClient, disk: string) {
  let isDone = false
  const unplugging = node.call('disk_unplug', { path: disk }).finally(() => {
    isDone = true
  })
  const ended = unplugging.then(
    () => {},
    () => {},
  )
  for (;;) {
    await Promise.race([ended, ports.clock.sleep(LOOK_INTERVAL_MS)])
    if (isDone) break
    const { disks } = await node.call('disk_list', {})
    const found = disks.find(({ path }) => path === disk)
    if (found) showProgress(call, found)
  }
  if (!call.json) call.io.terminal?.draw(CLEAR_LINE)
  return unplugging
}

function showProgress({ io, json }: CommandCall, { path, moved, objects }: Disk): void {
  const total = moved + objects
  const line = `unplugging ${path}: ${moved} of ${total} objects moved`
  if (json) io.err(JSON.stringify({ progress: { what: 'unplug', done_objects: moved, total_objects: total } }))
  else if (io.terminal) io.terminal.draw(CLEAR_LINE + line)
  else io.err(line)
}

function listDisks(disks: readonly Disk[]): string {
  const rows = disks.map((disk) => [
    disk.path,
    disk.state,
    formatBytes(disk.total_bytes),
    formatBytes(disk.free_bytes),
    String(disk.objects),
    disk.is_first ? 'journal and maps' : disk.reason,
  ])
  return table([['DISK', 'STATE', 'SIZE', 'FREE', 'OBJECTS', ''], ...rows])
}
