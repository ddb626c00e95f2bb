import assert from 'node:assert/strict'
import type { BufferPool } from '../../runtime/buffer-pool.ts'
import type { Clock, Timer } from '../../runtime/clock.ts'
import type { Log } from '../../runtime/log.ts'
import type { MemoryBudget } from '../../runtime/memory-budget.ts'
import type { Connection } from '../../runtime/network.ts'
import type { StallGuard } from '../../runtime/stall-guard.ts'
import { PeerProgress, type WatchedPeer } from '../../runtime/stuck-peers.ts'
import type { TlsIdentity } from '../../runtime/tls.ts'
import type { Device } from '../../vdi/device.ts'
import type { ExportDirectory, ExportRight } from '../directory.ts'
import type { ExportThrottle } from '../qos/export-throttle.ts'
import type { Throttles } from '../qos/throttles.ts'
import type { NbdLimits } from './limits.ts'
import type { CommandMeter } from './meter.ts'
import { type Admission, Negotiation, type OpenExport } from './negotiation.ts'
import { encodeGreeting, OptionReader } from './option-reader.ts'
import { ProtocolError } from './protocol.ts'
import type { ExportTerms } from './request-check.ts'
import type { NbdCounters } from './stats.ts'
import { Transmission } from './transmission.ts'

/** TLS as a server offers it, or insists on it. */
export interface NbdTls {
  identity: TlsIdentity
  isRequired: boolean
}

export interface SessionParts {
  clock: Clock
  log: Log
  exports: ExportDirectory
  throttles: Throttles
  pool: BufferPool
  budget: MemoryBudget
  limits: NbdLimits
  counters: NbdCounters
  meter: CommandMeter
  guard: StallGuard
  tls: NbdTls | null
  /** Counts cut-offs: a look-up that one overtook is worth nothing. */
  cutOffCount(): number
  /** How many sessions are under a right. */
  sessionsUnder(rightId: string): number
}

/** The client is gone, or was cut off, in the middle of its handshake. */
class SessionEnded extends Error {
  override readonly name = 'SessionEnded'
}

/** One connection from its greeting to the end of its session on the device. */
export class Session implements Admission, WatchedPeer {
  /** Inside TLS from the time on that it has begun. */
  private connection: Connection
  private readonly parts: SessionParts
  private readonly options = new OptionReader()
  private inputArrived: () => void = () => {}
  private transmission: Transmission | undefined
  private device: Device | undefined
  private throttle: ExportThrottle | undefined
  private over = false
  private isRefused = false
  /** Runs once the session is to end; a client that does not take its last replies in time is cut. */
  private lastGrace: Timer | undefined
  /** Of the transmission. */
  private progress: PeerProgress | undefined
  /** The right that the session is under, from before its device is opened. */
  rightId: string | undefined
  /** Resolves when the connection is over and the device closed: nothing of this session can happen any more. */
  readonly closed: Promise<void>

  constructor(connection: Connection, parts: SessionParts) {
    this.connection = connection
    this.parts = parts
    const over = new Promise<void>((resolve) => {
      connection.onClose(() => {
        this.cut()
        resolve()
      })
    })
    this.listen()
    this.closed = this.run().then(async () => {
      await over
      this.transmission?.release()
    })
  }

  private listen(): void {
    this.connection.onData(
      (chunk) => this.receive(chunk),
      () => this.transmission?.target() ?? null,
    )
  }

  get inHandshake(): boolean {
    return this.transmission === undefined && !this.over
  }

  get drawsCommonMemory(): boolean {
    return this.transmission?.drawsCommonMemory ?? false
  }

  stuckForMs(nowMs: number): number {
    const { transmission, progress } = this
    if (transmission === undefined || progress === undefined || this.over) return 0
    return progress.stuckForMs(nowMs, transmission)
  }

  /** Ends at once. What the client sent and was not read yet never runs; what is in the device ends unanswered. */
  cut(): void {
    this.over = true
    this.lastGrace?.cancel()
    this.connection.destroy()
    this.transmission?.abandon()
    this.inputArrived()
  }

  /** The same because of what the client did, or failed to do. */
  refuse(): void {
    if (this.isRefused) return
    this.isRefused = true
    this.parts.counters.refusedConnections++
    this.parts.log.debug({ peer: this.connection.peer }, 'nbd connection refused')
    this.cut()
  }

  /** Answers what is in the device, then ends; a client that does not take the answers is cut. */
  stop(): void {
    if (this.transmission === undefined) this.cut()
    else this.finish(this.transmission)
  }

  async exists(name: string): Promise<boolean> {
    return (await this.parts.exports.lookup(name)) !== undefined
  }

  async open(name: string): Promise<OpenExport | 'busy' | undefined> {
    await this.closeDevice()
    const right = await this.lookup(name)
    if (right === undefined) return undefined
    if (this.parts.sessionsUnder(right.id) >= this.parts.limits.exportConnectionsMax) {
      this.parts.counters.refusedConnections++
      return 'busy'
    }
    this.rightId = right.id // from here on a cut-off of the right finds this session
    this.throttle = this.parts.throttles.join(right, name)
    const device = await right.open()
    this.device = device
    if (this.over) throw new SessionEnded()
    return { name, description: `attachment ${right.id}`, readOnly: right.readOnly || device.readOnly, device }
  }

