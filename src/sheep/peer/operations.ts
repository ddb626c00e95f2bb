import { FLAG, HEADER_SIZE_BYTES, RESULT } from '../../protocol/constants.ts'
import {
  decodeRequestHeader,
  decodeResponseHeader,
  encodeRequestHeader,
  encodeResponseHeader,
} from '../../protocol/header.ts'
import type { SheepRequest, SheepResponse } from '../../protocol/message.ts'
import { OP, opcodeName, protoVerOf } from '../../protocol/opcodes.ts'
import type { Life } from '../membership/view.ts'
import type { Reply, SheepClient } from '../server.ts'
import { MalformedMessage } from './byte-reader.ts'
import { type AnyHandler, handler, type IncomingPeer, type Kind, LinkError, REQUEST_COST_BYTES } from './kind.ts'
import type { PeerLinks } from './links.ts'

/** A request of a client of one node, for the operation table of another one. */
interface Operation {
  /** Tells the clients of the sending node apart. */
  client: number
  /** Null when that client has gone. */
  request: SheepRequest | null
  /** The last entry of the log that had taken effect at the sender; 0 where that does not matter. */
  knownIndex: number
}

const WINDOW_BYTES = 32 << 20
const WAITING_BYTES_MAX = 256 << 20
const CRC_BYTES = 4

/**
 * ```
 * fields = client u32, header of the Sheepdog protocol (48), index in the log u64, number of CRCs u32, CRCs u32 each;  body
 *        | client u32
 * answer = header (48);  body
 * ```
 */
export const OPERATION: Kind<Operation, Reply> = {
  code: 18,
  name: 'operation',
  windowBytes: WINDOW_BYTES,
  waitingBytesMax: WAITING_BYTES_MAX,
  limitMs: null,
  costBytes: ({ request }) => REQUEST_COST_BYTES + (request ? (request.body?.length ?? 0) + roomOf(request) : 0),
  targetOf: ({ request }) => request?.target,
  // What failed may be under way all the same, on its way to copies.
  lendsBody: ({ request }, { result }) => request?.opcode === OP.WRITE_VDI && result === RESULT.SUCCESS,
  encodeRequest: ({ client, request, knownIndex }, out) => {
    out.u32(client)
    if (request === null) return
    const { opcode, body, crcs } = request
    const dataLength = roomOf(request)
    out.bytes(encodeRequestHeader({ ...request, protoVer: request.protoVer ?? protoVerOf(opcode), dataLength }))
    out.whole(knownIndex)
    out.u32(crcs?.length ?? 0)
    if (crcs) out.bytes(new Uint8Array(crcs.buffer, crcs.byteOffset, crcs.byteLength))
    if (body) out.body(body)
  },
  decodeRequest: (fields, body) => {
    const client = fields.u32('client')
    if (fields.isAtEnd) return { client, request: null, knownIndex: 0 }
    const request: SheepRequest & { flags: number } = decodeRequestHeader(fields.bytes('header', HEADER_SIZE_BYTES))
    const knownIndex = fields.whole('index')
    const crcs = fields.count('crcs', CRC_BYTES)
    if (crcs > 0) {
      const bytes = fields.bytes('crcs', crcs * CRC_BYTES)
      request.crcs = new Uint32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length))
    }
    if (body.length > 0 || (request.flags & FLAG.WRITE) !== 0) request.body = body
    return { client, request, knownIndex }
  },
  encodeAnswer: (reply, out, { request }) => {
    out.bytes(encodeResponseHeader({ ...reply, opcode: request?.opcode ?? 0 }))
    if (reply.body) out.body(reply.body)
  },
  decodeAnswer: (fields, body, { request }) => {
    const reply: SheepResponse = decodeResponseHeader(fields.bytes('header', HEADER_SIZE_BYTES))
    if (reply.opcode !== (request?.opcode ?? 0)) throw new MalformedMessage('opcode is not that of the request')
    const wanted = request?.target?.length
    if (wanted !== undefined && reply.result === RESULT.SUCCESS && body.length !== wanted)
      throw new MalformedMessage(`body: ${body.length} bytes where ${wanted} are wanted`)
    if (body.length > 0) reply.body = body
    return reply
  },
}

/** What the sender of a request takes as an answer; a request with the flag WRITE does not say. */
function roomOf({ flags = 0, dataLength, target }: SheepRequest): number {
  return (flags & FLAG.WRITE) === 0 ? (dataLength ?? target?.length ?? 0) : 0
}

/**
 * The sheep of another node, for one client of this one: what a request means there is what it means to that node's own clients. One
 * that is lost is answered with NETWORK_ERROR, and one too many with AGAIN. Sessions, locks and the like end with the client or the
 * link, whichever is first.
 */
export class RemoteSheep {
  readonly #links: PeerLinks
  readonly #to: Life
  readonly #client: number
  readonly #knownIndex: () => number
  #isClosed = false

  /** No two clients that live at the same time have the same number. `knownIndex`: of the last entry that has taken effect here. */
  constructor(links: PeerLinks, to: Life, client: number, knownIndex: () => number) {
    this.#links = links
    this.#to = to
    this.#client = client
    this.#knownIndex = knownIndex
  }

