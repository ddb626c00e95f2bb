import { readFileSync } from 'node:fs'
import net, { type AddressInfo } from 'node:net'
import tls from 'node:tls'
import type { Certificates } from './certificates.ts'

/** TLS in front of a server that has none, as operators put it there. */
export interface TlsFront {
  /** The URL of the server, over https at localhost. */
  url: string
  close(): void
}

export async function startTlsFront(url: string, { certificate, key }: Certificates['server']): Promise<TlsFront> {
  const { hostname, port, pathname } = new URL(url)
  const sockets = new Set<net.Socket>()
  const server = tls.createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (client) => {
    const behind = net.connect(Number(port), hostname)
    for (const [from, to] of [[client, behind] as const, [behind, client] as const]) {
      sockets.add(from)
      from.on('error', () => to.destroy())
      from.on('close', () => sockets.delete(from))
      from.pipe(to)
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `https://localhost:${(server.address() as AddressInfo).port}${pathname}`,
    close: () => {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}
