import { rmSync } from 'node:fs'
import net from 'node:net'
import koffi from 'koffi'
import { secureSocket, type TlsIdentity } from './tls.ts'

/**
 * Byte streams between this process and others. An address is `host:port` or the path of a unix socket (anything
 * with a slash).
 */
export interface Network {
  listen(address: string, accept: (connection: Connection) => void): Promise<Listener>
  connect(address: string): Promise<Connection>
}

export interface Listener {
  /** The address in use, with the real port when 0 was asked for. */
  readonly address: string
  /** Stops accepting; open connections stay. */
  close(): Promise<void>
}

export interface Connection {
  readonly peer: string
  /**
   * Chunks as they arrive. A chunk belongs to the receiver. Bytes that arrive before this is called wait.
   *
   * `into` may be asked, after a chunk, where the next bytes shall go; then they may arrive there, and the next chunk is what
   * was filled of it, from its start on. Until that chunk, or the end of the connection, the memory must be used for nothing else.
   */
  onData(receive: (chunk: Buffer) => void, into?: () => Buffer | null): void
  /** Called once, when the connection is over for any reason. */
  onClose(closed: () => void): void
  /** Sends the buffers in order. They must not change until sent. Answers false while the peer reads too slowly. */
  write(buffers: readonly Uint8Array[]): boolean
  /** Bytes accepted by `write` that the kernel has not taken yet. */
  readonly pendingBytes: number
  /** Called each time `pendingBytes` falls back to zero after `write` answered false. */
  onDrain(drained: () => void): void
  /** Stops and resumes reading, so that a peer that sends too much is slowed by its own socket. */
  pause(): void
  resume(): void
  /** Whether the peer has said that it sends nothing more: a paused connection does not show it. Absent where nobody can tell. */
  hasEnded?(): boolean
  /** The last bytes of what lies unread in the socket, so many at most; they stay there. Absent where nobody can tell. */
  lastUnread?(bytes: number): Buffer
  /**
   * Goes on in TLS, as its server, on a connection that is paused; answers the connection inside, which stands for this one from then on. The
   * end of this one is still told. Rejects when the handshake fails, which ends the connection. Absent where there is none.
   */
  startTls?(identity: TlsIdentity): Promise<Connection>
  /** Sends what is pending, then closes. */
  end(): void
  /** Closes at once and drops what is pending. */
  destroy(): void
}

/**
 * Keepalive finds a peer whose host is gone without a word: the first probe after this time of silence, and the end of
 * the connection after ten more, a second apart.
 */
const KEEPALIVE_MS = 30_000
const SOCKET_OPTIONS = { noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEPALIVE_MS }

export const systemNetwork: Network = {
  listen: async (address, accept) => {
    const server = net.createServer({ ...SOCKET_OPTIONS, pauseOnConnect: true }, (socket) =>
      accept(wrapAccepted(socket)),
    )
    return {
      address: await listenOn(server, address),
      close: () => new Promise((resolve) => server.close(() => resolve())),
    }
  },
  connect: (address) =>
    new Promise((resolve, reject) => {
      const reading = new Reading()
      const socket = net.connect({ ...targetOf(address), ...SOCKET_OPTIONS, onread: reading.options })
      socket.pause()
      socket.once('error', reject)
      socket.once('connect', () => {
        socket.off('error', reject)
        if (socket.remoteAddress === undefined) giveRoom((socket as unknown as { _handle: Handle })._handle)
        resolve(wrap(socket, { onData: (receive, into) => reading.start(socket, receive, into) }))
      })
    }),
}

/** Resolves with the address in use, with the real port when 0 was asked for. */
export async function listenOn(server: net.Server, address: string): Promise<string> {
  const target = targetOf(address)
  if ('path' in target) rmSync(target.path, { force: true }) // left behind by a process that was killed
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(target, () => {
      server.off('error', reject)
      resolve()
    })
  })
  const bound = server.address()
  return bound !== null && typeof bound === 'object' ? formatAddress(bound.address, bound.port) : address
}

/** Splits `host:port`, `[v6]:port` or a path. Throws a TypeError that names what is wrong. */
export function parseAddress(address: string): { host: string; port: number } | { path: string } {
  if (address.includes('/')) return { path: address }
  const match = /^(?:\[(?<v6>[^\]]+)\]|(?<host>[^:]*)):(?<port>\d{1,5})$/.exec(address)
  const port = Number(match?.groups?.port)
  if (!match || port > 65_535) throw new TypeError(`"${address}" is not host:port or a path`)
  return { host: match.groups?.v6 ?? match.groups?.host ?? '', port }
}

/** The kernel's limit, less the NUL; Node would cut a longer path off without a word. */
const SOCKET_PATH_BYTES_MAX = 107

function targetOf(address: string): ReturnType<typeof parseAddress> {
  const target = parseAddress(address)
  if ('path' in target && Buffer.byteLength(target.path) > SOCKET_PATH_BYTES_MAX) {
    const message = `the path of a unix socket may have ${SOCKET_PATH_BYTES_MAX} bytes, and this one is longer: ${address}`
    throw Object.assign(new Error(message), { code: 'ENAMETOOLONG', syscall: 'bind' })
  }
  return target
}

