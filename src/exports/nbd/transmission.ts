import assert from 'node:assert/strict'
import type { StoreError } from '../../errors.ts'
import type { BufferPool } from '../../runtime/buffer-pool.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { MemoryBudget, MemoryShare } from '../../runtime/memory-budget.ts'
import type { Connection } from '../../runtime/network.ts'
import type { Device } from '../../vdi/device.ts'
import type { ExportThrottle, ThrottleTurn } from '../qos/export-throttle.ts'
import { askExtents, flushBefore, readAhead, writeOptions } from './device-requests.ts'
import { answerTo, NBD_ERROR_MESSAGE } from './errors.ts'
import { GivenUp } from './given-up.ts'
import { InFlight } from './in-flight.ts'
import type { NbdLimits } from './limits.ts'
import type { CommandMeter } from './meter.ts'
import { COMMAND, COMMAND_FLAG, NBD_ERROR, ProtocolError } from './protocol.ts'
import { ReplyWriter } from './reply-writer.ts'
import type { ExportTerms } from './request-check.ts'
import {
  CACHE_PIECE_BYTES,
  countedBytes,
  directionOf,
  heldBytes,
  movesBytes,
  STATUS_EXTENTS_MAX,
} from './request-cost.ts'
import { type NbdRequest, RequestReader } from './request-reader.ts'
import type { NbdCounters } from './stats.ts'

/** A batch this long is handed to the kernel although more requests wait. */
const BATCH_BYTES_MAX = 256 * 1024

export interface TransmissionParts {
  connection: Connection
  device: Device
  terms: ExportTerms
  throttle: ExportThrottle
  pool: BufferPool
  budget: MemoryBudget
  clock: Clock
  limits: NbdLimits
  counters: NbdCounters
  meter: CommandMeter
}

/**
 * The transmission phase of one connection: requests go to the device as they come, replies leave in batches.
 *
 * 1. The device may answer within the call or later, in any order. What it answers within the calls of one chunk
 *    leaves in one write; what it answers later is gathered until the input that is waiting has been read.
 * 2. A request costs neither a promise nor a closure: the records that carry it through the device are used again.
 * 3. At a limit nothing more is read; completions and a drained socket start reading again. So it is for memory that
 *    all connections share: a request that does not get any waits, and whatever came after it. And so it is for the turn that a
 *    limited export gives to each of its connections. Before it goes on it is asked whether the client has gone meanwhile (given-up.ts).
 * 4. After `abandon` nothing is read, started or sent; `idle` resolves when the device has answered all it was given.
 */
export class Transmission {
  private readonly connection: Connection
  private readonly device: Device
  private readonly pool: BufferPool
  private readonly clock: Clock
  private readonly limits: NbdLimits
  private readonly counters: NbdCounters
  private readonly meter: CommandMeter
  private readonly reader: RequestReader
  private readonly writer: ReplyWriter
  private readonly memory: MemoryShare
  private readonly turn: ThrottleTurn
  private readonly givenUp: GivenUp
  private readonly spare: InFlight[] = []
  private requestsInFlight = 0
  private bytesInFlight = 0
  /** Held for the request that is being read. */
  private admittedBytes = 0
  private receivedBytes = 0
  private state: 'open' | 'finishing' | 'abandoned' = 'open'
  private pumping = false
  /** The request that is being read waits for memory. */
  private starved = false
  /** It waits for its turn under the limits of the export. */
  private throttled = false
  /** It has had its turn. */
  private hadTurn = false
  private paused = false
  private wakeRequested = false
  private readonly wake = (): void => {
    this.wakeRequested = false
    if (this.state === 'open' && this.paused && !this.isHeldBack) this.goOnReading()
    else this.pump()
  }
  private readonly complete = (record: InFlight, error: StoreError | null): void => this.answer(record, error)
  private resolveIdle: () => void = () => {}
  /** Resolves once, after `finish` or `abandon`, when nothing of this connection is in the device any more. */
  readonly idle: Promise<void>

  constructor(parts: TransmissionParts) {
    this.connection = parts.connection
    this.device = parts.device
    this.pool = parts.pool
    this.clock = parts.clock
    this.limits = parts.limits
    this.counters = parts.counters
    this.meter = parts.meter
    this.reader = new RequestReader(parts.terms, parts.pool, (request) => this.admit(request))
    this.givenUp = new GivenUp(parts.connection, this.reader)
    this.memory = parts.budget.share(() => {
      this.starved = false
      this.wakeLater()
    })
    this.turn = parts.throttle.turn(() => this.goOn())
    this.writer = new ReplyWriter(parts.connection, parts.pool, parts.terms.structuredReplies)
    this.idle = new Promise((resolve) => {
      this.resolveIdle = resolve
    })
    this.connection.onDrain(this.wake)
  }

