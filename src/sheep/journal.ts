import assert from 'node:assert'
import { StoreError } from '../errors.ts'
import type { Clock } from '../runtime/clock.ts'
import type { DiskFile } from '../runtime/disk.ts'
import { Histogram } from '../runtime/histogram.ts'
import { encodeMeta, type JournalRecord, metaPagesFor, recordBytes } from './journal-format.ts'
import { BLOCK_BYTES } from './object-format.ts'

/**
 * The journal: every change of the store is a transaction here before anything else on disk changes.
 *
 * 1. `append` takes a transaction; it becomes durable as a whole or not at all. Transactions of one turn of the event loop
 *    share a frame (group commit).
 * 2. `done` is called when the frame has been written to the page cache, so that it survives the end of the process; for
 *    a `durable` transaction only after the frame was synced, so that it survives loss of power. Success is never told before
 *    `append` or `flush` returns: whoever is told may change the very object that the caller is about to change or to read.
 * 3. There are two segments. When the active one is full it is sealed and the other becomes active, if it is free;
 *    until `release` frees it, transactions wait. That is the back-pressure of the whole store.
 * 4. The owner applies a sealed segment to the object files, but only records below `syncedSequence`, and then calls
 *    `release`. A page that holds a record is never rewritten before.
 * 5. What a transaction refers to outside of the journal is synced first, by `outside`.
 * 6. When a write or a sync fails the journal has failed for good: everything waiting, and everything that comes, is
 *    answered with DiskFailed. After a failed fsync the kernel may report success without having written anything.
 */
export interface JournalTransaction {
  records: JournalRecord[]
  /** The payload of the `blocks` records, in their order; must not change until `done`. */
  payload: readonly Buffer[]
  durable: boolean
  /** Told where the payload begins, before `done`: a location, and the next ones count up by page. */
  placed(location: number): void
  done(error: StoreError | null): void
}

/** A location is `segment * LOCATION_SEGMENT + page`. */
export const LOCATION_SEGMENT = 2 ** 24
const GROUP_BYTES = 1024 * 1024
const META_SCRATCH_BYTES = 64 * 1024

export interface JournalState {
  storeId: Buffer
  incarnation: number
  /** The next generation and sequence to write. */
  generation: number
  sequence: number
}

/** Of one segment of the journal. */
export interface SegmentFile {
  file: DiskFile
  /** The same file opened a second time: each handle is told of a failure by itself, so two syncs at a time need two. */
  twin: DiskFile
}

/** What transactions refer to that is not in the journal. */
export interface Outside {
  readonly hasUnsynced: boolean
  /** Makes durable all that transactions appended so far refer to. */
  sync(): Promise<void>
}

interface SyncWaiter {
  sequence: number
  done(error: StoreError | null): void
}

interface Sync {
  /** The one file that it is about, if it is about nothing else. */
  only: DiskFile | null
  isTwin: boolean
}

export class Journal {
  readonly #segments: readonly [SegmentFile, SegmentFile]
  readonly #segmentPages: number
  readonly #clock: Clock
  readonly #state: JournalState
  readonly #outside: Outside | null
  readonly #onBegun: () => void
  readonly #onSealed: (generation: number, nextSequence: number) => void
  readonly #onFailed: (error: StoreError) => void

  #active = 0
  #page = 0
  #payloadPages = 0
  #sealed = false
  #synced: number
  /** What a sync that is under way will make durable, or the last one did. */
  #covered: number
  readonly #unsynced = new Set<SegmentFile>()
  /** Two at most. */
  #syncs: readonly Sync[] = []
  /** Told when none is under way. */
  #onSettled: (() => void)[] = []
  #waiters: SyncWaiter[] = []
  #pending: JournalTransaction[] = []
  #pendingBytes = 0
  #flushScheduled = false
  /** Transactions that were written, to be answered in a turn of their own. */
  #written: JournalTransaction[] = []
  /** For the meta pages of a frame, which are written at once. */
  readonly #meta = Buffer.alloc(META_SCRATCH_BYTES)
  #failure: StoreError | null = null
  framesWritten = 0
  bytesWritten = 0
  /** How long the disk takes to make what was written durable. */
  readonly syncSeconds = new Histogram()

  constructor(options: {
    segments: readonly [SegmentFile, SegmentFile]
    segmentBytes: number
    clock: Clock
    state: JournalState
    outside?: Outside
    /** Told that the active segment has its first frame. */
    onBegun?: () => void
    /** Told that a generation is complete, and the sequence number of the first frame after it. */
    onSealed: (generation: number, nextSequence: number) => void
    onFailed: (error: StoreError) => void
  }) {
    assert(options.segmentBytes % BLOCK_BYTES === 0 && options.segmentBytes / BLOCK_BYTES < LOCATION_SEGMENT)
    this.#segments = options.segments
    this.#segmentPages = options.segmentBytes / BLOCK_BYTES
    this.#clock = options.clock
    this.#state = options.state
    this.#synced = options.state.sequence
    this.#covered = options.state.sequence
    this.#outside = options.outside ?? null
    this.#onBegun = options.onBegun ?? (() => {})
    this.#onSealed = options.onSealed
    this.#onFailed = options.onFailed
  }

