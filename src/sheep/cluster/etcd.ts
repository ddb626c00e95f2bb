import type { Clock, Timer } from '../../runtime/clock.ts'
import type { HttpPoster } from '../../runtime/http-poster.ts'
import type { Random } from '../../runtime/random.ts'
import { EtcdClient, type EtcdPlace, EtcdRefusal } from './etcd-client.ts'
import { type Group, type GroupListener, type JoinGroup, MESSAGE_BYTES_MAX, type MemberId } from './group.ts'

export interface EtcdOptions {
  readonly place: EtcdPlace
  readonly http: HttpPoster
  readonly clock: Clock
  readonly random: Random
  /** How long a member that says nothing is believed to live. etcd makes 2 s of less. */
  readonly leaseSeconds?: number
  /** How long etcd is asked to let a member in, while it does not answer. */
  readonly joinMs?: number
  /** How often old revisions are dropped. */
  readonly compactMs?: number
}

/** etcd chooses another leader within 2 s by its defaults, and answers nobody meanwhile: a lease has to outlast that. */
const LEASE_SECONDS = 4
const BEATS_PER_LEASE = 4
const COMPACT_MS = 300_000
const QUIET_MS = 60_000
const JOIN_MS = 6000
const LEAVE_MS = 3000
/** A short rest after a request that failed, so that an etcd that is away is not asked without a pause. */
const RETRY_MS = 100
const UNSENT_BYTES_MAX = 16 * 1024 * 1024
/** Base64 makes a third more of it, and etcd takes requests of 1.5 MiB. */
const BATCH_BYTES_MAX = 512 * 1024
const LENGTH_BYTES = 4
const NOT_FOUND = 5

/**
 * A member by etcd 3.4 or later. Revisions of etcd are the one order of all things:
 *
 * - `<prefix>m/<member>` is there as long as the member is, by a lease that it keeps alive;
 * - `<prefix>x/<member>` is what the member sent last, some messages in one value. The next ones take their place: a watch is told
 *   of each, and nothing is left to be cleaned up. It has the same lease.
 *
 * All have a watch on both, from the revision on at which they joined, and so are told the same in the same order. A change of
 * members makes a configuration, with an id of its revision and of who came or went.
 *
 * A member writes only in a transaction on its own first key, so one whose lease is gone is heard no more; and it gives itself up
 * when its lease may be over by its own clock, counted from when it asked for it, before it looks at anything that came. So there is
 * no minority here: who cannot reach etcd is told nothing, and then that it is lost. etcd counts votes of its own members only,
 * so `quorate` is never told.
 */
export function joinEtcd(options: EtcdOptions): JoinGroup {
  return async (listener) => {
    const client = new EtcdClient(options.place, options)
    const deadlineMs = options.clock.monotonicMs() + (options.joinMs ?? JOIN_MS)
    for (;;) {
      // A request without an answer may have taken effect, so each attempt is another member, and the lease of the last one runs out.
      const member = new EtcdMember(client, options, listener)
      try {
        await member.enter()
        return member.group
      } catch (cause) {
        void member.group.leave()
        const isFinal = cause instanceof EtcdRefusal && cause.isFinal
        if (isFinal || options.clock.monotonicMs() > deadlineMs) {
          const hosts = options.place.endpoints.map(({ host }) => host).join(', ')
          throw new Error(`no member of etcd at ${hosts} lets this node in: ${(cause as Error).message}`, { cause })
        }
        await options.clock.sleep(RETRY_MS)
      }
    }
  }
}

interface Header {
  readonly header: { readonly revision: string }
}

interface KeyValue {
  readonly key: string
  readonly mod_revision: string
  readonly value?: string
}

interface WatchAnswer {
  readonly events?: readonly { readonly type?: 'DELETE'; readonly kv: KeyValue }[]
  readonly canceled?: boolean
  readonly compact_revision?: string
  readonly cancel_reason?: string
}

interface TxnAnswer extends Header {
  readonly succeeded?: boolean
  readonly responses?: readonly { readonly response_range?: { readonly kvs?: readonly KeyValue[] } }[]
}

class EtcdMember {
  readonly #client: EtcdClient
  readonly #clock: Clock
  readonly #listener: GroupListener
  readonly #self: MemberId
  readonly #prefix: string
  readonly #memberKey: string
  readonly #messagesKey: string
  readonly #leaseSeconds: number
  readonly #compactMs: number
  readonly #members = new Set<MemberId>()
  #lease = ''
  #joinRevision = ''
  /** By this time etcd may have ended the lease. */
  #leaseEndMs = 0
  #timer: Timer | null = null
  #isOver = false
  readonly #over = new AbortController()

