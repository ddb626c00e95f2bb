import path from 'node:path'
import { type Config, loadConfig } from '../config.ts'
import type { ControlClient } from '../control/client.ts'
import { CONTROL_SOCKET, ControlError } from '../control/messages.ts'
import { connectControl } from '../control/socket-client.ts'
import type { CommandCall, CommandPorts } from './command.ts'

/** The settings of this call: they say which data directory, and so which node, is meant. */
export function configOf({ io, argv }: Pick<CommandCall, 'io' | 'argv'>): Config {
  return loadConfig({ argv, env: io.env, readFile: io.readFile }).config
}

/** Asks the running node over its control socket. Rejects with a ControlError that says what to do when none runs. */
export async function askNode<T>(
  { network }: CommandPorts,
  call: CommandCall,
  question: (node: ControlClient) => Promise<T>,
): Promise<T> {
  const config = configOf(call)
  const node = await connectControl(network, path.resolve(config.data_dir, CONTROL_SOCKET)).catch(() => {
    throw noNode(config)
  })
  try {
    return await question(node)
  } finally {
    node.close()
  }
}

export function noNode({ data_dir }: Config): ControlError {
  const advice = 'start one with `collie serve`, or name its directory with --data-dir'
  return new ControlError('Disconnected', `no node is running on ${data_dir}; ${advice}`)
}