export function formatAddress(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/** What `net` does not declare: the handle of a socket, and the options with which another one takes it over. */
type Handle = { fd: number }
const SocketOnHandle = net.Socket as unknown as new (options: {
  handle: Handle
  pauseOnCreate: boolean
  onread: Reading['options']
}) => net.Socket

/** Lets a socket read into memory of our choice, which saves a large payload one copy and many small buffers. */
class Reading {
  readonly #memory = new ReadMemory()
  #receive: (chunk: Buffer) => void = () => {}
  #into: () => Buffer | null = () => null

  /** For a socket that is made paused. */
  readonly options = {
    buffer: () => this.#into() ?? this.#memory.next(),
    callback: (count: number, buffer: Uint8Array) => {
      this.#memory.used(buffer as Buffer, count)
      this.#receive((buffer as Buffer).subarray(0, count))
      return true // a pause is said by `pause`; false would keep the same memory for the next bytes
    },
  }

  /** As Connection.onData. */
  start(socket: net.Socket, receive: (chunk: Buffer) => void, into?: () => Buffer | null): void {
    this.#receive = receive
    this.#into = into ?? this.#into
    socket.resume()
  }
}

/** Node offers `onread` only to those who connect, so the handle of an accepted socket moves to a second one that is made with it. */
function wrapAccepted(accepted: net.Socket): Connection {
  const owner = accepted as unknown as { _handle: Handle | null }
  const handle = owner._handle
  if (!handle) return wrap(accepted)
  if (accepted.remoteAddress === undefined) giveRoom(handle)
  owner._handle = null
  accepted.destroy()

  const reading = new Reading()
  const socket = new SocketOnHandle({ handle, pauseOnCreate: true, onread: reading.options })
  const hasEnded = () => socket.destroyed || isShutDown(handle)
  return wrap(socket, {
    onData: (receive, into) => reading.start(socket, receive, into),
    hasEnded,
    lastUnread: (bytes) => (socket.destroyed ? Buffer.alloc(0) : peekAll(handle).subarray(-bytes)),
    startTls: async (identity) => wrap(await secureSocket(socket, identity), { hasEnded }),
  })
}

const libc = koffi.load('libc.so.6')
const setsockopt = libc.func('int setsockopt(int fd, int level, int name, const int *value, uint32_t length)')
const SOL_SOCKET = 1
const SO_SNDBUF = 7
const UNIX_SEND_BYTES = 1024 * 1024

/**
 * Room for a large message and the next one in a unix socket. It has 208 KiB by itself, whatever is waiting to be sent, so that the sender of
 * a mebibyte and its reader take turns instead of working side by side; that of TCP grows as it is needed. The kernel grants as
 * much as `net.core.wmem_max` allows, which is more than that on any system.
 */
function giveRoom({ fd }: Handle): void {
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, [UNIX_SEND_BYTES], Int32Array.BYTES_PER_ELEMENT)
}

const poll = libc.func('int poll(void *fds, unsigned long count, int timeoutMs)')
const POLLRDHUP = 0x2000
/** struct pollfd: the descriptor, what is asked for, and what is there (16 bits each). One at a time: the call waits for nothing. */
const pollFd = new Int32Array(2)

/** Whether the peer has closed, or shut its half down, whatever lies unread before that. */
function isShutDown({ fd }: Handle): boolean {
  pollFd[0] = fd
  pollFd[1] = POLLRDHUP
  return poll(pollFd, 1, 0) === 1
}

const recv = libc.func('long recv(int fd, _Out_ void *target, size_t length, int flags)')
const MSG_PEEK = 0x2
const MSG_DONTWAIT = 0x40
const PEEK_BYTES = 64 * 1024

/** A copy of all that lies unread. */
function peekAll({ fd }: Handle): Buffer {
  for (let size = PEEK_BYTES; ; size *= 2) {
    const target = Buffer.allocUnsafeSlow(size)
    const count = Number(recv(fd, target, size, MSG_PEEK | MSG_DONTWAIT))
    if (count < size) return target.subarray(0, Math.max(0, count))
  }
}

const READ_SLAB_BYTES = 256 * 1024
const READ_BYTES_MIN = 64 * 1024

/** Memory for what is read, handed out once each byte: a chunk belongs to its receiver. */
class ReadMemory {
  private slab = Buffer.alloc(0)
  private usedBytes = 0

  /** At least READ_BYTES_MIN. */
  next(): Buffer {
    if (this.slab.length - this.usedBytes < READ_BYTES_MIN) {
      this.slab = Buffer.allocUnsafeSlow(READ_SLAB_BYTES)
      this.usedBytes = 0
    }
    return this.slab.subarray(this.usedBytes)
  }

  used(buffer: Buffer, count: number): void {
    if (buffer.buffer === this.slab.buffer) this.usedBytes += count
  }
}

function wrap(socket: net.Socket, more: Partial<Connection> = {}): Connection {
  socket.on('error', () => socket.destroy()) // a reset is an ordinary end; 'close' follows and tells the owner
  return {
    peer: socket.remoteAddress ? formatAddress(socket.remoteAddress, socket.remotePort ?? 0) : 'unix',
    onData: (receive) => {
      socket.on('data', receive)
      socket.resume()
    },
    onClose: (closed) => {
      if (socket.destroyed) setImmediate(closed)
      else socket.once('close', closed)
    },
    write: (buffers) => {
      if (socket.destroyed) return true
      if (buffers.length === 1) return socket.write(buffers[0]!)
      socket.cork()
      let room = true
      for (const buffer of buffers) room = socket.write(buffer)
      socket.uncork()
      return room
    },
    get pendingBytes() {
      return socket.writableLength
    },
    onDrain: (drained) => {
      socket.on('drain', drained)
    },
    pause: () => {
      socket.pause()
    },
    resume: () => {
      socket.resume()
    },
    end: () => {
      socket.end()
    },
    destroy: () => {
      socket.destroy()
    },
    ...more,
  }
}
