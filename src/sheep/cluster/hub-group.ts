import type { Clock } from '../../runtime/clock.ts'
import type { Connection, Listener, Network } from '../../runtime/network.ts'
import type { Random } from '../../runtime/random.ts'
import { type GroupListener, type JoinGroup, MESSAGE_BYTES_MAX, type MemberId } from './group.ts'

/*
 * The group of processes on one host, for trying out: one of them, the hub, is connected with all others, and what it is told first is
 * first for all. When it ends, so does the group; a cluster that is to outlive a host needs another engine.
 *
 *   frame           = length u32, type u8, what the type has
 *   member to hub   = 0: a message
 *   hub to member   = 0: length of the sender's name u8, sender, message
 *                   | 1: the member's own name
 *                   | 2: a configuration, as JSON
 */
const MESSAGE = 0
const WELCOME = 1
const CONFIGURATION = 2
const HEADER_BYTES = 5
/** For a hub that says nothing any more. */
const LEAVE_MS = 5000
/** Who takes nothing any more is put out when so much waits for him; what a member sends beyond it is lost. */
const WAITING_BYTES_MAX = 16 * 1024 * 1024

/** Orders what the members on one address say. Ends with its process. */
export class Hub {
  readonly #random: Random
  readonly #members = new Map<MemberId, Connection>()

  constructor(random: Random) {
    this.#random = random
  }

  listen(network: Network, address: string): Promise<Listener> {
    return network.listen(address, (connection) => this.#welcome(connection))
  }

  /** All members are told that they are lost. */
  close(): void {
    for (const connection of this.#members.values()) connection.destroy()
  }

  #welcome(connection: Connection): void {
    const member = this.#random.uuid()
    const reader = new FrameReader((type, body) => {
      if (type === MESSAGE) this.#order(member, body)
    })
    connection.onClose(() => {
      if (this.#members.delete(member)) this.#configure()
    })
    this.#members.set(member, connection)
    this.#tell(connection, frame(WELCOME, Buffer.from(member)))
    this.#configure()
    connection.onData((chunk) => {
      if (!reader.read(chunk)) connection.destroy()
    })
  }

  #configure(): void {
    const configuration = { id: this.#random.uuid(), members: [...this.#members.keys()].sort() }
    this.#tellAll(frame(CONFIGURATION, Buffer.from(JSON.stringify(configuration))))
  }

  #order(sender: MemberId, message: Buffer): void {
    if (!this.#members.has(sender)) return
    const name = Buffer.from(sender)
    this.#tellAll(frame(MESSAGE, Buffer.of(name.length), name, message))
  }

  #tellAll(buffers: readonly Buffer[]): void {
    for (const connection of this.#members.values()) this.#tell(connection, buffers)
  }

  #tell(connection: Connection, buffers: readonly Buffer[]): void {
    connection.write(buffers)
    if (connection.pendingBytes > WAITING_BYTES_MAX) connection.destroy() // its end is told when it comes
  }
}

export interface HubOptions {
  network: Network
  clock: Clock
  /** Where the hub listens. */
  address: string
}

/** A member of the group of the hub at an address. */
export function joinHub({ network, clock, address }: HubOptions): JoinGroup {
  return async (listener) => {
    const connection = await network.connect(address).catch((cause: Error) => {
      throw new Error(`there is no hub at ${address}`, { cause })
    })
    let hasLeft = false
    /** Never from within `join` or `send`, and in order. */
    const later = (tell: (listener: GroupListener) => void) =>
      clock.afterInput(() => {
        if (!hasLeft) tell(listener)
      })
    const closed = new Promise<void>((resolve) => connection.onClose(resolve))
    let hasJoined = false
    void closed.then(() =>
      later((to) => {
        if (hasJoined) to.lost(new Error(`the hub at ${address} has ended, or has put this member out`))
      }),
    )
    const self = await new Promise<MemberId>((resolve, reject) => {
      void closed.then(() => {
        reject(new Error(`the hub at ${address} has ended`))
      })
      const reader = new FrameReader((type, body) => {
        if (type === WELCOME) resolve(body.toString())
        if (type === CONFIGURATION) later((to) => to.configured(JSON.parse(body.toString())))
        if (type === MESSAGE) {
          const end = 1 + body.readUInt8()
          later((to) => to.delivered(body.toString('utf8', 1, end), body.subarray(end)))
        }
      })
      connection.onData((chunk) => {
        if (!reader.read(chunk)) connection.destroy()
      })
    })
    hasJoined = true
    return {
      self,
      send: (message) => {
        const isTooMuch = message.length > MESSAGE_BYTES_MAX || connection.pendingBytes > WAITING_BYTES_MAX
        if (!hasLeft && !isTooMuch) connection.write(frame(MESSAGE, Buffer.from(message)))
      },
      leave: async () => {
        hasLeft = true
        connection.end()
        const timer = clock.timer(LEAVE_MS, () => connection.destroy())
        await closed
        timer.cancel()
      },
    }
  }
}

function frame(type: number, ...parts: Buffer[]): Buffer[] {
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt32LE(parts.reduce((sum, { length }) => sum + length, 0))
  header.writeUInt8(type, 4)
  return [header, ...parts]
}

const BODY_BYTES_MAX = 2 * MESSAGE_BYTES_MAX

class FrameReader {
  readonly #receive: (type: number, body: Buffer) => void
  #bytes = Buffer.alloc(0)

  constructor(receive: (type: number, body: Buffer) => void) {
    this.#receive = receive
  }

  /** False when it is no frame that anybody here sends. */
  read(chunk: Buffer): boolean {
    this.#bytes = Buffer.concat([this.#bytes, chunk])
    while (this.#bytes.length >= HEADER_BYTES) {
      const length = this.#bytes.readUInt32LE()
      if (length > BODY_BYTES_MAX) return false
      const end = HEADER_BYTES + length
      if (this.#bytes.length < end) return true
      this.#receive(this.#bytes.readUInt8(4), this.#bytes.subarray(HEADER_BYTES, end))
      this.#bytes = this.#bytes.subarray(end)
    }
    return true
  }
}
