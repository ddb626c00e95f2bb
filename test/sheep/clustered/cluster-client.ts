import { StoreError } from '../../../src/errors.ts'
import type { Clock } from '../../../src/runtime/clock.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../../src/sheep/object-format.ts'
import type { VdiClient } from '../../../src/vdi/client.ts'
import type { Device, Done } from '../../../src/vdi/device.ts'
import type { BenchNode, ClusterBench } from './cluster-bench.ts'
import { bytesOf, type RangeOperation, TESTED_BYTES, type TestedVdi, UNIT_BYTES } from './tested-vdi.ts'

export interface ClientOptions {
  bench: ClusterBench
  clock: Clock
  vdi: TestedVdi
  /** All that there are. */
  vdis: readonly TestedVdi[]
  attachmentId: string
  nameHash: string
  /** Who has no answer for so long tries another gateway. */
  patienceMs: number
  /** Between two requests. */
  pauseMs: number
  /** All writes are to survive the loss of power of all nodes; else what a flush came after. */
  isDurable: boolean
  /** How much of the work is with the VDI as a whole: snapshots, clones, its size. */
  managing: number
  /** How much of the rest is zeros and discards. */
  clearing: number
  /** How often a change that has no answer is left at that, and not made again. */
  givingUp: number
  counts: OperationCounts
  /** No two writes have the same value. */
  nextValue(): number
  /** Something was answered. */
  answered(): void
}

export const NO_OPERATIONS = {
  writes: 0,
  reads: 0,
  zeros: 0,
  discards: 0,
  flushes: 0,
  snapshots: 0,
  snapshotsDeleted: 0,
  clones: 0,
  together: 0,
  rollbacks: 0,
  /** Numbers of copies that were changed. */
  altered: 0,
  resizes: 0,
  /** Attempts without an answer. */
  unanswered: 0,
  /** Changes that were not tried again. */
  givenUp: 0,
  noSpace: 0,
  /** Times that a client came to a gateway. */
  opened: 0,
}

export type OperationCounts = typeof NO_OPERATIONS

interface Opened {
  device: Device
  close(): void
  /** The start of the node that it was opened at. */
  gateway: string
}

type Outcome = 'done' | 'refused' | 'unanswered'

/** A client with an attachment of its own, which it opens at any gateway. Several of its requests may be under way. */
export class ClusterClient {
  readonly #options: ClientOptions
  #opened: Opened | null = null
  #opening: Promise<Opened> | null = null
  /** What was sent and has no answer, by the gateway. */
  readonly #unanswered = new Map<RangeOperation, string>()
  /** The longest that one of its requests took, with all attempts. */
  longestMs = 0
  #names = 0

  constructor(options: ClientOptions) {
    this.#options = options
  }