  /** A right that was cut off while it was looked up must be found again to count. */
  private async lookup(name: string): Promise<ExportRight | undefined> {
    for (;;) {
      const cutOffCount = this.parts.cutOffCount()
      const right = await this.parts.exports.lookup(name)
      if (this.over) throw new SessionEnded()
      if (right === undefined || cutOffCount === this.parts.cutOffCount()) return right
    }
  }

  private receive(chunk: Buffer): void {
    this.parts.guard.check() // may cut this very session
    if (this.over) return
    if (this.transmission !== undefined) {
      this.transmission.receive(chunk)
      return
    }
    this.options.push(chunk)
    this.connection.pause() // until the handshake asks for more, so that a client cannot pile up options
    this.inputArrived()
  }

  private async run(): Promise<void> {
    const deadline = this.parts.clock.timer(this.parts.limits.handshakeMs, () => this.refuse())
    try {
      const agreed = await this.handshake()
      deadline.cancel()
      if (agreed === undefined) this.endConnection()
      else await this.transmit(agreed.device, agreed.terms)
    } catch (error) {
      if (error instanceof ProtocolError) this.refuse()
      else if (!(error instanceof SessionEnded)) {
        this.parts.log.error({ err: error, peer: this.connection.peer, right: this.rightId }, 'nbd session failed')
        this.cut()
      }
    } finally {
      deadline.cancel()
      await this.closeDevice()
    }
  }

  /** Undefined when the client asked to end, or must not go on. */
  private async handshake(): Promise<Negotiation['agreed']> {
    this.connection.write([encodeGreeting()])
    const { noZeroes } = await this.next(() => this.options.nextClientFlags())
    const { tls } = this.parts
    const before = tls === null ? 'off' : tls.isRequired ? 'required' : 'optional'
    let negotiation = new Negotiation(this, noZeroes, before)
    for (let count = 0; count < this.parts.limits.optionsMax; count++) {
      const answer = await negotiation.answer(await this.next(() => this.options.nextOption()))
      if (this.over) throw new SessionEnded()
      if (answer.reply.length > 0) this.connection.write([answer.reply])
      if (answer.next === 'transmission') return negotiation.agreed
      if (answer.next === 'tls') {
        await this.startTls()
        negotiation = new Negotiation(this, noZeroes, 'on')
      }
      if (answer.next === 'end') return undefined
    }
    throw new ProtocolError('too many options')
  }

  /** What was said before counts no more; what came along with it and was not asked for is not the client's own. */
  private async startTls(): Promise<void> {
    const { tls, log } = this.parts
    assert(tls !== null && this.connection.startTls !== undefined, 'offered only where there is TLS')
    if (this.options.hasMore) throw new ProtocolError('something behind STARTTLS that is not TLS')
    await this.closeDevice()
    try {
      this.connection = await this.connection.startTls(tls.identity)
    } catch (error) {
      log.info({ err: error, peer: this.connection.peer }, 'a TLS handshake of an nbd client has failed')
      throw new ProtocolError('no TLS')
    }
    this.listen()
    this.connection.pause()
  }

  private async next<T>(poll: () => T | undefined): Promise<T> {
    for (;;) {
      if (this.over) throw new SessionEnded()
      const value = poll()
      if (value !== undefined) return value
      const arrived = new Promise<void>((resolve) => {
        this.inputArrived = resolve
      })
      this.connection.resume()
      await arrived
    }
  }

  private async transmit(device: Device, terms: ExportTerms): Promise<void> {
    const { log } = this.parts
    const about = { peer: this.connection.peer, right: this.rightId }
    assert(this.throttle !== undefined, 'whoever has a device has joined')
    const { connection, throttle } = this
    const transmission = new Transmission({ ...this.parts, connection, device, terms, throttle })
    this.transmission = transmission
    this.progress = new PeerProgress(this.parts.clock.monotonicMs())
    log.info({ ...about, readOnly: terms.readOnly }, 'nbd client attached')
    this.connection.resume()
    transmission.receive(this.options.takeRest())
    await transmission.idle
    if (!this.over) this.endConnection()
    log.info(about, 'nbd client detached')
  }

  private finish(transmission: Transmission): void {
    this.cutLater()
    transmission.finish()
  }

  /** Sends what is pending; a client that then keeps its side open is cut. */
  private endConnection(): void {
    this.connection.resume() // only a connection that is read shows its end
    this.connection.end()
    this.cutLater()
  }

  private cutLater(): void {
    this.lastGrace ??= this.parts.clock.timer(this.parts.limits.closeMs, () => this.cut())
  }

  /** The right is kept until the device has answered everything, so that a cut-off waits for that. */
  private async closeDevice(): Promise<void> {
    await this.device?.close()
    this.device = undefined
    if (this.throttle !== undefined && this.rightId !== undefined) this.parts.throttles.leave(this.rightId)
    this.throttle = undefined
    this.rightId = undefined
  }
}
