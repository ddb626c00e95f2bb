import type { Configuration, Group, GroupListener, JoinGroup, MemberId } from '../cluster/group.ts'

/**
 * A group as one cluster uses it: each message says which cluster it is of, and those of another one, or of another
 * version, are told to nobody. Two things are told in it: the ordered log, and what nodes announce of themselves.
 *
 * ```
 * 1 byte format, 1 byte kind, 1 byte length of the cluster's id, the id, the message
 * ```
 *
 * A node that belongs to no cluster yet announces itself with no id, and listens whose group it is. Then it joins again, for the log: what
 * has been told in a configuration before it could listen to that, it would miss.
 */
export interface ClusterGroupListener {
  configured(configuration: Configuration): void
  /** `cluster` is null when the sender belongs to none yet. */
  announced(sender: MemberId, message: Buffer, cluster: string | null): void
  stranger(sender: MemberId, reason: string): void
}

const FORMAT = 1
const KIND = { log: 1, announcement: 2 } as const
const HEADER_BYTES = 3

export class ClusterGroup {
  readonly #listener: ClusterGroupListener
  #cluster: string | null
  #group: Group | null = null
  #adopted: (() => void) | null = null

  constructor(cluster: string | null, listener: ClusterGroupListener) {
    this.#cluster = cluster
    this.#listener = listener
  }

  get cluster(): string | null {
    return this.#cluster
  }

  /** The way for the log to join. */
  joining(join: JoinGroup): JoinGroup {
    return async (log) => {
      if (this.#cluster === null) await this.#learn(join)
      const { self, leave } = await this.#join(join, log)
      return { self, send: (message) => this.#send(KIND.log, message), leave }
    }
  }

  announce(message: Buffer): void {
    this.#send(KIND.announcement, message)
  }

  /** The node belongs to this cluster from now on. */
  adopt(cluster: string): void {
    this.#cluster = cluster
    this.#adopted?.()
  }

  async #learn(join: JoinGroup): Promise<void> {
    let lost: (reason: Error) => void = () => {}
    const adopted = new Promise<void>((resolve, reject) => {
      this.#adopted = resolve
      lost = reject
    })
    const group = await this.#join(join, { configured: () => {}, delivered: () => {}, quorate: () => {}, lost })
    await adopted
    this.#group = null
    await group.leave()
  }

  async #join(join: JoinGroup, log: GroupListener): Promise<Group> {
    const group = await join({
      configured: (configuration) => {
        this.#listener.configured(configuration)
        log.configured(configuration)
      },
      delivered: (sender, bytes) => this.#delivered(log, sender, bytes),
      quorate: (isQuorate) => log.quorate(isQuorate),
      lost: (reason) => log.lost(reason),
    })
    this.#group = group
    return group
  }

  #delivered(log: GroupListener, sender: MemberId, bytes: Buffer): void {
    const frame = decodeFrame(bytes)
    if (frame === null) return this.#listener.stranger(sender, 'it is of another version of Collie')
    const { kind, cluster, message } = frame
    if (cluster !== null && this.#cluster !== null && cluster !== this.#cluster)
      return this.#listener.stranger(sender, `it is of cluster ${cluster}, and this node is of ${this.#cluster}`)
    if (kind === KIND.announcement) return this.#listener.announced(sender, message, cluster)
    if (cluster !== null && cluster === this.#cluster) log.delivered(sender, message)
  }

  #send(kind: number, message: Buffer): void {
    const id = Buffer.from(this.#cluster ?? '')
    this.#group?.send(Buffer.concat([Buffer.from([FORMAT, kind, id.length]), id, message]))
  }
}

function decodeFrame(bytes: Buffer): { kind: number; cluster: string | null; message: Buffer } | null {
  const start = HEADER_BYTES + (bytes[2] ?? 0)
  if (bytes[0] !== FORMAT || bytes.length < start) return null
  const cluster = bytes.toString('utf8', HEADER_BYTES, start)
  return { kind: bytes[1]!, cluster: cluster === '' ? null : cluster, message: bytes.subarray(start) }
}