  get #random() {
    return this.#options.bench.random
  }

  get vdi(): TestedVdi {
    return this.#options.vdi
  }

  get right(): { attachmentId: string; nameHash: string } {
    const { attachmentId, nameHash } = this.#options
    return { attachmentId, nameHash }
  }

  async work(isOver: () => boolean): Promise<void> {
    const { clock, pauseMs, managing } = this.#options
    while (!isOver()) {
      await clock.sleep(this.#random.next() * this.#random.pick([5, 2 * pauseMs]))
      const startMs = clock.monotonicMs()
      const isDone = this.#random.chance(managing) ? await this.#manage() : await this.#work()
      this.longestMs = Math.max(this.longestMs, clock.monotonicMs() - startMs)
      if (isDone) this.#options.answered()
    }
  }

  /** False when it was given up. */
  async #work(): Promise<boolean> {
    const { vdi, isDurable, clearing } = this.#options
    const index = this.#random.below(vdi.objects)
    if (this.#random.chance(clearing)) {
      if (isDurable || this.#random.chance(0.4)) return this.#zero(index)
      if (this.#random.chance(0.4)) return this.#discard(index)
      await this.#flush()
    } else if (this.#random.chance(0.5)) return this.#write(index)
    else await this.read(index)
    return true
  }

  // Requests. Each attempt is an operation of its own: whether the ones before took effect, nobody knows.

  async #write(index: number): Promise<boolean> {
    const { isDurable, counts, nextValue } = this.#options
    const lengthBytes = this.#random.pick([UNIT_BYTES, BLOCK_BYTES, 2 * BLOCK_BYTES])
    const start = this.#random.below((TESTED_BYTES - lengthBytes) / lengthBytes + 1) * lengthBytes
    const offset = index * OBJECT_BYTES + start
    const isDone = await this.#change(offset, lengthBytes, isDurable, nextValue, (device, value, done) =>
      device.write(offset, bytesOf(value, lengthBytes), { fua: isDurable }, done),
    )
    if (isDone) counts.writes++
    return isDone
  }

  async #zero(index: number): Promise<boolean> {
    const { isDurable, counts } = this.#options
    const [offset, lengthBytes] = this.#rangeToClear(index)
    const options = { fua: isDurable, mayDiscard: this.#random.chance(0.7) }
    const isDone = await this.#change(
      offset,
      lengthBytes,
      isDurable,
      () => 0,
      (device, _value, done) => device.zero(offset, lengthBytes, options, done),
    )
    if (isDone) counts.zeros++
    return isDone
  }

  async #discard(index: number): Promise<boolean> {
    const { counts } = this.#options
    const [offset, lengthBytes] = this.#rangeToClear(index)
    const isDone = await this.#change(
      offset,
      lengthBytes,
      false,
      () => 0,
      (device, _value, done) => device.discard(offset, lengthBytes, done),
    )
    if (isDone) counts.discards++
    return isDone
  }

  /** Half of all are whole objects: these go, where there is no snapshot. */
  #rangeToClear(index: number): [number, number] {
    if (this.#random.chance(0.5)) return [index * OBJECT_BYTES, OBJECT_BYTES]
    const block = this.#random.below(TESTED_BYTES / BLOCK_BYTES)
    return [index * OBJECT_BYTES + block * BLOCK_BYTES, BLOCK_BYTES]
  }

  async #change(
    offset: number,
    lengthBytes: number,
    isDurable: boolean,
    nextValue: () => number,
    send: (device: Device, value: number, done: Done) => void,
  ): Promise<boolean> {
    for (;;) {
      const opened = await this.#open()
      const value = nextValue()
      const operation = this.#options.vdi.begin('write', offset, lengthBytes, value, isDurable)
      const outcome = await this.#attempt(opened, operation, (done) => send(opened.device, value, done))
      if (outcome !== 'unanswered') return true
      if (this.#random.chance(this.#options.givingUp)) {
        this.#options.counts.givenUp++
        return false
      }
    }
  }

  async read(index: number): Promise<void> {
    const { vdi, counts } = this.#options
    const [offset, lengthBytes] = [index * OBJECT_BYTES, TESTED_BYTES]
    for (;;) {
      const opened = await this.#open()
      const operation = vdi.begin('read', offset, lengthBytes, 0, false)
      const target = Buffer.alloc(lengthBytes)
      const outcome = await this.#attempt(opened, operation, (done) => opened.device.read(offset, target, done))
      if (outcome !== 'done') continue
      vdi.found(operation, index, target)
      counts.reads++
      return
    }
  }

  async #flush(): Promise<void> {
    const { vdi, counts } = this.#options
    for (;;) {
      const opened = await this.#open()
      const operation = vdi.beginFlush()
      if ((await this.#attempt(opened, null, (done) => opened.device.flush(done))) !== 'done') continue
      vdi.endFlush(operation)
      counts.flushes++
      return
    }
  }

  /** `unanswered` when it failed, or takes too long: then the client goes to some gateway again. */
  async #attempt(opened: Opened, operation: RangeOperation | null, send: (done: Done) => void): Promise<Outcome> {
    const { vdi, counts } = this.#options
    if (operation) this.#unanswered.set(operation, opened.gateway)
    const answer = new Promise<StoreError | null>((resolve) => send(resolve))
    const error = await this.#withPatience(answer)
    const isAnswered = error === null || error.code === 'NoSpace'
    if (isAnswered && operation && this.#unanswered.delete(operation)) {
      if (error) vdi.giveUp(operation)
      else vdi.end(operation)
    }
    if (error === null) return 'done'
    if (isAnswered) {
      counts.noSpace++
      return 'refused'
    }
    counts.unanswered++
    if (this.#opened === opened) this.#leave()
    return 'unanswered'
  }

  async #withPatience(answer: Promise<StoreError | null>): Promise<StoreError | null> {
    const { clock, patienceMs } = this.#options
    return Promise.race([answer, clock.sleep(patienceMs).then(() => new StoreError('Disconnected', 'no patience'))])
  }

  // Where it comes in

  #open(): Promise<Opened> {
    if (this.#opened) return Promise.resolve(this.#opened)
    this.#opening ??= this.#openSomewhere().finally(() => {
      this.#opening = null
    })
    return this.#opening
  }

  async #openSomewhere(): Promise<Opened> {
    const { bench, clock, counts, nameHash } = this.#options
    for (;;) {
      const node = this.#random.pick(bench.nodes)
      const connection = bench.connect(node)
      const opened = connection && (await this.#patiently(connection.vdis.openExport(nameHash, false)))
      if (connection && opened) {
        counts.opened++
        this.#opened = { device: opened, close: () => connection.close(), gateway: gatewayOf(node) }
        this.#cameTo(this.#opened.gateway)
        return this.#opened
      }
      connection?.close()
      await clock.sleep(100)
    }
  }

  /** What was sent to other gateways happens no more. */
  #cameTo(gateway: string): void {
    for (const [operation, other] of this.#unanswered) {
      if (other === gateway) continue
      this.#unanswered.delete(operation)
      this.#options.vdi.giveUp(operation)
    }
  }

  /** The gateway learns of it, or never does. */
  #leave(): void {
    const opened = this.#opened
    this.#opened = null
    if (this.#random.chance(0.5)) opened?.close()
  }

  close(): void {
    this.#opened?.close()
    this.#opened = null
  }

  /** Null when it failed or takes too long. */
  async #patiently<T>(work: Promise<T>): Promise<T | null> {
    const { clock, patienceMs } = this.#options
    try {
      return await Promise.race([work, clock.sleep(patienceMs).then(() => null)])
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      return null
    } finally {
      work.catch(() => {})
    }
  }

  // The VDI as a whole

  async #manage(): Promise<true> {
    const { vdi } = this.#options
    const dice = this.#random.next()
    if (dice < 0.35) await this.#snapshot()
    else if (dice < 0.45) await this.#snapshotTogether()
    else if (dice < 0.6) await this.#clone()
    else if (dice < 0.75) await this.#deleteHeld()
    else if (dice < 0.85) await this.#rollback()
    else if (dice < 0.93) await this.#alter()
    else if (vdi.objects < 8 && vdi.rollbacks === 0) await this.#resize()
    return true
  }

  /** All VDIs at one moment. */
  async #snapshotTogether(): Promise<void> {
    const { vdis: all, counts } = this.#options
    const tag = `${this.#options.attachmentId} ${++this.#names}`
    const begun = all.map((vdi) => ({ vdi, operation: vdi.begin('read', 0, vdi.sizeBytes, 0, false) }))
    const taken = await this.#byAny(async (vdis) => {
      await vdis.snapshotTogether(all.map(({ name }) => ({ name, tag })))
      return true
    })
    if (taken === null) return
    for (const { vdi, operation } of begun) vdi.end(operation)
    for (const { vdi, operation } of begun) {
      const bytes = await this.bytesHeld(vdi.name, tag)
      vdi.found(operation, 0, bytes)
      vdi.held.push({ name: vdi.name, tag, bytes })
    }
    counts.together++
  }

  /** Without an answer it may happen at any time: so does what has been sent to an owner. */
  async #rollback(): Promise<void> {
    const { vdi, counts } = this.#options
    const to = this.#random.pick(vdi.held.filter(({ name, tag }) => name === vdi.name && tag !== ''))
    if (!to || vdi.growths > 0) return
    const operation = vdi.beginRollback(to.bytes)
    vdi.rollbacks++
    if ((await this.#byAny((vdis) => vdis.rollback(to.name, { tag: to.tag }))) === null) return
    vdi.rollbacks--
    vdi.end(operation)
    counts.rollbacks++
  }

  async #alter(): Promise<void> {
    const { vdi, counts } = this.#options
    const copies = 2 + this.#random.below(2)
    const altered = await this.#byAny(async (vdis) => {
      await vdis.alter(await vdis.lookup(vdi.name), { copies })
      return true
    })
    if (altered !== null) counts.altered++
  }

  /** Shows what the VDI was at some moment of it. When it fails it may have been taken all the same. */
  async #snapshot(): Promise<void> {
    const { vdi, counts } = this.#options
    const tag = `${this.#options.attachmentId} ${++this.#names}`
    const operation = vdi.begin('read', 0, vdi.sizeBytes, 0, false)
    const taken = await this.#byAny(async (vdis) => vdis.snapshot(await vdis.lookup(vdi.name), tag))
    if (taken === null) return
    vdi.end(operation)
    const bytes = await this.bytesHeld(vdi.name, tag)
    vdi.found(operation, 0, bytes)
    vdi.held.push({ name: vdi.name, tag, bytes })
    counts.snapshots++
  }

  async #clone(): Promise<void> {
    const { vdi, counts, attachmentId } = this.#options
    const from = this.#random.pick(vdi.held)
    if (!from) return
    const objects = from.bytes.length / TESTED_BYTES
    const name = `clone ${attachmentId} ${++this.#names}`
    const cloned = await this.#byAny(async (vdis) => {
      const base = await vdis.lookup(from.name, from.tag)
      return vdis.create(name, objects * OBJECT_BYTES, from.tag ? base : 0)
    })
    if (cloned === null || !from.tag) return
    const bytes = await this.bytesHeld(name, '')
    if (!bytes.equals(from.bytes)) throw new Error(`${name} is not what ${from.name}@${from.tag} is`)
    vdi.held.push({ name, tag: '', bytes })
    counts.clones++
  }

  async #deleteHeld(): Promise<void> {
    const { vdi, counts } = this.#options
    const held = this.#random.pick(vdi.held)
    if (!held) return
    vdi.held.splice(vdi.held.indexOf(held), 1)
    if ((await this.#byAny((vdis) => vdis.remove(held.name, held.tag).then(() => true))) !== null)
      counts.snapshotsDeleted++
  }

  async #resize(): Promise<void> {
    const { vdi, counts } = this.#options
    const objects = vdi.objects + 1
    const sizeBytes = objects * OBJECT_BYTES
    vdi.growths++
    const grown = await this.#byAny(async (vdis) => {
      const vid = await vdis.lookup(vdi.name)
      await vdis.resize(vid, sizeBytes)
      return true
    })
    vdi.growths--
    if (grown === null) return
    vdi.grow(objects)
    counts.resizes++
  }

  /** The tested parts of all objects of a snapshot or of a VDI that nobody writes to, however long it takes. It may have grown unseen. */
  async bytesHeld(name: string, tag: string): Promise<Buffer> {
    for (;;) {
      const held = await this.#byAny(async (vdis) => {
        const device = await vdis.open(await vdis.lookup(name, tag), { readOnly: true })
        const read = (index: number): Promise<Buffer> => {
          const target = Buffer.alloc(TESTED_BYTES)
          return new Promise((resolve, reject) =>
            device.read(index * OBJECT_BYTES, target, (error) => (error ? reject(error) : resolve(target))),
          )
        }
        return Buffer.concat(
          await Promise.all(Array.from({ length: device.sizeBytes / OBJECT_BYTES }, (_, index) => read(index))),
        )
      })
      if (held !== null) return held
      await this.#options.clock.sleep(200)
    }
  }

  /** Through some node; null when it failed, or takes too long. */
  async #byAny<T>(work: (vdis: VdiClient) => Promise<T>): Promise<T | null> {
    const { bench } = this.#options
    const connection = bench.connect(this.#random.pick(bench.nodes))
    if (!connection) return null
    const done = await this.#patiently(work(connection.vdis))
    connection.close()
    return done
  }
}

const gatewayOf = ({ name, starts }: BenchNode) => `${name} ${starts}`
