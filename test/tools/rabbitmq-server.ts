import { rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { freePort } from './collie.ts'
import { ForeignServer, isListening } from './foreign-server.ts'
import { scratchDirectory } from './scratch.ts'
import { Started } from './started.ts'

/** The program itself: the one on the path is a wrapper that wants to be root or `rabbitmq`. */
const PROGRAM = '/usr/lib/rabbitmq/bin/rabbitmq-server'

export const RABBITMQ_PROGRAMS = { [PROGRAM]: 'rabbitmq-server', epmd: 'rabbitmq-server' }

/** Debian's RabbitMQ on loopback. */
export class RabbitmqServer {
  readonly url: string
  readonly #started: Started

  private constructor(url: string, started: Started) {
    this.url = url
    this.#started = started
  }

  static async start(): Promise<RabbitmqServer> {
    const started = new Started()
    try {
      return new RabbitmqServer(await startBroker(started), started)
    } catch (error) {
      await started.stop()
      throw error
    }
  }

  async stop(): Promise<void> {
    await this.#started.stop()
  }
}

/** Resolves with its URL. */
async function startBroker(started: Started): Promise<string> {
  const directory = scratchDirectory('collie-rabbitmq-')
  started.onStop(() => rmSync(directory, { recursive: true, force: true }))
  const at = (name: string) => path.join(directory, name)
  const [port, distribution, mapper] = [await freePort(), await freePort(), await freePort()]
  // The broker would start the daemon that finds nodes of Erlang by itself, and leave it behind.
  started.keep(
    await ForeignServer.start({
      words: ['epmd', '-address', '127.0.0.1', '-port', String(mapper)],
      url: () => isListening({ host: '127.0.0.1', port: mapper }),
    }),
  )
  writeFileSync(at('plugins'), '[].\n')
  started.keep(
    await ForeignServer.start({
      words: [PROGRAM],
      url: () => isListening({ host: '127.0.0.1', port }),
      env: {
        HOME: directory, // for the cookie
        ERL_EPMD_PORT: String(mapper),
        RABBITMQ_NODENAME: `collie-${port}@localhost`,
        RABBITMQ_NODE_IP_ADDRESS: '127.0.0.1',
        RABBITMQ_NODE_PORT: String(port),
        RABBITMQ_DIST_PORT: String(distribution),
        RABBITMQ_MNESIA_BASE: at('data'),
        RABBITMQ_LOG_BASE: at('log'),
        RABBITMQ_PID_FILE: at('pid'),
        RABBITMQ_ENABLED_PLUGINS_FILE: at('plugins'),
        RABBITMQ_CONFIG_FILE: at('none'),
        RABBITMQ_CONF_ENV_FILE: at('none'),
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-kernel inet_dist_use_interface {127,0,0,1}',
        RUNNING_UNDER_SYSTEMD: 'true', // no shell around it that would outlive it
      },
    }),
  )
  return `rabbit://guest:guest@127.0.0.1:${port}/`
}