  /** All up to this revision was told, and so many events of it; a revision may come in parts. */
  #toldRevision = 0
  #toldEvents = 0
  /** What a beat saw etcd have, for the next one to see whether the watch has told of it. */
  #seenRevision = 0
  #toldAtBeat = 0
  #toldMs: number
  #watch = new AbortController()

  #unsent: Buffer[] = []
  #unsentBytes = 0
  #isSending = false
  #batchNumber = 0
  #messagesRevision = '0'

  #compactedMs: number
  #compactRevision = 0

  constructor(client: EtcdClient, options: EtcdOptions, listener: GroupListener) {
    this.#client = client
    this.#clock = options.clock
    this.#listener = listener
    this.#self = options.random.uuid()
    this.#prefix = options.place.prefix
    this.#memberKey = base64(`${this.#prefix}m/${this.#self}`)
    this.#messagesKey = base64(`${this.#prefix}x/${this.#self}`)
    this.#leaseSeconds = options.leaseSeconds ?? LEASE_SECONDS
    this.#compactMs = options.compactMs ?? COMPACT_MS
    this.#compactedMs = this.#clock.monotonicMs()
    this.#toldMs = this.#compactedMs
  }

  get group(): Group {
    return {
      self: this.#self,
      send: (message) => this.#send(Buffer.from(message)),
      leave: () => this.#leave(),
    }
  }

  get #beatMs(): number {
    return (this.#leaseSeconds * 1000) / BEATS_PER_LEASE
  }

