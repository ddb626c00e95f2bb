import net from 'node:net'
import tls from 'node:tls'
import { ByteStream } from './byte-stream.ts'

/**
 * A small NBD client with its own numbers, so that it shares no mistake with the server. Requests are pipelined:
 * each method sends at once and resolves when its reply has come.
 */
export const FUA = 1
export const NO_HOLE = 2
export const DF = 4
export const REQ_ONE = 8
export const FAST_ZERO = 16

const OPTION_MAGIC = Buffer.from('49484156454f5054', 'hex')
const [OPT_EXPORT_NAME, OPT_STARTTLS, OPT_GO, OPT_STRUCTURED_REPLY, OPT_SET_META_CONTEXT] = [1, 5, 7, 8, 10] as const
const [REP_ACK, REP_INFO, REP_META_CONTEXT] = [1, 3, 4] as const
const [READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS] = [0, 1, 2, 3, 4, 5, 6, 7] as const
const [CHUNK_NONE, CHUNK_DATA, CHUNK_HOLE, CHUNK_STATUS] = [0, 1, 2, 5] as const
const EMPTY: Buffer = Buffer.alloc(0)

/** The server's answer to an option, or to a request, was an error. */
export class NbdError extends Error {
  readonly code: number

  constructor(code: number, message = `NBD error ${code}`) {
    super(message)
    this.code = code
  }
}

export interface StatusExtent {
  lengthBytes: number
  flags: number
}

export interface NbdClientOptions {
  /** Negotiate structured replies and base:allocation; with `false` a plain client of the oldest kind. */
  structured?: boolean
  /** Begin TLS before anything else. */
  tls?: tls.ConnectionOptions
}

interface Waiting {
  type: number
  offset: number
  data: Buffer
  extents: StatusExtent[]
  error: NbdError | undefined
  resolve(reply: Waiting): void
  reject(error: Error): void
}

export class NbdClient {
  readonly sizeBytes: number
  readonly transmissionFlags: number
  private readonly socket: net.Socket
  private readonly stream: ByteStream
  private readonly waiting = new Map<bigint, Waiting>()
  private lastCookie = 0n
  private lost: Error | undefined
  /** Resolves when the connection is over, for whatever reason. */
  readonly closed: Promise<void>

  private constructor(socket: net.Socket, stream: ByteStream, sizeBytes: number, transmissionFlags: number) {
    this.socket = socket
    this.stream = stream
    this.sizeBytes = sizeBytes
    this.transmissionFlags = transmissionFlags
    this.closed = this.receiveReplies()
  }

  /** `address` is `host:port` or a path. Rejects with an NbdError when the server refuses the export. */
  static async connect(address: string, exportName: string, options: NbdClientOptions = {}): Promise<NbdClient> {
    let socket = await connectSocket(address)
    let stream = new ByteStream(socket)
    try {
      const greeting = await stream.take(18)
      if (greeting.toString('latin1', 0, 16) !== 'NBDMAGICIHAVEOPT') throw new Error('not a newstyle server')
      socket.write(uint32(3))
      if (options.tls !== undefined) {
        await haggle(socket, stream, OPT_STARTTLS, EMPTY)
        socket = await secureClient(socket, options.tls)
        stream = new ByteStream(socket)
      }
      const name = Buffer.from(exportName)
      if (options.structured === false) {
        sendOption(socket, OPT_EXPORT_NAME, name)
        const info = await stream.take(10)
        return new NbdClient(socket, stream, Number(info.readBigUInt64BE(0)), info.readUInt16BE(8))
      }
      const namePart = Buffer.concat([uint32(name.length), name])
      const query = Buffer.from('base:allocation')
      await haggle(socket, stream, OPT_STRUCTURED_REPLY, EMPTY)
      const selection = Buffer.concat([namePart, uint32(1), uint32(query.length), query])
      await haggle(socket, stream, OPT_SET_META_CONTEXT, selection)
      const info = await haggle(socket, stream, OPT_GO, Buffer.concat([namePart, Buffer.alloc(2)]))
      return new NbdClient(socket, stream, Number(info.readBigUInt64BE(2)), info.readUInt16BE(10))
    } catch (error) {
      socket.destroy()
      throw error
    }
  }

  async read(offset: number, lengthBytes: number, flags = 0): Promise<Buffer> {
    return (await this.request(READ, flags, offset, lengthBytes)).data
  }

  async write(offset: number, data: Buffer, flags = 0): Promise<void> {
    await this.request(WRITE, flags, offset, data.length, data)
  }

  async flush(): Promise<void> {
    await this.request(FLUSH, 0, 0, 0)
  }

  async trim(offset: number, lengthBytes: number, flags = 0): Promise<void> {
    await this.request(TRIM, flags, offset, lengthBytes)
  }

  async cache(offset: number, lengthBytes: number): Promise<void> {
    await this.request(CACHE, 0, offset, lengthBytes)
  }

  async writeZeroes(offset: number, lengthBytes: number, flags = 0): Promise<void> {
    await this.request(WRITE_ZEROES, flags, offset, lengthBytes)
  }

  async blockStatus(offset: number, lengthBytes: number, flags = 0): Promise<StatusExtent[]> {
    return (await this.request(BLOCK_STATUS, flags, offset, lengthBytes)).extents
  }

  /** Any request, valid or not; resolves on success with the data of a read. */
  async send(type: number, flags: number, offset: number, lengthBytes: number, payload?: Buffer): Promise<Buffer> {
    return (await this.request(type, flags, offset, lengthBytes, payload)).data
  }

