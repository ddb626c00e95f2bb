import path from 'node:path'
import type { RunningApp } from './app.ts'
import { type Command, EXIT } from './cli/command.ts'
import { table } from './cli/table.ts'
import { type Config, loadConfig } from './config.ts'
import { CONTROL_SOCKET, ControlError } from './control/messages.ts'
import { type Handlers, NODE_METHODS, type Result } from './control/methods.ts'
import { listenControl } from './control/socket-carrier.ts'
import { type ControlCaller, SocketControl } from './control/socket-client.ts'
import { isOwnStore } from './own-store.ts'
import { systemClock } from './runtime/clock.ts'
import { createLog, type Log } from './runtime/log.ts'
import { type Listener, systemNetwork } from './runtime/network.ts'
import { openSystemDisk } from './runtime/system-disk.ts'
import { yieldMainThread } from './runtime/thread-priority.ts'
import { listenForStatus, storeDoor } from './status-listener.ts'
import { startStoreThread } from './store-thread.ts'
import { VERSION } from './version.ts'
import { startVolumeCopyThread, type VolumeCopyThread } from './volume-copy-thread.ts'

/** How long the parts may take to finish what is under way before the process ends without them. */
const STOP_GRACE_MS = 30_000

export const serve: Command = {
  name: 'serve',
  usesSettings: true,
  summary: 'Run what `roles` names: the API, a store node and the NBD gateway, until a signal or `collie node stop`.',
  description:
    'SIGTERM or SIGINT stops it with grace: it takes no new work, finishes what is under way and closes the store; a second\n' +
    'signal ends it at once. Logs go to standard error, one JSON object to a line.',
  run: async ({ io, argv, print }) => {
    const { config, warnings } = loadConfig({ argv, env: io.env, readFile: io.readFile })
    process.umask(0o077) // what is made in the data directory is nobody else's, whoever made the directory
    const log = createLog(config.log.level)
    for (const warning of warnings) log.warn(warning)
    const { stop, stopRequested } = listenForStop()
    const running = await start(config, log, stop)
    print(running.info, () => describe(config, running.info))
    const failure = await Promise.race([stopRequested, running.failed])
    if (failure !== null) log.fatal({ reason: failure }, 'the store failed; stopping')
    const isClean = await running.stop()
    return isClean && failure === null ? EXIT.OK : EXIT.INTERNAL
  },
}

interface Running {
  info: Result<'info'>
  /** Resolves with the reason when the store cannot go on. */
  failed: Promise<string>
  /** Ends all parts, the door first; resolves with whether each ended as it should. */
  stop(): Promise<boolean>
}

async function start(config: Config, log: Log, requestStop: () => void): Promise<Running> {
  const locks = await takeRoles(config)
  const store = runsSheep(config) ? await runStore(config, log, requestStop) : await reachStore(config, log)
  const copies = config.roles.includes('api') ? startVolumeCopyThread(config) : null
  // An API that is busy must not keep a disk waiting. The other threads are there already, so that they keep their place.
  if (config.roles.includes('store')) yieldMainThread()
  const app = copies === null ? null : await startService(config, log, store, copies)
  const status = await showStatus(config, log, store, app)
  const info: Result<'info'> = {
    ...store.info,
    pid: process.pid,
    version: VERSION,
    data_dir: config.data_dir,
    roles: [...config.roles],
    addresses: {
      ...app?.addresses,
      ...(config.roles.includes('store') ? store.info.addresses : {}),
      ...(status && { metrics: status.address }),
    },
  }
  store.announce(info)
  const finish = async () => {
    await status?.close()
    await app?.close()
    await copies?.close()
    await store.stop()
    for (const lock of locks) await lock.release()
  }
  return { info, failed: store.failed, stop: () => endsInTime(finish(), log) }
}

/** A gateway of a cluster is a sheep that holds no objects. */
const runsSheep = ({ roles, cluster }: Config): boolean =>
  roles.includes('store') || (cluster !== 'single' && roles.includes('gateway'))

/** The store that this process works with: on a thread of its own, or in another process. */
interface StoreSide {
  control: ControlCaller
  info: Result<'info'>
  /** Resolves with the reason when the store cannot go on. */
  failed: Promise<string>
  /** What `node info` tells from now on. */
  announce(info: Result<'info'>): void
  /** Calls `listener` now and when disks become busy, or quiet; never when the store is in another process. */
  onDisksBusy(listener: (isBusy: boolean) => void): void
  stop(): Promise<void>
}

