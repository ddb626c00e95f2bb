import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { type Connection, systemNetwork } from '../../src/runtime/network.ts'

/**
 * How the kernel has armed the timer of a socket, from /proc/net/tcp: by the ports of its two ends, the first part of
 * the field `tr tm->when`. 2 is the timer of keepalive.
 */
function timerOf(localPort: number, remotePort: number): number | undefined {
  const hexPort = (port: number) => port.toString(16).toUpperCase().padStart(4, '0')
  for (const line of readFileSync('/proc/net/tcp', 'utf8').split('\n')) {
    const [, local, remote, , , timer] = line.trim().split(/\s+/)
    if (local?.endsWith(`:${hexPort(localPort)}`) && remote?.endsWith(`:${hexPort(remotePort)}`)) {
      return Number.parseInt(timer ?? '', 16)
    }
  }
  return undefined
}

it('probes a silent peer at both ends, so that one whose host is gone is found', async () => {
  const accepted: Connection[] = []
  const listener = await systemNetwork.listen('127.0.0.1:0', (connection) => accepted.push(connection))
  const connection = await systemNetwork.connect(listener.address)
  onTestFinished(async () => {
    connection.destroy()
    for (const other of accepted) other.destroy()
    await listener.close()
  })
  while (accepted.length === 0) await new Promise((resolve) => setImmediate(resolve))
  const serverPort = Number(listener.address.split(':').at(-1))
  const clientPort = Number(accepted[0]!.peer.split(':').at(-1))
  expect(timerOf(serverPort, clientPort)).toBe(2)
  expect(timerOf(clientPort, serverPort)).toBe(2)
})

it('lets an accepted unix socket take a large answer at once, before the peer reads', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'network-'))
  const accepted: Connection[] = []
  const listener = await systemNetwork.listen(join(directory, 'sock'), (connection) => accepted.push(connection))
  const connection = await systemNetwork.connect(listener.address)
  onTestFinished(async () => {
    connection.destroy()
    for (const other of accepted) other.destroy()
    await listener.close()
    rmSync(directory, { recursive: true })
  })
  while (accepted.length === 0) await new Promise((resolve) => setImmediate(resolve))
  // More than the 208 KiB of a socket that nobody has asked for, and what the lowest usual limit of the kernel allows.
  accepted[0]!.write([Buffer.alloc(320 * 1024)])
  expect(accepted[0]!.pendingBytes).toBe(0)
})