  /** Where the connection may put what comes next; see RequestReader. */
  target(): Buffer | null {
    return this.state === 'open' ? this.reader.target() : null
  }

  receive(chunk: Buffer): void {
    if (this.state !== 'open') return
    this.receivedBytes += chunk.length
    this.reader.push(chunk)
    this.pump()
    // The device answers small writes at the end of this turn: behind it, the replies leave in the same one.
    if (this.requestsInFlight > 0) this.wakeLater()
  }

  /** Starts nothing more; `idle` resolves once what is in flight is answered and handed to the connection. */
  finish(): void {
    if (this.state !== 'open') return
    this.state = 'finishing'
    if (!this.pumping) this.pump()
  }

  /** The connection is gone, or must not be answered any more. */
  abandon(): void {
    this.state = 'abandoned'
    this.turn.close()
    this.memory.forgo() // others are behind it
    if (this.requestsInFlight === 0) this.resolveIdle()
  }

  /** To be called when the connection is over and `idle` has resolved: gives back what it had of shared memory. */
  release(): void {
    this.reader.release()
    this.writer.release()
    this.memory.close()
  }

  /** Bytes that went either way. */
  get movedBytes(): number {
    return this.receivedBytes + this.writer.takenBytes
  }

  /** It is the client's turn: to take replies, or to finish the request that it has begun. */
  get waitsForPeer(): boolean {
    return this.connection.pendingBytes > 0 || (!this.paused && this.reader.isMidRequest)
  }

  /** It keeps memory that others may be waiting for. */
  get drawsCommonMemory(): boolean {
    return this.memory.draws
  }

  /** Starts what was read, as far as the limits allow, and sends what is answered. */
  private pump(): void {
    this.pumping = true
    let isFreed: boolean // by what was sent: the connection must not be read again before what it brought
    do {
      while (this.state === 'open' && !this.paused && !this.atLimit()) {
        const request = this.nextRequest()
        if (request === undefined) break
        this.start(request)
        if (this.writer.batchBytes >= BATCH_BYTES_MAX) this.flush()
      }
      const wasFull = this.atLimit()
      const { starved } = this
      if (this.state !== 'abandoned') this.flush()
      isFreed = this.state === 'open' && ((wasFull && !this.atLimit()) || (starved && !this.starved))
    } while (isFreed)
    this.pumping = false
    if (this.state === 'open') this.slowDown()
    else if (this.state === 'finishing') this.endWhenAnswered()
  }

  /** Sends what is answered, and gives back the memory of what the kernel took at once. */
  private flush(): void {
    this.writer.flush()
    this.memory.settle(this.bytesInFlight + this.admittedBytes + this.writer.unsentBytes)
  }

  /** A stream that cannot be cut into requests any more is dropped at once. */
  private nextRequest(): NbdRequest | undefined {
    try {
      return this.reader.next()
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      this.counters.refusedConnections++
      this.drop()
      return undefined
    }
  }

  private atLimit(): boolean {
    return (
      this.requestsInFlight >= this.limits.requestsMax ||
      this.bytesInFlight + this.writer.unsentBytes >= this.limits.requestBytesMax
    )
  }

  /** Asked once for each request, when its header is known; no means ask again. */
  private admit(request: NbdRequest): boolean {
    if (this.turn.throttle.isLimited && !this.hasTurn(request)) return false
    const bytes = heldBytes(request)
    this.starved = !this.memory.take(bytes)
    if (this.starved) return false
    this.admittedBytes = bytes
    this.hadTurn = false
    return true
  }

  /** Before any memory is taken for it, which would be kept from others for as long as it waits. */
  private hasTurn(request: NbdRequest): boolean {
    const direction = request.error === NBD_ERROR.NONE ? directionOf(request.type) : null
    if (this.hadTurn || direction === null) return true
    this.throttled = !this.turn.pass(direction, countedBytes(request))
    this.hadTurn = !this.throttled
    return this.hadTurn
  }

  /** Its turn has come. */
  private goOn(): void {
    this.throttled = false
    this.wakeLater()
  }

  private goOnReading(): void {
    if (this.givenUp.isSo()) return this.drop()
    this.paused = false
    this.pump()
    if (this.state === 'open' && !this.paused) this.connection.resume()
  }

  private get isHeldBack(): boolean {
    return this.atLimit() || this.starved || this.throttled
  }

  private drop(): void {
    this.connection.destroy()
    this.abandon()
  }

  /** While it is paused nothing is started, until `wake` has asked whether the client is still there. */
  private slowDown(): void {
    if (!this.isHeldBack) {
      if (this.paused) this.wakeLater()
    } else if (!this.paused) {
      this.paused = true
      this.connection.pause()
    }
  }

  private endWhenAnswered(): void {
    if (this.requestsInFlight === 0) this.abandon()
  }

