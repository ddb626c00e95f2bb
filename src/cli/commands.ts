import { clusterCommands } from './cluster-commands.ts'
import { clusterSetupCommands } from './cluster-setup-commands.ts'
import type { Command, CommandPorts } from './command.ts'
import { configShow } from './config-command.ts'
import { diskCommands } from './disk-commands.ts'
import { maintenanceCommands } from './maintenance-commands.ts'
import { nodeCommands } from './node-commands.ts'
import { recoveryCommands } from './recovery-commands.ts'
import { vdiCommands } from './vdi-commands.ts'
import { version } from './version-command.ts'
import { volumeCommands } from './volume-commands.ts'

/** Every command but `serve`, which is above this directory; in the order of the help. */
export function allCommands(ports: CommandPorts): Command[] {
  return [
    ...vdiCommands(ports),
    ...volumeCommands(ports),
    ...nodeCommands(ports),
    ...diskCommands(ports),
    ...clusterSetupCommands(ports),
    ...clusterCommands(ports),
    ...recoveryCommands(ports),
    ...maintenanceCommands(ports),
    configShow,
    version,
  ]
}
