import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto'
import type { Clock } from '../../runtime/clock.ts'
import type { Connection, Listener, Network } from '../../runtime/network.ts'
import type { Random } from '../../runtime/random.ts'
import { RecordReader, RecordWriter, SealBroken } from './sealed-records.ts'

/**
 * Connections between nodes of one cluster, on the port that Sheepdog's clients use as well. Who does not know the cluster's
 * key gets no byte through, in either direction; what is sent on one connection means nothing on another.
 *
 * ```
 * client → server   "COLLIEp1", 32 random bytes
 * server → client   "COLLIEp1", 32 random bytes, HMAC-SHA-256(key, "server" and both greetings)
 * client → server   HMAC-SHA-256(key, "client" and both greetings)
 * ```
 *
 * then records (sealed-records.ts), with a key for each direction that HKDF derives from the cluster's key and both greetings. A
 * request of Sheepdog's protocol never begins with a "C": its first byte is a version of that protocol.
 */
export interface PeerNetworkOptions {
  network: Network
  clock: Clock
  random: Random
  /** 32 bytes that the nodes of the cluster share, and nobody else has. */
  key: Buffer
  /** A peer was refused: it has another key, or none. */
  onRefused?(peer: string, reason: string): void
}

const MAGIC = Buffer.from('COLLIEp1')
const NONCE_BYTES = 32
const GREETING_BYTES = MAGIC.length + NONCE_BYTES
const PROOF_BYTES = 32
const HANDSHAKE_MS = 5000
/** What is kept of somebody who has proved nothing yet: more than one read of a socket brings. */
const UNPROVED_BYTES_MAX = 1 << 20
/** Connections that have not shown what they are. One more takes the place of the oldest. */
const STRANGERS_MAX = 256

export class PeerNetwork {
  readonly #options: PeerNetworkOptions

  constructor(options: PeerNetworkOptions) {
    this.#options = options
  }

  /** As `Network.connect`, to a node that has the key; but a chunk is gone when its receiver returns. */
  async connect(address: string): Promise<Connection> {
    const connection = await this.#options.network.connect(address)
    return this.#handshake(connection, async (input) => {
      const own = this.#greeting()
      connection.write([own])
      const theirs = await input.take(GREETING_BYTES)
      const proof = await input.take(PROOF_BYTES)
      const keys = new SessionKeys(this.#options.key, own, theirs)
      if (!startsWith(theirs, MAGIC) || !timingSafeEqual(proof, keys.serverProof))
        throw new SealBroken(`${address} has not the key of this cluster`)
      connection.write([keys.clientProof])
      return sealed(connection, input, keys.toServer, keys.toClient)
    })
  }

  /** Listens once for both: connections of nodes, proved, and as those of `connect`; and all others as they are. */
  listen(
    address: string,
    accept: { node(connection: Connection): void; other(connection: Connection): void },
  ): Promise<Listener> {
    const strangers = new Set<Connection>()
    return this.#options.network.listen(address, (connection) => {
      const [oldest] = strangers
      if (oldest !== undefined && strangers.size >= STRANGERS_MAX) {
        strangers.delete(oldest)
        oldest.destroy()
      }
      strangers.add(connection)
      const input = new Input(connection)
      void input.first().then(async (first) => {
        if (first !== MAGIC[0]) {
          strangers.delete(connection)
          if (first !== null) accept.other(input.unread())
          return
        }
        await this.#handshake(connection, () => this.#welcome(connection, input), input).then(
          accept.node,
          (error: Error) => this.#options.onRefused?.(connection.peer, error.message),
        )
        strangers.delete(connection)
      })
    })
  }

  async #welcome(connection: Connection, input: Input): Promise<Connection> {
    const theirs = await input.take(GREETING_BYTES)
    if (!startsWith(theirs, MAGIC)) throw new SealBroken('it speaks another protocol')
    const own = this.#greeting()
    const keys = new SessionKeys(this.#options.key, theirs, own)
    connection.write([own, keys.serverProof])
    const proof = await input.take(PROOF_BYTES)
    if (!timingSafeEqual(proof, keys.clientProof)) throw new SealBroken('it has not the key of this cluster')
    return sealed(connection, input, keys.toClient, keys.toServer)
  }

  /** Runs one, in the time that it may take; a connection that does not come through is closed. */
  async #handshake(
    connection: Connection,
    run: (input: Input) => Promise<Connection>,
    input = new Input(connection),
  ): Promise<Connection> {
    const timer = this.#options.clock.timer(HANDSHAKE_MS, () => connection.destroy())
    try {
      return await run(input)
    } catch (error) {
      connection.destroy()
      throw error
    } finally {
      timer.cancel()
    }
  }

  #greeting(): Buffer {
    return Buffer.concat([MAGIC, this.#options.random.bytes(NONCE_BYTES)])
  }
}