  /** The generation of the active segment. */
  get generation(): number {
    return this.#state.generation
  }

  /** Frames below this sequence number are durable. */
  get syncedSequence(): number {
    return this.#synced
  }

  /** Frames below this sequence number are durable, or about to be, as they are now. */
  get coveredSequence(): number {
    return this.#covered
  }

  /** Whether a transaction with so many bytes of records, and no payload, is written as soon as it is appended and flushed. */
  canWriteNow(recordsBytes: number): boolean {
    if (this.#failure || this.#pending.length > 0) return false
    return this.#page + metaPagesFor(recordsBytes) <= this.#segmentPages
  }

  /** The sequence number of the last frame written. */
  get lastSequence(): number {
    return this.#state.sequence - 1
  }

  /** Transactions that are not written yet: but for those of this turn, they wait for a free segment. */
  get waiting(): number {
    return this.#pending.length
  }

  /** Bytes of the active segment that are taken. */
  get activeBytes(): number {
    return this.#page * BLOCK_BYTES
  }

  /** Of these, the blocks of data. */
  get activePayloadBytes(): number {
    return this.#payloadPages * BLOCK_BYTES
  }

  fileOf(location: number): DiskFile {
    return this.#segments[location >= LOCATION_SEGMENT ? 1 : 0].file
  }

  static positionOf(location: number): number {
    return (location % LOCATION_SEGMENT) * BLOCK_BYTES
  }

  append(transaction: JournalTransaction): void {
    if (this.#failure) return transaction.done(this.#failure)
    this.#pending.push(transaction)
    this.#pendingBytes += totalBytes(transaction.payload)
    if (this.#pendingBytes >= GROUP_BYTES) this.flush()
    else this.#scheduleFlush()
  }

  #scheduleFlush(): void {
    if (this.#flushScheduled) return
    this.#flushScheduled = true
    this.#clock.afterInput(() => {
      this.#flushScheduled = false
      this.flush()
      const written = this.#written
      this.#written = []
      for (const transaction of written) transaction.done(null)
    })
  }

  /** Writes what was appended, now; what finds no free segment keeps waiting. */
  flush(): void {
    while (this.#pending.length > 0 && !this.#failure) if (!this.#writeGroup()) return
  }

  /** Writes the first of what waits as one frame. False when there is no free segment for it. */
  #writeGroup(): boolean {
    const group = this.#nextGroup()
    const only = group.length === 1 ? group[0]! : null // as always at depth 1
    const records = only?.records ?? joined(group, (transaction) => transaction.records)
    const payload = only?.payload ?? joined(group, (transaction) => transaction.payload)
    const metaPages = metaPagesFor(records.reduce((sum, record) => sum + recordBytes(record), 0))
    const payloadPages = totalBytes(payload) / BLOCK_BYTES
    assert(metaPages + payloadPages <= this.#segmentPages, 'a transaction that no segment can hold')
    if (this.#page + metaPages + payloadPages > this.#segmentPages && !this.#switchSegment()) return false

    this.#pending.splice(0, group.length)
    this.#pendingBytes -= payloadPages * BLOCK_BYTES
    const { storeId, incarnation, generation, sequence } = this.#state
    const meta = encodeMeta(
      { storeId, incarnation, generation, sequence, syncedSequence: this.#synced, metaPages, payloadPages },
      records,
      this.#meta,
    )
    const segment = this.#segments[this.#active]!
    try {
      segment.file.writeNow([meta, ...payload], this.#page * BLOCK_BYTES)
    } catch (cause) {
      const failure = this.#fail('writing the journal', cause)
      for (const transaction of group) transaction.done(failure)
      return true
    }
    this.framesWritten++
    this.bytesWritten += (metaPages + payloadPages) * BLOCK_BYTES
    this.#unsynced.add(segment)
    if (this.#page === 0) this.#onBegun()
    let location = this.#active * LOCATION_SEGMENT + this.#page + metaPages
    this.#page += metaPages + payloadPages
    this.#payloadPages += payloadPages
    this.#state.sequence = sequence + 1
    for (const transaction of group) {
      transaction.placed(location)
      location += totalBytes(transaction.payload) / BLOCK_BYTES
    }
    for (const transaction of group) {
      if (this.#failure) transaction.done(this.#failure)
      else if (transaction.durable) this.#awaitSync(sequence, (error) => transaction.done(error))
      else this.#written.push(transaction)
    }
    if (this.#written.length > 0) this.#scheduleFlush()
    return true
  }

  /** As many of the waiting transactions as make a group of sensible size: always at least one. */
  #nextGroup(): JournalTransaction[] {
    if (this.#pending.length === 1) return [...this.#pending]
    let bytes = 0
    let count = 0
    for (const transaction of this.#pending) {
      bytes +=
        totalBytes(transaction.payload) + transaction.records.reduce((sum, record) => sum + recordBytes(record), 0)
      if (count > 0 && bytes > Math.min(GROUP_BYTES, (this.#segmentPages * BLOCK_BYTES) / 2)) break
      count++
    }
    return count === this.#pending.length ? [...this.#pending] : this.#pending.slice(0, count)
  }

  /** Calls `done` once everything written so far is durable, whatever still waits for a segment. */
  syncWritten(done: (error: StoreError | null) => void): void {
    this.flush()
    if (this.#failure) return done(this.#failure)
    this.#awaitSync(this.#state.sequence - 1, done)
  }

  /** Calls `done` once everything appended before is durable. */
  sync(done: (error: StoreError | null) => void): void {
    this.flush()
    if (this.#failure) return done(this.#failure)
    if (this.#pending.length > 0) {
      // Waiting for a segment: an empty durable transaction goes out behind what waits.
      this.#pending.push({ records: [], payload: [], durable: true, placed: () => {}, done })
      return
    }
    this.#awaitSync(this.#state.sequence - 1, done)
  }

  /** The sealed segment is applied and durable elsewhere: its pages may be overwritten. */
  release(): void {
    assert(this.#sealed)
    this.#sealed = false
    this.flush()
  }

  /** Seals the active segment although it is not full, so that its content can be applied. False when it is empty. */
  seal(): boolean {
    this.flush()
    return this.#page > 0 && !this.#failure && this.#switchSegment()
  }

  #switchSegment(): boolean {
    if (this.#sealed) return false
    const sealedGeneration = this.#state.generation
    this.#sealed = true
    this.#active = 1 - this.#active
    this.#page = 0
    this.#payloadPages = 0
    this.#state.generation++
    this.#onSealed(sealedGeneration, this.#state.sequence)
    return true
  }

  #awaitSync(sequence: number, done: (error: StoreError | null) => void): void {
    if (sequence < this.#synced) return done(null)
    this.#waiters.push({ sequence, done })
    this.#startSync()
  }

  /**
   * A sync covers what was written before it begins; whoever comes later is covered by the next. That one may begin while the first is
   * under way if both are about one and the same segment, since it waits for all of the file by itself, and about nothing else.
   */
  #startSync(): void {
    if (this.#failure || !this.#waiters.some(({ sequence }) => sequence >= this.#covered)) return
    const segments = [...this.#unsynced]
    const only = segments.length === 1 && !this.#outside?.hasUnsynced ? segments[0]!.file : null
    const [other] = this.#syncs
    if (this.#syncs.length > 1 || (other && (only === null || other.only !== only))) return
    this.#covered = this.#state.sequence
    this.#unsynced.clear()
    void this.#sync({ only, isTwin: other !== undefined && !other.isTwin }, segments)
  }

  async #sync(sync: Sync, segments: readonly SegmentFile[]): Promise<void> {
    const upTo = this.#covered
    const startedMs = this.#clock.monotonicMs()
    this.#syncs = [...this.#syncs, sync]
    try {
      if (!sync.only) await this.#outside?.sync()
      await Promise.all(segments.map(({ file, twin }) => (sync.isTwin ? twin : file).sync()))
    } catch (cause) {
      this.#fail('syncing the journal', cause)
    }
    this.#syncs = this.#syncs.filter((each) => each !== sync)
    if (this.#syncs.length === 0) for (const settled of this.#onSettled.splice(0)) settled()
    if (this.#failure) return
    this.syncSeconds.observe((this.#clock.monotonicMs() - startedMs) / 1000)
    this.#synced = Math.max(this.#synced, upTo)
    const waiters = this.#waiters
    this.#waiters = waiters.filter((waiter) => waiter.sequence >= this.#synced)
    // Before anybody is told: who is may write more, which is for the sync after this one.
    this.#startSync()
    for (const waiter of waiters) if (waiter.sequence < upTo) waiter.done(null)
  }

  /** Resolves when no sync is at work on the files. */
  async settled(): Promise<void> {
    while (this.#syncs.length > 0) await new Promise<void>((resolve) => this.#onSettled.push(resolve))
  }

  /** Ends the journal from outside, for example when an object file cannot be synced. */
  fail(what: string, cause: unknown): StoreError {
    return this.#fail(what, cause)
  }

  #fail(what: string, cause: unknown): StoreError {
    if (this.#failure) return this.#failure
    const failure = new StoreError('DiskFailed', `${what}: ${cause instanceof Error ? cause.message : cause}`, {
      cause,
    })
    this.#failure = failure
    const transactions = this.#pending
    const waiters = this.#waiters
    this.#pending = []
    this.#waiters = []
    this.#onFailed(failure) // first: what is answered now is answered by a node that has failed
    for (const transaction of transactions) transaction.done(failure)
    for (const waiter of waiters) waiter.done(failure)
    return failure
  }
}

/** As flatMap, which takes several times as long. */
function joined<T, R>(all: readonly T[], partsOf: (one: T) => readonly R[]): R[] {
  const parts: R[] = []
  for (const one of all) for (const part of partsOf(one)) parts.push(part)
  return parts
}

function totalBytes(buffers: readonly Buffer[]): number {
  let sum = 0
  for (const buffer of buffers) sum += buffer.length
  return sum
}
