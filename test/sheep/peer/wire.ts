import type { Connection, Listener, Network } from '../../../src/runtime/network.ts'

export type Direction = 'to server' | 'to client'

/** A network with somebody in the middle, who passes each chunk on as it is, or as something else. */
export class Wire implements Network {
  #accept: ((connection: Connection) => void) | null = null
  /** What is passed on in the place of a chunk. */
  middle: (direction: Direction, chunk: Buffer) => readonly Buffer[] = (_direction, chunk) => [chunk]

  async listen(address: string, accept: (connection: Connection) => void): Promise<Listener> {
    this.#accept = accept
    return { address, close: async () => {} }
  }

  async connect(): Promise<Connection> {
    const client = new End()
    const server = new End()
    client.passOn = (chunk) => this.middle('to server', chunk).forEach((part) => void server.arrived(part))
    server.passOn = (chunk) => this.middle('to client', chunk).forEach((part) => void client.arrived(part))
    client.other = server
    server.other = client
    this.#accept!(server)
    return client
  }
}

class End implements Connection {
  readonly peer = 'wire'
  readonly pendingBytes = 0
  passOn: (chunk: Buffer) => void = () => {}
  other: End | null = null
  #receive: ((chunk: Buffer) => void) | null = null
  #waiting: Buffer[] = []
  #closed: () => void = () => {}
  #isOver = false

  arrived(chunk: Buffer): void {
    if (this.#isOver) return
    if (this.#receive) this.#receive(chunk)
    else this.#waiting.push(chunk)
  }

  onData(receive: (chunk: Buffer) => void): void {
    this.#receive = receive
    for (const chunk of this.#waiting.splice(0)) receive(chunk)
  }

  onClose(closed: () => void): void {
    this.#closed = closed
  }

  write(buffers: readonly Uint8Array[]): boolean {
    const bytes = Buffer.concat(buffers)
    queueMicrotask(() => this.passOn(bytes))
    return true
  }

  onDrain(): void {}
  pause(): void {}
  resume(): void {}

  end(): void {
    this.destroy()
  }

  destroy(): void {
    for (const end of [this, this.other!]) {
      if (end.#isOver) continue
      end.#isOver = true
      queueMicrotask(end.#closed)
    }
  }
}
