import { Worker } from 'node:worker_threads'
import type { Config } from './config.ts'
import { ControlClient } from './control/client.ts'
import { portCarrier } from './control/port-carrier.ts'

export interface StoreThread {
  control: ControlClient
  /** Resolves with the reason when the thread has ended, wanted or not. */
  ended: Promise<string>
  terminate(): void
}

/**
 * Starts the store side on a thread of its own, so that a burst of API requests does not stall a disk. It is up when
 * `control.call('info')` is answered, and gone when that is rejected. The entry is node-worker; in a build, a `.js` file.
 */
export function startStoreThread(config: Config): StoreThread {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
  const worker = new Worker(new URL(`./node-worker.${extension}`, import.meta.url), {
    workerData: { config },
    trackUnmanagedFds: false, // files are opened by other means, too; see runtime/libc.ts
  })
  const ended = new Promise<string>((resolve) => {
    worker.once('error', (error: Error) => resolve(error.message))
    worker.once('exit', (code) => resolve(`the store thread ended with code ${code}`))
  })
  return {
    control: new ControlClient(portCarrier(worker)),
    ended,
    terminate: () => void worker.terminate(),
  }
}
