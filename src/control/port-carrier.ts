import type { MessagePort, Worker } from 'node:worker_threads'
import type { Carrier } from './messages.ts'

/** Messages between threads: `port` is a MessagePort, the parent's port within a worker, or a Worker seen from outside. */
export function portCarrier(port: MessagePort | Worker): Carrier {
  return {
    send: (message) => port.postMessage(message),
    onMessage: (receive) => {
      port.on('message', receive)
    },
    onClose: (closed) => {
      let told = false
      const tell = (reason: string) => {
        if (!told) closed(reason)
        told = true
      }
      port.on('error', (error: Error) => tell(error.message))
      port.on('exit', (code: number) => tell(`the thread ended with code ${code}`))
      port.on('close', () => tell('the thread closed its port'))
    },
    close: () => {
      if ('terminate' in port) void port.terminate()
      else port.close()
    },
  }
}