/** Runs the store on its thread, and answers for it at the control socket. */
async function runStore(config: Config, log: Log, requestStop: () => void): Promise<StoreSide> {
  const store = startStoreThread(config)
  const { control } = store
  const failed = new Promise<string>((resolve) => {
    control.on('failed', ({ reason }) => resolve(reason))
    void store.ended.then(resolve)
  })
  let isBusy = false // clients of disks are back before there is an API
  let tellBusy = (_isBusy: boolean) => {}
  control.on('disks_busy', ({ busy }) => {
    isBusy = busy
    tellBusy(busy)
  })
  let info = await control.call('info', {})
  control.on('stop_asked', requestStop)
  const handlers: Handlers = {
    ...passedOn(control),
    ping: async () => ({}),
    info: async () => info,
    stop: async () => {
      requestStop()
      return {}
    },
  }
  const onDefect = (error: unknown, method: string) => log.error({ err: error, method }, 'a control call failed')
  const listener = await listenControl(systemNetwork, controlSocket(config), handlers, { onDefect })
  return {
    control,
    info,
    failed,
    announce: (complete) => {
      info = complete
    },
    onDisksBusy: (listener) => {
      tellBusy = listener
      listener(isBusy)
    },
    stop: async () => {
      await control.call('stop', {})
      await store.ended
      void listener.close() // a command that stays connected does not hold the process up
    },
  }
}

/** What the store's thread answers. */
function passedOn(control: ControlCaller): Handlers {
  return Object.fromEntries(NODE_METHODS.map((method) => [method, (params: never) => control.call(method, params)]))
}

/**
 * The store runs in another process on the same data directory, which may end and come back. When it is not there at
 * the start, other backends can do without it.
 */
async function reachStore(config: Config, log: Log): Promise<StoreSide> {
  const control = new SocketControl(systemNetwork, controlSocket(config))
  const info = await control.call('info', {}).catch((error: Error) => {
    const hint = `start the store first: collie serve --roles store,gateway --data-dir ${config.data_dir}`
    const isOnlyBackend = config.backends.every((backend) => isOwnStore(backend, config))
    if (isOnlyBackend) throw new ControlError('Disconnected', `${error.message}; ${hint}`)
    if (config.backends.some((backend) => isOwnStore(backend, config))) log.warn({ err: error }, hint)
    return { pid: process.pid, version: VERSION, data_dir: config.data_dir, roles: [], addresses: {} }
  })
  return {
    control,
    info,
    failed: new Promise(() => {}),
    announce: () => {},
    onDisksBusy: () => {},
    stop: async () => control.close(),
  }
}

const controlSocket = (config: Config) => path.resolve(config.data_dir, CONTROL_SOCKET)

async function startService(config: Config, log: Log, store: StoreSide, volumeCopies: VolumeCopyThread) {
  const { startApp } = await import('./app.ts') // late: a store alone does not load the service side
  try {
    return await startApp({ config, log, control: store.control, volumeCopies, onDisksBusy: store.onDisksBusy })
  } catch (error) {
    await store.stop()
    throw error
  }
}

/** With `metrics_listen`: pages for those who watch this process, whatever its roles. */
async function showStatus(
  config: Config,
  log: Log,
  store: StoreSide,
  app: RunningApp | null,
): Promise<Listener | null> {
  if (config.metrics_listen === null) return null
  try {
    return await listenForStatus(config.metrics_listen, app?.door ?? storeDoor(store.control, log), log)
  } catch (error) {
    await app?.close()
    await store.stop()
    throw error
  }
}

/**
 * Each role runs once in a data directory, the API as often as it may with PostgreSQL; the kernel lets go of a lock when its
 * process ends, however it ends.
 */
async function takeRoles(config: Config): Promise<{ release(): Promise<void> }[]> {
  const disk = openSystemDisk(config.data_dir)
  await disk.makeDirectory('.')
  await disk.syncDirectory('..')
  const locks: { release(): Promise<void> }[] = []
  for (const role of ['store', 'api'] as const) {
    if (!config.roles.includes(role) || (role === 'api' && config.database !== null)) continue
    const lock = await disk.lock(`${role}.lock`)
    if (lock) locks.push(lock)
    else {
      const problem = `another process serves the role ${role} on ${config.data_dir}; \`collie node info\` says which`
      throw new ControlError('Disconnected', problem)
    }
  }
  return locks
}

function listenForStop(): { stop: () => void; stopRequested: Promise<null> } {
  let stop = () => {}
  const stopRequested = new Promise<null>((resolve) => {
    stop = () => resolve(null)
  })
  let signals = 0
  for (const [signal, number] of [
    ['SIGTERM', 15],
    ['SIGINT', 2],
  ] as const) {
    process.on(signal, () => {
      if (++signals > 1) process.exit(128 + number)
      stop()
    })
  }
  return { stop, stopRequested }
}

async function endsInTime(finish: Promise<void>, log: Log): Promise<boolean> {
  const tooLate = systemClock.sleep(STOP_GRACE_MS).then(() => {
    throw new Error(`not finished after ${STOP_GRACE_MS} ms`)
  })
  try {
    await Promise.race([finish, tooLate])
    return true
  } catch (error) {
    log.error({ err: error }, 'did not stop cleanly')
    return false
  }
}

function describe(config: Config, info: Result<'info'>): string {
  const credentials = {
    local: `Credentials: source ${path.resolve(config.data_dir, 'openrc')}`,
    keystone: `Tokens are those of ${config.keystone.url}`,
    noauth: 'No authentication: every token is believed, as `user:project`.',
  }[config.auth]
  return [
    `collie ${info.version} is running, process ${info.pid}`,
    table(Object.entries(info.addresses).map(([name, address]) => [`  ${name}`, address])),
    ...(config.roles.includes('api') ? [credentials] : []),
  ].join('\n')
}
