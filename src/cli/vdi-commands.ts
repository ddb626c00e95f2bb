import type { Command, CommandPorts } from './command.ts'
import { attributeCommands } from './vdi/attributes.ts'
import { dataCommands } from './vdi/data.ts'
import { imageCommands } from './vdi/images.ts'
import { listCommand } from './vdi/list.ts'
import { lockCommands } from './vdi/locks.ts'
import { manageCommands } from './vdi/manage.ts'
import { objectCommands } from './vdi/objects.ts'
import { treeCommand } from './vdi/tree.ts'

/** What can be done with VDIs. */
export function vdiCommands(ports: CommandPorts): Command[] {
  return [
    listCommand(ports),
    treeCommand(ports),
    ...manageCommands(ports),
    ...dataCommands(ports),
    ...imageCommands(ports),
    ...objectCommands(ports),
    ...attributeCommands(ports),
    ...lockCommands(ports),
  ]
}
