import { StoreError, toStoreError } from '../../errors.ts'
import type { Clock, Timer } from '../../runtime/clock.ts'
import type { Log } from '../../runtime/log.ts'
import type { Group, JoinGroup, MemberId } from '../cluster/group.ts'
import type { Ballot } from './ballot.ts'
import type { Electorate, Item, NodeId } from './item.ts'
import { type Effect, type Event, OrderMachine } from './machine.ts'
import { decodeMessage, encodeMessage, type Message } from './messages.ts'
import type { OrderFile } from './order-file.ts'

/** What entries mean. The same entries give the same state on every node. */
export interface OrderedState {
  /** The last entry whose effect is in the state, and on the disk as well. */
  readonly durableIndex: number
  /** Who votes as of that entry. */
  readonly electorate: Electorate | null
  /** Puts an entry into effect, now. Throws the StoreError with which it is refused: then it has no effect, on any node. */
  apply(item: Item): void
  /** Puts a state that another node sent in the place of this one; durable when it resolves. */
  install(state: Buffer): Promise<{ index: number; electorate: Electorate }>
}

/** Asks another member, on a way that is not the group's. Rejects when it does not answer. */
export type FetchItems = (
  from: MemberId,
  ballot: Ballot,
  afterIndex: number,
) => Promise<readonly Item[] | { state: Buffer }>

export interface OrderedLogOptions {
  node: NodeId
  /** New with every start. */
  life: string
  file: OrderFile
  state: OrderedState
  clock: Clock
  log: Log
  fetch: FetchItems
  /**
   * Milliseconds to wait before it is said that entries which are not applied yet, as they are in the log now, are on the disk.
   * Asked again meanwhile: it may have become less.
   */
  holdMs?(unapplied: readonly Item[]): number
  /** Whether voters may follow others; others are declined. Without it, any may. */
  mayFollow?(voters: readonly NodeId[], before: readonly NodeId[]): boolean
  /** How many applied entries are kept for nodes that were away for a while. */
  keptItems?: number
  /** The log cannot go on in this process: its disk has failed, or the group is lost. Told once. */
  onFailed(error: Error): void
}

interface Waiting {
  resolve(): void
  reject(error: Error): void
}

const TICK_MS = 100
const PENDING_MAX = 1024

/**
 * The cluster's ordered log as one node sees it: runs the machine on a clock, a disk and a group.
 *
 * 1. `propose` resolves when the entry has taken effect here, and is on the disks of a majority. It rejects with what the state
 *    refused it with, or with Unsure when nobody can tell whether it did.
 * 2. Two proposals of one node take effect in the order in which they were made.
 * 3. Without a majority nothing takes effect, and proposals wait.
 */
export class OrderedLog {
  readonly #options: OrderedLogOptions
  readonly #machine: OrderMachine
  readonly #waiting = new Map<number, Waiting>()
  #group: Group | null = null
  #sequence = 0
  #timer: Timer | null = null
  #isOver = false
  #events: Event[] = []
  #isStepping = false
  #unwritten: (Effect & { type: 'persist' })[] = []
  #isWriting = false
  readonly #held: Message[] = []

  private constructor(options: OrderedLogOptions) {
    this.#options = options
    const { node, life, file, state, mayFollow } = options
    const { durableIndex: appliedIndex, electorate } = state
    const rule = mayFollow ? { mayFollow } : {}
    this.#machine = new OrderMachine({ node, life, durable: file.durable, appliedIndex, electorate, ...rule })
  }

