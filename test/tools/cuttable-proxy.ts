import { once } from 'node:events'
import net from 'node:net'

/** Passes TCP connections on, until it is cut: then nothing passes either way and nobody is told, as with a cable that was pulled. */
export class CuttableProxy {
  readonly #server: net.Server
  readonly #sockets = new Set<net.Socket>()
  #isCut = false

  private constructor(target: { host: string; port: number }) {
    this.#server = net.createServer((near) => {
      const far = net.connect(target)
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(from)
        from.on('data', (chunk) => {
          if (!this.#isCut) to.write(chunk)
        })
        from.on('error', () => {}) // 'close' follows
        from.once('close', () => {
          this.#sockets.delete(from)
          if (!this.#isCut) to.destroy()
        })
      }
    })
  }

  /** Listens on a port of its own and passes on to `host:port`. */
  static async start(target: string): Promise<CuttableProxy> {
    const { hostname: host, port } = new URL(`tcp://${target}`)
    const proxy = new CuttableProxy({ host, port: Number(port) })
    proxy.#server.listen(0, '127.0.0.1')
    await once(proxy.#server, 'listening')
    return proxy
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as net.AddressInfo).port}`
  }

  cut(): void {
    this.#isCut = true
  }

  /** Connections of before are over: what they have lost cannot be made up for. */
  heal(): void {
    this.#isCut = false
    for (const socket of this.#sockets) socket.destroy()
  }

  async stop(): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close()
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }
}
