import path from 'node:path'
import { makeDirectory, namesIn, removeFile } from '../runtime/files.ts'
import type { Listener, Network } from '../runtime/network.ts'
import type { Random } from '../runtime/random.ts'
import type { ControlClient } from './client.ts'
import { ControlError } from './messages.ts'
import type { Handlers } from './methods.ts'
import type { ServeOptions } from './serve.ts'
import { listenControl } from './socket-carrier.ts'
import { connectControl } from './socket-client.ts'

/**
 * The control sockets of the role api: a directory with one for each process, since several may serve one data directory. Which of
 * them is asked makes no difference: they share the database.
 */
const DIRECTORY = 'api'

/** Not by process id: two containers on one data directory may have the same. */
const NAME_BYTES = 4

/** Answers commands for this process, and takes the sockets away that killed ones left. */
export async function listenAsApi(
  network: Network,
  random: Random,
  dataDir: string,
  handlers: Handlers,
  options: ServeOptions,
): Promise<Listener> {
  const directory = path.resolve(dataDir, DIRECTORY)
  makeDirectory(directory)
  await Promise.all(socketsIn(directory).map((socket) => removeIfStale(network, socket)))
  const name = `${random.bytes(NAME_BYTES).toString('hex')}.sock`
  return listenControl(network, path.join(directory, name), handlers, options)
}

/**
 * Connects to whichever process answers first: one that stands still is connected to as well, and never answers. Rejects with
 * Disconnected when there is none.
 */
export async function connectApi(network: Network, dataDir: string): Promise<ControlClient> {
  const directory = path.resolve(dataDir, DIRECTORY)
  const connecting = socketsIn(directory).map((socket) => connectControl(network, socket))
  const answering = connecting.map(async (connection) => {
    const client = await connection
    await client.call('ping', {})
    return client
  })
  const first = await Promise.any(answering).catch(() => {
    throw new ControlError('Disconnected', `no process of the role api answers in ${directory}`)
  })
  for (const connection of connecting) {
    connection.then(
      (client) => client !== first && client.close(),
      () => {}, // nobody is there
    )
  }
  return first
}

function socketsIn(directory: string): string[] {
  return namesIn(directory)
    .filter((name) => name.endsWith('.sock'))
    .map((name) => path.join(directory, name))
}

async function removeIfStale(network: Network, socket: string): Promise<void> {
  try {
    const connection = await network.connect(socket)
    connection.destroy()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ECONNREFUSED') removeFile(socket)
  }
}