  /** Joins the group. Rejects when that cannot be done. */
  static async open(options: OrderedLogOptions, join: JoinGroup): Promise<OrderedLog> {
    await startFromState(options)
    const log = new OrderedLog(options)
    log.#group = await join({
      configured: (configuration) => log.#happened({ type: 'configured', configuration, self: log.#group!.self }),
      delivered: (sender, bytes) => log.#delivered(sender, bytes),
      quorate: () => {},
      lost: (reason) => log.#fail(reason),
    })
    log.#tick()
    return log
  }

  /** Whether proposals take effect. */
  get isActive(): boolean {
    return this.#machine.isActive && !this.#isOver
  }

  /** Entries that the log has, and that have not taken effect; some may never do so. */
  get unapplied(): readonly Item[] {
    return this.#machine.unapplied
  }

  get appliedIndex(): number {
    return this.#machine.appliedIndex
  }

  /** With `change`, also the voters change. Rejects with OldEpoch when they are not those any more that entry `afterIndex` made, or when these may not follow. */
  propose(payload: string, change?: { voters: readonly NodeId[]; afterIndex: number }): Promise<void> {
    if (this.#isOver) return Promise.reject(new StoreError('NoQuorum', 'the ordered log has come to its end'))
    if (this.#machine.pendingCount >= PENDING_MAX)
      return Promise.reject(new StoreError('NoQuorum', 'too many entries wait for a majority'))
    const sequence = ++this.#sequence
    return new Promise((resolve, reject) => {
      this.#waiting.set(sequence, { resolve, reject })
      this.#happened({ type: 'proposed', proposal: { sequence, payload, ...change } })
    })
  }

  /** A member does not seem to go on, though the group has it still: should it lead, another one shall. */
  doubt(member: MemberId): void {
    this.#happened({ type: 'doubted', member })
  }

  /** Answers a member that fetches: see OrderMachine. */
  itemsAfter(ballot: Ballot, index: number): readonly Item[] | 'cut' | null {
    const items = this.#machine.itemsAfter(ballot, index)
    return Array.isArray(items) ? items.slice(0, FETCHED_ITEMS_MAX) : items
  }

  /** The state on disk has all entries up to `index`: those long before it need not be kept. */
  async cut(index: number): Promise<void> {
    const upTo = index - (this.#options.keptItems ?? KEPT_ITEMS)
    if (upTo <= 0 || this.#isOver) return
    this.#machine.cut(upTo)
    await this.#options.file.cut(upTo)
  }

  /** Proposals that wait are refused; whether they take effect is for the others to see. */
  async close(): Promise<void> {
    this.#end(new StoreError('Stopping'))
    await this.#group?.leave()
    await this.#options.file.close()
  }

  #delivered(sender: MemberId, bytes: Buffer): void {
    let message: Message
    try {
      message = decodeMessage(bytes)
    } catch (err) {
      this.#options.log.error(
        { err, sender },
        'a message of the cluster is not understood: is that node of another version?',
      )
      return
    }
    this.#happened({ type: 'delivered', sender, message })
  }

  #tick(): void {
    this.#timer = this.#options.clock.timer(TICK_MS, () => {
      this.#tick()
      this.#happened({ type: 'tick', nowMs: this.#options.clock.monotonicMs() })
    })
  }

  /** One event after the other: what an effect leads to comes after the effects beside it. */
  #happened(event: Event): void {
    if (this.#isOver) return
    this.#events.push(event)
    if (this.#isStepping) return
    this.#isStepping = true
    for (let next = this.#events.shift(); next && !this.#isOver; next = this.#events.shift()) {
      for (const effect of this.#machine.step(next)) this.#run(effect)
    }
    this.#isStepping = false
  }

  #run(effect: Effect): void {
    switch (effect.type) {
      case 'send':
        this.#send(effect.message)
        return
      case 'persist':
        this.#unwritten.push(effect)
        if (!this.#isWriting) void this.#write()
        return
      case 'fetch':
        void this.#fetch(effect)
        return
      case 'apply':
        this.#apply(effect.item)
        return
      case 'unsure':
        return this.#reject(effect.sequence, new StoreError('Unsure'))
      case 'declined':
        return this.#reject(effect.sequence, new StoreError('OldEpoch', 'the voters have changed'))
    }
  }

  #reject(sequence: number, error: StoreError): void {
    this.#waiting.get(sequence)?.reject(error)
    this.#waiting.delete(sequence)
  }

  /** What speaks of the disk goes out in order, and may be held. */
  #send(message: Message): void {
    const speaksOfDisk = message.type === 'ready' || message.type === 'ack'
    if (!speaksOfDisk) return this.#group?.send(encodeMessage(message))
    this.#held.push(message)
    if (this.#held.length === 1) this.#release()
  }

  #release(): void {
    while (this.#held.length > 0 && !this.#isOver) {
      const waitMs = this.#options.holdMs?.(this.#machine.unapplied) ?? 0
      if (waitMs > 0) {
        this.#options.clock.timer(Math.min(waitMs, TICK_MS), () => this.#release())
        return
      }
      this.#group?.send(encodeMessage(this.#held[0]!))
      this.#held.shift()
    }
  }

  /** What comes while a sync runs shares the next. */
  async #write(): Promise<void> {
    this.#isWriting = true
    try {
      while (this.#unwritten.length > 0 && !this.#isOver) {
        const batch = this.#unwritten
        this.#unwritten = []
        await this.#options.file.persist(batch.map(({ change }) => change))
        this.#happened({ type: 'persisted', change: batch.at(-1)!.number })
      }
    } catch (error) {
      this.#fail(toStoreError(error))
    } finally {
      this.#isWriting = false
    }
  }

  async #fetch({ attempt, from, ballot, afterIndex }: Effect & { type: 'fetch' }): Promise<void> {
    const { fetch, state, log } = this.#options
    let fetched: Awaited<ReturnType<FetchItems>>
    try {
      fetched = await fetch(from, ballot, afterIndex)
    } catch (error) {
      log.warn({ from, reason: (error as Error).message }, 'the log could not be fetched; trying again')
      return this.#happened({ type: 'fetchFailed', attempt })
    }
    if (!('state' in fetched)) return this.#happened({ type: 'fetched', attempt, items: fetched })
    try {
      this.#happened({ type: 'installed', attempt, ...(await state.install(fetched.state)) })
    } catch (error) {
      this.#fail(toStoreError(error))
    }
  }

  #apply(item: Item): void {
    const isOwn = item.origin.life === this.#options.life
    const waiting = isOwn ? this.#waiting.get(item.origin.sequence) : undefined
    if (isOwn) this.#waiting.delete(item.origin.sequence)
    try {
      this.#options.state.apply(item)
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      waiting?.reject(error)
      return
    }
    waiting?.resolve()
  }

  #fail(error: Error): void {
    if (this.#isOver) return
    this.#end(new StoreError('NoQuorum', error.message, { cause: error }))
    this.#options.onFailed(error)
  }

  #end(error: StoreError): void {
    this.#isOver = true
    this.#timer?.cancel()
    for (const { reject } of this.#waiting.values()) reject(error)
    this.#waiting.clear()
  }
}

/** A state that came from another node was on the disk before the log knew of it, and the process ended in between. */
async function startFromState({ file, state }: OrderedLogOptions): Promise<void> {
  const { baseIndex, items } = file.durable
  if (state.durableIndex > baseIndex + items.length) await file.persist([{ baseIndex: state.durableIndex }])
}

/** What one answer has at most, and how many entries are kept for nodes that were away for a while. */
const FETCHED_ITEMS_MAX = 1000
const KEPT_ITEMS = 10_000
