import type net from 'node:net'
import { ByteStream } from './byte-stream.ts'
import { connectSocket } from './nbd-client.ts'

const HEADER_BYTES = 48

/** The header fields that every message has; the rest is written into the union by the caller. */
export interface RawRequest {
  opcode: number
  protoVer?: number
  flags?: number
  id?: number
  /** Of a request without a body: how much the client offers to take. */
  dataLength?: number
  body?: Buffer
  /** Fields of the union as [offset, bytes, value]. */
  fields?: readonly (readonly [number, 1 | 2 | 4 | 8, number | bigint])[]
}

export interface RawResponse {
  header: Buffer
  body: Buffer
  opcode: number
  id: number
  result: number
}

/** A client that puts bytes on the wire by hand and takes them off by hand. */
export class RawSheepClient {
  readonly #socket: net.Socket
  readonly #stream: ByteStream

  private constructor(socket: net.Socket) {
    this.#socket = socket
    this.#stream = new ByteStream(socket)
  }

  /** `address` is `host:port` or the path of a unix socket. */
  static async connect(address: string): Promise<RawSheepClient> {
    return new RawSheepClient(await connectSocket(address))
  }

  send(bytes: Buffer): void {
    this.#socket.write(bytes)
  }

  async receive(): Promise<RawResponse> {
    const header = await this.#stream.take(HEADER_BYTES)
    const body = await this.#stream.take(header.readUInt32LE(12))
    return { header, body, opcode: header.readUInt8(1), id: header.readUInt32LE(8), result: header.readUInt32LE(16) }
  }

  async request(request: RawRequest): Promise<RawResponse> {
    this.send(frame(request))
    return this.receive()
  }

  /** Everything that comes until the other side closes. */
  rest(): Promise<Buffer> {
    return this.#stream.rest()
  }

  close(): void {
    this.#socket.destroy()
  }
}

export function frame({ opcode, protoVer = 0, flags = 0, id = 1, dataLength, body, fields = [] }: RawRequest): Buffer {
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt8(protoVer, 0)
  header.writeUInt8(opcode, 1)
  header.writeUInt16LE(flags, 2)
  header.writeUInt32LE(id, 8)
  header.writeUInt32LE(dataLength ?? body?.length ?? 0, 12)
  for (const [offset, bytes, value] of fields) {
    if (bytes === 8) header.writeBigUInt64LE(BigInt(value), offset)
    else header.writeUIntLE(Number(value), offset, bytes)
  }
  return Buffer.concat([header, body ?? Buffer.alloc(0)])
}
