import path from 'node:path'
import { type Config, loadConfig } from '../config.ts'
import { connectApi } from '../control/api-sockets.ts'
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
  ports: CommandPorts,
  call: CommandCall,
  question: (node: ControlClient) => Promise<T>,
): Promise<T> {
  const connect = ({ data_dir }: Config) => connectControl(ports.network, path.resolve(data_dir, CONTROL_SOCKET))
  return ask(call, connect, noNode, question)
}

/** The same for a process that serves the block storage API: any of them. */
export async function askApi<T>(
  ports: CommandPorts,
  call: CommandCall,
  question: (api: ControlClient) => Promise<T>,
): Promise<T> {
  return ask(call, ({ data_dir }) => connectApi(ports.network, data_dir), noApi, question)
}

async function ask<T>(
  call: CommandCall,
  connect: (config: Config) => Promise<ControlClient>,
  absence: (config: Config) => ControlError,
  question: (other: ControlClient) => Promise<T>,
): Promise<T> {
  const config = configOf(call)
  const client = await connect(config).catch(() => {
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
