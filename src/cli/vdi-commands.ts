import type { Result } from '../control/methods.ts'
import { type Command, type CommandPorts, EXIT } from './command.ts'
import { askNode } from './node-access.ts'
import { formatBytes, table } from './table.ts'

/** What can be done with VDIs. */
export function vdiCommands(ports: CommandPorts): Command[] {
  return [
    {
      name: 'vdi list',
      summary: 'List the VDIs of the store: working ones and snapshots.',
      run: async (call) => {
        const { vdis } = await askNode(ports, call, (node) => node.call('vdi_list', {}))
        call.print(vdis, () => listVdis(vdis))
        return EXIT.OK
      },
    },
  ]
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