  /** As Transport.submit. */
  submit(request: SheepRequest, done: (response: SheepResponse) => void): void {
    const { opcode } = request
    if (this.#isClosed) return done({ opcode, result: RESULT.NETWORK_ERROR })
    // What a session is open on does not depend on what the sender knows.
    const knownIndex = request.session === undefined ? this.#knownIndex() : 0
    this.#links.ask(this.#to, OPERATION, { client: this.#client, request, knownIndex }, (outcome) => {
      if (!(outcome instanceof LinkError)) done(outcome as SheepResponse)
      else done({ opcode, result: outcome.reason === 'busy' ? RESULT.AGAIN : RESULT.NETWORK_ERROR })
    })
  }

  /** The client has gone. What it has under way is done and answered all the same. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#links.ask(this.#to, OPERATION, { client: this.#client, request: null, knownIndex: 0 }, () => {})
  }
}

/** As in SheepServerOptions. */
export interface OperationDoorOptions {
  handle(request: SheepRequest, client: SheepClient, reply: (response: Reply) => void): void
  /** Resolves when the log has taken effect up to this entry; null when it has. */
  whenKnown(index: number): Promise<void> | null
  /** Whether the sender asks for the same again when it does not know whether it was done. */
  isRepeatable(request: SheepRequest): boolean
  /** Resolves when nothing is under way any more of what the client has changed by such requests. */
  clientClosed(client: SheepClient): Promise<void>
}

/** Serves the clients of other nodes, each as if it were connected here. */
export class OperationDoor {
  readonly handler: AnyHandler
  readonly #options: OperationDoorOptions
  readonly #clients = new WeakMap<IncomingPeer, Map<number, RemoteClient>>()
  /** By a gateway and the number of its client, which stays the same when the gateway is put out and comes back: resolves when nothing is under way of what that asked before its link broke. */
  readonly #ending = new Map<string, Promise<void>>()
  /** Below those of the clients that are connected here. */
  #lastId = 0

  constructor(options: OperationDoorOptions) {
    this.#options = options
    this.handler = handler(OPERATION, ({ client, request, knownIndex }, from, reply) => {
      if (request === null) {
        this.#clientsOf(from).get(client)?.close()
        this.#clientsOf(from).delete(client)
        return reply({ result: RESULT.SUCCESS })
      }
      this.#clientOf(from, client).ask(request, knownIndex, reply)
    })
  }

  /** The node that a client is connected to; null for one of this node. */
  lifeOf(client: object | null): Life | null {
    return client instanceof RemoteClient ? client.gateway : null
  }

  #clientsOf(from: IncomingPeer): Map<number, RemoteClient> {
    const known = this.#clients.get(from)
    if (known) return known
    const clients = new Map<number, RemoteClient>()
    this.#clients.set(from, clients)
    from.onEnd(() => {
      for (const client of clients.values()) client.close()
    })
    return clients
  }

  #clientOf(from: IncomingPeer, number: number): RemoteClient {
    const clients = this.#clientsOf(from)
    const known = clients.get(number)
    if (known) return known
    const key = `${from.member.node} ${number}`
    const client = new RemoteClient(this.#options, --this.#lastId, from, this.#ending.get(key) ?? null, (ended) => {
      this.#ending.set(key, ended)
      void ended.then(() => {
        if (this.#ending.get(key) === ended) this.#ending.delete(key)
      })
    })
    clients.set(number, client)
    return client
  }
}

class RemoteClient implements SheepClient {
  readonly id: number
  readonly peer: string
  readonly gateway: Life
  readonly #options: OperationDoorOptions
  readonly #closed: (ended: Promise<void>) => void
  /** What the same client asked over a former link, as long as some of it is under way: what it asks again is done after that. */
  #former: Promise<void> | null
  #isClosed = false
  #isCut = false

  constructor(
    options: OperationDoorOptions,
    id: number,
    { member, address }: IncomingPeer,
    former: Promise<void> | null,
    closed: (ended: Promise<void>) => void,
  ) {
    this.#options = options
    this.#closed = closed
    this.id = id
    this.peer = `${member.node} ${address}`
    this.gateway = member
    this.#former = former
    void former?.then(() => {
      this.#former = null
    })
  }

  /** What it asks for may be of what its gateway has told it: that has to be so here, too, or a snapshot is taken for the working VDI. */
  ask(request: SheepRequest, knownIndex: number, reply: (response: Reply) => void): void {
    const known = this.#options.whenKnown(knownIndex)
    if (known) void known.then(() => this.#run(request, reply))
    else this.#run(request, reply)
  }

  #run(request: SheepRequest, reply: (response: Reply) => void): void {
    if (this.#isClosed) return reply(this.#notDone)
    if (this.#former && this.#options.isRepeatable(request))
      return void this.#former.then(() => this.#run(request, reply))
    let isAnswered = false
    this.#options.handle(request, this, (response) => {
      if (isAnswered) throw new Error(`${opcodeName(request.opcode)} was answered twice`)
      isAnswered = true
      reply(this.#isClosed ? this.#notDone : response)
    })
  }

  /** Its gateway learns of it by the answers to what it has asked, and asks from now on. */
  cut(): void {
    this.#isCut = true
    this.close()
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    const ended = this.#options.clientClosed(this)
    this.#closed(this.#former ? Promise.all([this.#former, ended]).then(() => {}) : ended)
  }

  get #notDone(): Reply {
    return { result: this.#isCut ? RESULT.CUT_OFF : RESULT.NETWORK_ERROR }
  }
}