class SessionKeys {
  readonly serverProof: Buffer
  readonly clientProof: Buffer
  readonly toServer: Buffer
  readonly toClient: Buffer

  constructor(key: Buffer, clientGreeting: Buffer, serverGreeting: Buffer) {
    const both = Buffer.concat([clientGreeting, serverGreeting])
    const proof = (of: string) => createHmac('sha256', key).update(of).update(both).digest()
    const derive = (to: string) => Buffer.from(hkdfSync('sha256', key, both, `collie peer to ${to}`, 32))
    this.serverProof = proof('server')
    this.clientProof = proof('client')
    this.toServer = derive('server')
    this.toClient = derive('client')
  }
}

/** What a connection has received and nobody has taken yet; from `handOn` on, all of it goes there. */
class Input {
  readonly #connection: Connection
  #received = Buffer.alloc(0)
  #isOver = false
  #wanted: { length: number; resolve: (bytes: Buffer | null) => void } | null = null
  #handOn: ((chunk: Buffer) => void) | null = null
  #room: () => Buffer | null = () => null
  #onClose: (() => void) | null = null

  constructor(connection: Connection) {
    this.#connection = connection
    connection.onData(
      (chunk) => {
        if (this.#handOn) return this.#handOn(chunk)
        this.#received = Buffer.concat([this.#received, chunk])
        if (this.#received.length > UNPROVED_BYTES_MAX) return connection.destroy()
        this.#satisfy()
      },
      () => this.#room(),
    )
    connection.onClose(() => {
      this.#isOver = true
      this.#wanted?.resolve(null)
      this.#wanted = null
      this.#onClose?.()
    })
  }

  /** The first byte, which stays; null when the connection ends before. */
  async first(): Promise<number | null> {
    const bytes = await this.#wait(1)
    return bytes === null ? null : this.#received[0]!
  }

  /** Throws when the connection ends before so many bytes have come. */
  async take(length: number): Promise<Buffer> {
    const bytes = await this.#wait(length)
    if (bytes === null) throw new SealBroken('the connection ended before it was proved')
    this.#received = this.#received.subarray(length)
    return bytes
  }

  /** Everything from here on, what has come already first; `into` as in Connection. */
  handOn(receive: (chunk: Buffer) => void, into?: () => Buffer | null): void {
    const before = this.#received
    this.#received = Buffer.alloc(0)
    this.#handOn = receive
    if (before.length > 0) receive(before)
    this.#room = into ?? this.#room
  }

  onClose(closed: () => void): void {
    this.#onClose = closed
    if (this.#isOver) queueMicrotask(closed)
  }

  /** The connection as if nothing had been looked at. */
  unread(): Connection {
    return delegate(this.#connection, {
      onData: (receive, into) => this.handOn(receive, into),
      onClose: (closed) => this.onClose(closed),
    })
  }

  #wait(length: number): Promise<Buffer | null> {
    return new Promise((resolve) => {
      this.#wanted = { length, resolve }
      this.#satisfy()
    })
  }

  #satisfy(): void {
    const wanted = this.#wanted
    if (!wanted) return
    const isThere = this.#received.length >= wanted.length
    if (!isThere && !this.#isOver) return
    this.#wanted = null
    wanted.resolve(isThere ? this.#received.subarray(0, wanted.length) : null)
  }
}

/** A connection whose bytes go through records. What it hands on is gone when the receiver returns. */
function sealed(connection: Connection, input: Input, writeKey: Buffer, readKey: Buffer): Connection {
  const writer = new RecordWriter(writeKey)
  const reader = new RecordReader(readKey)
  let isBroken = false
  return delegate(connection, {
    write: (buffers) => connection.write(writer.seal(buffers)),
    onClose: (closed) => input.onClose(closed),
    onData: (receive) =>
      input.handOn(
        (chunk) => {
          try {
            reader.read(chunk, receive)
          } catch (error) {
            if (!(error instanceof SealBroken)) throw error
            isBroken = true
            connection.destroy()
          }
        },
        () => (isBroken ? null : reader.room()),
      ),
  })
}

function delegate(connection: Connection, own: Partial<Connection>): Connection {
  return {
    peer: connection.peer,
    onData: (receive, into) => connection.onData(receive, into),
    onClose: (closed) => connection.onClose(closed),
    write: (buffers) => connection.write(buffers),
    get pendingBytes() {
      return connection.pendingBytes
    },
    onDrain: (drained) => connection.onDrain(drained),
    pause: () => connection.pause(),
    resume: () => connection.resume(),
    end: () => connection.end(),
    destroy: () => connection.destroy(),
    ...own,
  }
}

const startsWith = (bytes: Buffer, prefix: Buffer) => bytes.subarray(0, prefix.length).equals(prefix)
