import assert from 'node:assert'
import { parentPort, workerData } from 'node:worker_threads'
import type { Config } from './config.ts'
import { portCarrier } from './control/port-carrier.ts'
import { type ControlServer, serveControl } from './control/serve.ts'
import { startNode } from './node.ts'
import { systemClock } from './runtime/clock.ts'
import { createLog } from './runtime/log.ts'
import { goFirst } from './runtime/thread-priority.ts'
import { VERSION } from './version.ts'

/** The store thread (see store-thread.ts): runs a node and answers the service side about it. */
const port = parentPort
assert(port !== null, 'node-worker runs as a worker thread')

goFirst()
const { config } = workerData as { config: Config }
const log = createLog(config.log.level)
let control: ControlServer | undefined
let failure: string | undefined
let isBusy = false

const node = await startNode({
  config,
  log,
  onFailed: (reason) => {
    failure = reason
    control?.emit('failed', { reason })
  },
  onStopAsked: () => control?.emit('stop_asked', {}),
  onDisksBusy: (busy) => {
    isBusy = busy
    control?.emit('disks_busy', { busy })
  },
})

control = serveControl(
  portCarrier(port),
  {
    ...node.handlers,
    ping: async () => ({}),
    info: async () => ({
      pid: process.pid,
      version: VERSION,
      data_dir: config.data_dir,
      roles: config.roles.filter((role) => role !== 'api'),
      addresses: node.addresses,
      nbd_tls: config.nbd_tls,
    }),
    stop: async () => {
      await node.close()
      systemClock.afterInput(() => port.close()) // once the answer is on its way; nothing else keeps the thread
      return {}
    },
  },
  { onDefect: (error, method) => log.error({ err: error, method }, 'a control call failed') },
)
if (failure !== undefined) control.emit('failed', { reason: failure })
if (isBusy) control.emit('disks_busy', { busy: true })