  /** Says goodbye; `closed` follows when the server has answered everything and closed. */
  disconnect(): Promise<void> {
    this.socket.write(requestHeader(DISC, 0, 0n, 0, 0))
    return this.closed
  }

  /** The same, and that nothing comes after it. */
  sayGoodbye(): void {
    this.socket.end(requestHeader(DISC, 0, 0n, 0, 0))
  }

  destroy(): void {
    this.socket.destroy()
  }

  /** Leaves replies unread, as a stopped client does. */
  stopReading(): void {
    this.socket.pause()
  }

  resumeReading(): void {
    this.socket.resume()
  }

  private request(type: number, flags: number, offset: number, lengthBytes: number, payload = EMPTY): Promise<Waiting> {
    if (this.lost) return Promise.reject(this.lost)
    const cookie = ++this.lastCookie
    return new Promise((resolve, reject) => {
      const data = type === READ ? Buffer.alloc(lengthBytes) : EMPTY
      this.waiting.set(cookie, { type, offset, data, extents: [], error: undefined, resolve, reject })
      this.socket.cork()
      this.socket.write(requestHeader(type, flags, cookie, offset, lengthBytes))
      if (payload.length > 0) this.socket.write(payload)
      this.socket.uncork()
    })
  }

  private async receiveReplies(): Promise<void> {
    try {
      for (;;) await this.receiveReply()
    } catch (error) {
      this.lost = error as Error
      this.socket.destroy()
      for (const { reject } of this.waiting.values()) reject(this.lost)
      this.waiting.clear()
    }
  }

  private async receiveReply(): Promise<void> {
    const head = await this.stream.take(16)
    const cookie = head.readBigUInt64BE(8)
    const waiting = this.waiting.get(cookie)
    if (!waiting) throw new Error(`a reply to nothing: ${head.toString('hex')}`)
    let done = true
    if (head.readUInt32BE(0) === 0x67446698) {
      const code = head.readUInt32BE(4)
      if (code !== 0) waiting.error = new NbdError(code)
      else if (waiting.type === READ) waiting.data = await this.stream.take(waiting.data.length)
    } else if (head.readUInt32BE(0) === 0x668e33ef) {
      done = (head.readUInt16BE(4) & 1) !== 0
      const payload = await this.stream.take((await this.stream.take(4)).readUInt32BE(0))
      applyChunk(waiting, head.readUInt16BE(6), payload)
    } else {
      throw new Error(`not a reply: ${head.toString('hex')}`)
    }
    if (!done) return
    this.waiting.delete(cookie)
    if (waiting.error) waiting.reject(waiting.error)
    else waiting.resolve(waiting)
  }
}

function applyChunk(waiting: Waiting, type: number, payload: Buffer): void {
  if (type === CHUNK_DATA) {
    payload.copy(waiting.data, Number(payload.readBigUInt64BE(0)) - waiting.offset, 8)
  } else if (type === CHUNK_STATUS) {
    for (let at = 4; at < payload.length; at += 8) {
      waiting.extents.push({ lengthBytes: payload.readUInt32BE(at), flags: payload.readUInt32BE(at + 4) })
    }
  } else if ((type & 0x8000) !== 0) {
    waiting.error = new NbdError(payload.readUInt32BE(0), payload.toString('utf8', 6, 6 + payload.readUInt16BE(4)))
  } else if (type !== CHUNK_NONE && type !== CHUNK_HOLE) {
    throw new Error(`unknown chunk type ${type}`)
  }
}

/** Sends an option, takes all its replies, and answers with the first INFO. */
async function haggle(socket: net.Socket, stream: ByteStream, option: number, data: Buffer): Promise<Buffer> {
  sendOption(socket, option, data)
  let info = EMPTY
  for (;;) {
    const head = await stream.take(20)
    const type = head.readUInt32BE(12)
    const body = await stream.take(head.readUInt32BE(16))
    if (type === REP_ACK) return info
    if (type === REP_INFO && body.readUInt16BE(0) === 0) info = body
    else if (type !== REP_INFO && type !== REP_META_CONTEXT) throw new NbdError(type, body.toString())
  }
}

function sendOption(socket: net.Socket, option: number, data: Buffer): void {
  socket.write(Buffer.concat([OPTION_MAGIC, uint32(option), uint32(data.length), data]))
}

function requestHeader(type: number, flags: number, cookie: bigint, offset: number, lengthBytes: number): Buffer {
  const header = Buffer.alloc(28)
  header.writeUInt32BE(0x25609513, 0)
  header.writeUInt16BE(flags, 4)
  header.writeUInt16BE(type, 6)
  header.writeBigUInt64BE(cookie, 8)
  header.writeBigUInt64BE(BigInt(offset), 16)
  header.writeUInt32BE(lengthBytes, 24)
  return header
}

/** TLS on a connected socket. Rejects when the handshake fails; what the server says of the client may come later. */
export async function secureClient(socket: net.Socket, options: tls.ConnectionOptions): Promise<tls.TLSSocket> {
  const secured = tls.connect({ ...options, socket })
  await new Promise<void>((resolve, reject) => {
    secured.once('secureConnect', resolve)
    secured.once('error', reject)
    secured.once('close', () => reject(new Error('the stream ended')))
  })
  return secured
}

export async function connectSocket(address: string): Promise<net.Socket> {
  const colon = address.lastIndexOf(':')
  const socket = address.includes('/')
    ? net.connect({ path: address })
    : net.connect({ host: address.slice(0, colon), port: Number(address.slice(colon + 1)) })
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('error', reject)
  })
  return socket
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