  #call<T>(path: string, body: object, timeoutMs = this.#beatMs): Promise<T> {
    return this.#client.call<T>(path, body, timeoutMs)
  }

  /** Becomes a member. Nothing is told before it has resolved. */
  async enter(): Promise<void> {
    const askedMs = this.#clock.monotonicMs()
    const { ID, TTL } = await this.#call<{ ID: string; TTL: string }>('/v3/lease/grant', { TTL: this.#leaseSeconds })
    this.#lease = ID
    this.#leaseEndMs = askedMs + Number(TTL) * 1000
    const all = { key: base64(`${this.#prefix}m/`), range_end: base64(`${this.#prefix}m0`), keys_only: true }
    const entered = await this.#call<TxnAnswer>('/v3/kv/txn', {
      success: [{ request_put: { key: this.#memberKey, lease: ID } }, { request_range: all }],
    })
    this.#joinRevision = entered.header.revision
    this.#toldRevision = Number(this.#joinRevision)
    this.#compactRevision = this.#toldRevision
    for (const { key } of entered.responses!.at(-1)!.response_range!.kvs!) this.#members.add(this.#nameIn(key))
    this.#clock.afterInput(() => {
      this.#configure(this.#joinRevision, this.#self)
      void this.#watchOn()
      void this.#beatOn()
      this.#watchLease()
    })
  }

  #nameIn(key: string): string {
    return Buffer.from(key, 'base64')
      .toString()
      .slice(this.#prefix.length + 'm/'.length)
  }

  #configure(revision: string, who: MemberId): void {
    if (this.#isOver) return
    this.#listener.configured({ id: `${revision}:${who}`, members: [...this.#members].sort() })
  }

  // The lease.

  /** Looks at the clock, and gives up when the lease may be over. */
  #isAlive(): boolean {
    if (!this.#isOver && this.#clock.monotonicMs() >= this.#leaseEndMs) {
      this.#lose(new Error(`the lease in etcd is over: for ${this.#leaseSeconds} s it could not be renewed`))
    }
    return !this.#isOver
  }

  #watchLease(): void {
    if (!this.#isAlive()) return
    this.#timer = this.#clock.timer(this.#leaseEndMs - this.#clock.monotonicMs(), () => this.#watchLease())
  }

  async #beatOn(): Promise<void> {
    while (this.#isAlive()) {
      const beganMs = this.#clock.monotonicMs()
      const hasFailed = await this.#beat().then(
        () => false,
        () => true, // the next beat asks another endpoint, and the lease tells how long that may go on
      )
      const tookMs = this.#clock.monotonicMs() - beganMs
      await this.#clock.sleep(hasFailed ? RETRY_MS : Math.max(0, this.#beatMs - tookMs))
    }
  }

  async #beat(): Promise<void> {
    const askedMs = this.#clock.monotonicMs()
    const { result } = await this.#call<{ result: { TTL?: string } }>('/v3/lease/keepalive', { ID: this.#lease })
    if (this.#isOver) return
    if (result.TTL === undefined) return this.#lose(new Error('etcd has ended the lease of this member'))
    this.#leaseEndMs = askedMs + Number(result.TTL) * 1000
    // A watch that begins anew begins at the last revision that was told: let that not grow so old that others drop it.
    if (this.#clock.monotonicMs() - this.#toldMs > QUIET_MS) this.#beginToSend()
    await this.#checkWatch()
    await this.#compact()
  }

  /** A member of etcd that is cut off from the others keeps a watch open and says nothing. */
  async #checkWatch(): Promise<void> {
    const isBehind = this.#toldRevision < this.#seenRevision
    if (isBehind && this.#toldRevision === this.#toldAtBeat) this.#watch.abort()
    this.#toldAtBeat = this.#toldRevision
    const { kvs = [] } = await this.#call<{ kvs?: readonly KeyValue[] }>('/v3/kv/range', {
      ...this.#allKeys(),
      sort_target: 'MOD',
      sort_order: 'DESCEND',
      limit: 1,
      keys_only: true,
    })
    this.#seenRevision = Number(kvs[0]?.mod_revision ?? 0)
  }

  /**
   * etcd keeps every revision until it is told not to, and a store that is written to makes many. The first of the members drops
   * what all have had minutes to be told, as Kubernetes does with its own etcd.
   */
  async #compact(): Promise<void> {
    const nowMs = this.#clock.monotonicMs()
    if (nowMs - this.#compactedMs < this.#compactMs) return
    const revision = this.#compactRevision
    this.#compactedMs = nowMs
    this.#compactRevision = this.#toldRevision
    if ([...this.#members].sort()[0] !== this.#self) return
    await this.#call('/v3/kv/compaction', { revision }).catch((error: unknown) => {
      if (!(error instanceof EtcdRefusal)) throw error // another one did it, or this user may not
    })
  }

  #lose(reason: Error): void {
    if (this.#isOver) return
    this.#end()
    this.#listener.lost(reason)
  }

  #end(): void {
    this.#isOver = true
    this.#timer?.cancel()
    this.#over.abort()
    this.#watch.abort()
    this.#unsent = []
  }

  // What is told.

  #allKeys(): { key: string; range_end: string } {
    return { key: base64(this.#prefix), range_end: base64(`${this.#prefix.slice(0, -1)}0`) } // '0' comes after '/'
  }

  async #watchOn(): Promise<void> {
    while (this.#isAlive()) {
      this.#watch = new AbortController()
      try {
        await this.#watchOnce(this.#watch.signal)
      } catch (error) {
        if (error instanceof HistoryGone) return this.#lose(error)
      }
      if (!this.#isOver) await this.#clock.sleep(RETRY_MS)
    }
  }

  async #watchOnce(signal: AbortSignal): Promise<void> {
    const start = { ...this.#allKeys(), start_revision: String(this.#toldRevision), fragment: true }
    let skip = this.#toldEvents
    // The revision at which it joined is known from the answer to that.
    if (this.#toldRevision === Number(this.#joinRevision)) skip = Number.POSITIVE_INFINITY
    const stream = this.#client.stream<WatchAnswer>('/v3/watch', { create_request: start }, signal)
    for await (const answer of stream) {
      if (answer.compact_revision !== undefined) {
        throw new HistoryGone('etcd has dropped what this member was not told yet')
      }
      if (answer.canceled) throw new Error(`etcd has ended the watch: ${answer.cancel_reason}`)
      for (const { type, kv } of answer.events ?? []) {
        const revision = Number(kv.mod_revision)
        if (revision === this.#toldRevision && skip > 0) {
          skip--
          continue
        }
        if (!this.#isAlive()) return
        this.#toldEvents = revision === this.#toldRevision ? this.#toldEvents + 1 : 1
        this.#toldRevision = revision
        this.#toldMs = this.#clock.monotonicMs()
        this.#tell(kv, type === 'DELETE')
      }
    }
  }

  #tell({ key, mod_revision: revision, value = '' }: KeyValue, isDeleted: boolean): void {
    const member = this.#nameIn(key)
    const kind = Buffer.from(key, 'base64').toString().slice(this.#prefix.length, -member.length)
    if (kind === 'x/') {
      if (!isDeleted) this.#tellBatch(member, Buffer.from(value, 'base64'))
    } else if (kind === 'm/') {
      if (isDeleted && member === this.#self) this.#lose(new Error('etcd has ended the lease of this member'))
      else if (isDeleted ? this.#members.delete(member) : !this.#members.has(member)) {
        if (!isDeleted) this.#members.add(member)
        this.#configure(revision, member)
      }
    }
  }

  #tellBatch(sender: MemberId, batch: Buffer): void {
    if (!this.#members.has(sender)) return
    for (let at = LENGTH_BYTES; at < batch.length && !this.#isOver; ) {
      const length = batch.readUInt32LE(at)
      at += LENGTH_BYTES
      this.#listener.delivered(sender, batch.subarray(at, at + length))
      at += length
    }
  }

  // What is sent.

  #send(message: Buffer): void {
    if (this.#isOver || message.length > MESSAGE_BYTES_MAX) return
    if (this.#unsentBytes + message.length > UNSENT_BYTES_MAX) return
    this.#unsent.push(message)
    this.#unsentBytes += message.length
    this.#beginToSend()
  }

  #beginToSend(): void {
    if (!this.#isSending) this.#clock.afterInput(() => void this.#sendOn())
    this.#isSending = true
  }

  async #sendOn(): Promise<void> {
    do {
      const batch = this.#takeBatch()
      while (this.#isAlive() && !(await this.#sendBatch(batch))) await this.#clock.sleep(RETRY_MS)
    } while (this.#unsent.length > 0 && this.#isAlive())
    this.#isSending = false
  }

  /** A number, by which it is known again, and messages, each after its length. */
  #takeBatch(): Buffer {
    const number = Buffer.alloc(LENGTH_BYTES)
    number.writeUInt32LE(++this.#batchNumber)
    const parts: Buffer[] = [number]
    let bytes = 0
    let count = 0
    for (const message of this.#unsent) {
      if (count > 0 && bytes + LENGTH_BYTES + message.length > BATCH_BYTES_MAX) break
      const length = Buffer.alloc(LENGTH_BYTES)
      length.writeUInt32LE(message.length)
      parts.push(length, message)
      bytes += LENGTH_BYTES + message.length
      this.#unsentBytes -= message.length
      count++
    }
    this.#unsent = this.#unsent.slice(count)
    return Buffer.concat(parts)
  }

  /** False when it has to be tried again. A second attempt sees what the first one did. */
  async #sendBatch(batch: Buffer): Promise<boolean> {
    const isThere = { key: this.#memberKey, target: 'CREATE', create_revision: this.#joinRevision }
    const isNext = { key: this.#messagesKey, target: 'MOD', mod_revision: this.#messagesRevision }
    try {
      const { succeeded, header, responses } = await this.#call<TxnAnswer>('/v3/kv/txn', {
        compare: [isThere, isNext],
        success: [{ request_put: { key: this.#messagesKey, value: batch.toString('base64'), lease: this.#lease } }],
        failure: [{ request_range: { key: this.#memberKey } }, { request_range: { key: this.#messagesKey } }],
      })
      if (succeeded) {
        this.#messagesRevision = header.revision
        return true
      }
      const [member, messages] = responses!.map(({ response_range }) => response_range?.kvs?.[0])
      if (member === undefined || messages === undefined) {
        this.#lose(new Error('this member is not in etcd any more'))
        return false
      }
      const written = Buffer.from(messages.value!, 'base64')
      this.#messagesRevision = messages.mod_revision
      return written.readUInt32LE(0) === batch.readUInt32LE(0)
    } catch (error) {
      if (error instanceof EtcdRefusal && error.code === NOT_FOUND) this.#lose(error)
      return false
    }
  }

  async #leave(): Promise<void> {
    if (this.#isOver) return
    this.#end()
    if (this.#lease === '') return
    // Without an answer the lease runs out by itself.
    await this.#call('/v3/lease/revoke', { ID: this.#lease }, LEAVE_MS).catch(() => {})
  }
}

/** The watch cannot go on from where it was. */
class HistoryGone extends Error {}

function base64(text: string): string {
  return Buffer.from(text).toString('base64')
}
