import type { Connection, Listener, Network } from '../../src/runtime/network.ts'

/** Bytes that the kernel would take from a server whose client does not read. */
const SOCKET_BUFFER_BYTES = 256 * 1024

/**
 * A network within the process, for servers that are to meet very many clients: no kernel, no waiting. What a client
 * sends is there at once, unless the server has paused.
 */
export class MemoryNetwork implements Network {
  private accept: ((connection: Connection) => void) | undefined

  async listen(address: string, accept: (connection: Connection) => void): Promise<Listener> {
    this.accept = accept
    return {
      address,
      close: async () => {
        this.accept = undefined
      },
    }
  }

  connect(): Promise<Connection> {
    return Promise.reject(new Error('only clients of the test connect'))
  }

  /** A client of whatever listens here. */
  dial(): MemoryClient {
    if (this.accept === undefined) throw new Error('nobody listens')
    const client = new MemoryClient()
    this.accept(client.server)
    return client
  }
}

/** What a client sends first in what stands for TLS here; whatever else comes fails the handshake. */
export const MEMORY_TLS_HELLO = Buffer.from('TLS?')

/** The client's end of a connection. */
export class MemoryClient {
  /** What came back and `take` has not fetched. */
  private received: Buffer[] = []
  /** Written by the server while the client did not read. */
  private unread: Buffer[] = []
  private sent: Buffer[] = []
  private reads = true
  private serverReads = false
  private receive: ((chunk: Buffer) => void) | undefined
  private closed: (() => void) | undefined
  private failTls: (error: Error) => void = () => {}
  private drained: () => void = () => {}
  private owesDrain = false
  private delivering = false
  over = false
  /** What stands for TLS has begun. */
  isSecured = false

  get unreadBytes(): number {
    return this.unread.reduce((sum, { length }) => sum + length, 0)
  }

  send(bytes: Buffer): void {
    if (this.over) return
    this.sent.push(bytes)
    this.deliver()
  }

  /** Leaves what comes from now on unread, as a stopped client does. */
  stopReading(): void {
    this.reads = false
  }

  resumeReading(): void {
    this.reads = true
    this.received.push(...this.unread)
    this.unread = []
    if (!this.owesDrain) return
    this.owesDrain = false
    this.drained()
  }

  /** All that has come back so far. */
  take(): Buffer {
    const bytes = Buffer.concat(this.received)
    this.received = []
    return bytes
  }

  close(): void {
    if (this.over) return
    this.over = true
    this.sent = []
    this.unread = []
    this.failTls(new Error('the connection ended in the TLS handshake'))
    this.closed?.()
  }

  /** The server's end. */
  readonly server: Connection = this.serverEnd()

  private serverEnd(): Connection {
    const client = this
    return {
      peer: 'memory',
      onData: (receive) => {
        this.receive = receive
        this.serverReads = true
        this.deliver()
      },
      onClose: (closed) => {
        this.closed = closed
      },
      write: (buffers) => {
        if (this.over) return true
        // Copied: the server uses its buffers again as soon as they count as sent.
        for (const buffer of buffers) (this.reads ? this.received : this.unread).push(Buffer.from(buffer))
        this.owesDrain = !this.reads && this.unreadBytes > SOCKET_BUFFER_BYTES
        return !this.owesDrain
      },
      get pendingBytes() {
        return Math.max(0, client.unreadBytes - SOCKET_BUFFER_BYTES)
      },
      onDrain: (drained) => {
        this.drained = drained
      },
      pause: () => {
        this.serverReads = false
      },
      resume: () => {
        this.serverReads = true
        this.deliver()
      },
      startTls: () => this.startTls(),
      end: () => queueMicrotask(() => this.close()),
      destroy: () => queueMicrotask(() => this.close()),
    }
  }

  /** No cipher: it is about what a server does before, meanwhile and afterwards. */
  private startTls(): Promise<Connection> {
    return new Promise((resolve, reject) => {
      this.failTls = reject
      let hello = Buffer.alloc(0)
      this.receive = (chunk) => {
        hello = Buffer.concat([hello, chunk])
        if (hello.length < MEMORY_TLS_HELLO.length) return
        if (!hello.subarray(0, MEMORY_TLS_HELLO.length).equals(MEMORY_TLS_HELLO)) return this.close()
        this.serverReads = false
        this.isSecured = true
        const rest = hello.subarray(MEMORY_TLS_HELLO.length)
        if (rest.length > 0) this.sent.unshift(rest)
        resolve(this.serverEnd())
      }
      this.serverReads = true
      this.deliver()
    })
  }

  private deliver(): void {
    if (this.delivering) return
    this.delivering = true
    while (this.serverReads && !this.over && this.sent.length > 0) this.receive?.(this.sent.shift()!)
    this.delivering = false
  }
}