  private start(request: NbdRequest): void {
    this.counters.requests++
    this.meter.read(request.type)
    if (request.type === COMMAND.DISC) {
      this.state = 'finishing'
      return
    }
    if (request.error !== NBD_ERROR.NONE) {
      this.admittedBytes = 0
      this.counters.errors++
      this.meter.refuse(request.type, request.error)
      this.writer.sendError(request, request.error, NBD_ERROR_MESSAGE[request.error] ?? '')
      return
    }
    const record = this.record(request)
    const { offset, lengthBytes } = request
    const fua = (request.flags & COMMAND_FLAG.FUA) !== 0
    switch (request.type) {
      case COMMAND.READ:
        this.startRead(record)
        return
      case COMMAND.WRITE:
        record.storage = request.storage
        this.device.write(offset, request.payload, writeOptions(request, fua), record.done)
        return
      case COMMAND.FLUSH:
        this.device.flush(record.done)
        return
      case COMMAND.TRIM:
        this.device.discard(offset, lengthBytes, fua ? flushBefore(this.device, record.done) : record.done)
        return
      case COMMAND.CACHE:
        this.startCache(record)
        return
      case COMMAND.WRITE_ZEROES:
        this.device.zero(
          offset,
          lengthBytes,
          { fua, mayDiscard: (request.flags & COMMAND_FLAG.NO_HOLE) === 0 },
          record.done,
        )
        return
      case COMMAND.BLOCK_STATUS:
        askExtents(this.device, record, (request.flags & COMMAND_FLAG.REQ_ONE) !== 0 ? 1 : STATUS_EXTENTS_MAX)
        return
      default:
        assert.fail('checkRequest refuses unknown commands')
    }
  }

  /** The device reads to where the reply will be sent from. */
  private startRead(record: InFlight): void {
    const headerBytes = this.writer.dataHeaderBytes
    const slab = this.writer.slabFor(headerBytes + record.lengthBytes)
    const start = slab.take(headerBytes + record.lengthBytes)
    record.slab = slab
    record.start = start
    const target = slab.buffer.subarray(start + headerBytes, start + headerBytes + record.lengthBytes)
    this.device.read(record.offset, target, record.done)
  }

  private startCache(record: InFlight): void {
    record.storage = this.pool.take(CACHE_PIECE_BYTES)
    readAhead(this.device, record, record.storage, () => this.state !== 'abandoned')
  }

  private record(request: NbdRequest): InFlight {
    const record = this.spare.pop() ?? new InFlight(this.complete)
    record.busy = true
    record.type = request.type
    record.cookieHigh = request.cookieHigh
    record.cookieLow = request.cookieLow
    record.offset = request.offset
    record.lengthBytes = request.lengthBytes
    record.heldBytes = this.admittedBytes
    this.admittedBytes = 0
    record.startedMs = this.clock.monotonicMs()
    this.meter.begin(record.heldBytes)
    this.requestsInFlight++
    this.bytesInFlight += record.heldBytes
    return record
  }

  private answer(record: InFlight, error: StoreError | null): void {
    assert(record.busy, 'the device answered twice')
    this.requestsInFlight--
    this.bytesInFlight -= record.heldBytes
    this.count(record, error)
    // What failed may be under way all the same, on its way to copies: then its bytes must stay what they are.
    if (record.storage !== null && error === null) this.pool.release(record.storage)
    if (this.state !== 'abandoned') this.reply(record, error)
    else if (this.requestsInFlight === 0) this.resolveIdle()
    record.busy = false
    record.storage = null
    record.slab = null
    this.spare.push(record)
    if (!this.pumping) this.wakeLater()
  }

  private wakeLater(): void {
    if (this.wakeRequested) return
    this.wakeRequested = true
    this.clock.afterBatch(this.wake)
  }

  private count(record: InFlight, error: StoreError | null): void {
    const seconds = (this.clock.monotonicMs() - record.startedMs) / 1000
    this.meter.end(record.heldBytes)
    if (error === null) this.meter.succeed(record.type, movesBytes(record.type) ? record.lengthBytes : 0, seconds)
    else this.meter.fail(record.type, answerTo(record.type, error.code).error, seconds)
  }

  private reply(record: InFlight, error: StoreError | null): void {
    if (error !== null) {
      this.counters.errors++
      if (record.slab !== null) this.writer.discard(record.slab)
      const answer = answerTo(record.type, error.code)
      this.writer.sendError(record, answer.error, answer.message)
      return
    }
    if (record.slab !== null) {
      this.counters.bytesRead += record.lengthBytes
      this.writer.sendData(record.slab, record.start, record, record.offset, record.lengthBytes)
    } else if (record.type === COMMAND.BLOCK_STATUS) {
      this.writer.sendBlockStatus(record, record.extents)
      record.extents = []
    } else {
      if (record.type === COMMAND.WRITE) this.counters.bytesWritten += record.lengthBytes
      this.writer.sendDone(record)
    }
  }
}
