import path from 'node:path'
import { type Config, loadConfig } from '../config.ts'
import type { ControlClient } from '../control/client.ts'
import { API_CONTROL_SOCKET, CONTROL_SOCKET, ControlError } from '../control/messages.ts'
import { connectControl } from '../control/socket-client.ts'
import type { CommandCall, CommandPorts } from './command.ts'

/** The settings of this call: they say which data directory, and so which node, is meant. */
export function configOf({ io, argv }: Pick<CommandCall, 'io' | 'argv'>): Config {
  return loadConfig({ argv, env: io.env, readFile: io.readFile }).config
}

/** Asks the running node over its control socket. Rejects with a ControlError that says what to do when none runs. */
export async function askNode<T>(
  ports: CommandPorts,
  call: CommandCall,
  question: (node: ControlClient) => Promise<T>,
): Promise<T> {
  return ask(ports, call, CONTROL_SOCKET, noNode, question)
}

/** The same for the process that serves the block storage API. */
export async function askApi<T>(
  ports: CommandPorts,
  call: CommandCall,
  question: (api: ControlClient) => Promise<T>,
): Promise<T> {
  return ask(ports, call, API_CONTROL_SOCKET, noApi, question)
}

async function ask<T>(
  { network }: CommandPorts,
  call: CommandCall,
  socket: string,
  absence: (config: Config) => ControlError,
  question: (other: ControlClient) => Promise<T>,
): Promise<T> {
  const config = configOf(call)
  const client = await connectControl(network, path.resolve(config.data_dir, socket)).catch(() => {
    throw absence(config)
  })
  try {
    return await question(client)
  } finally {
    client.close()
  }
}

function noApi({ data_dir }: Config): ControlError {
  const advice = 'start it with `collie serve`, or name its directory with --data-dir'
  return new ControlError('Disconnected', `no block storage API is running on ${data_dir}; ${advice}`)
}

export function noNode({ data_dir }: Config): ControlError {
  const advice = 'start one with `collie serve`, or name its directory with --data-dir'
  return new ControlError('Disconnected', `no node is running on ${data_dir}; ${advice}`)
}
