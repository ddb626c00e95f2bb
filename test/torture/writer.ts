import { performance } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import { SeededRandom } from '../sim/random.ts'
import { FUA, NbdClient, NbdError } from '../tools/nbd-client.ts'
import { contentOf, SECTOR_BYTES, WriteLedger } from '../tools/write-ledger.ts'

export interface WriterOptions {
  seed: number
  ledgerPath: string
  sizeBytes: number
  exportName: string
  /** `host:port` of each gateway, any of which has the export. */
  gateways: readonly string[]
  /** A gateway that says nothing for so long is left for another one. */
  patienceMs: number
  /** Whether what is trimmed reads as zeros. Otherwise nothing is. */
  trims: boolean
}

export interface WriterTally {
  acknowledged: number
  /** For want of space, and not done. */
  refused: number
  /** Whose outcome nobody knew when the connection was lost. */
  unanswered: number
  connections: number
  sectorsChecked: number
}

const OBJECT_BYTES = 4 * 1024 * 1024
const SPOT_BYTES = 512 * 1024
const SPOTS_FIRST = 8
const WORKERS = 4
const WRITE_BYTES_MAX = 128 * 1024
/** Between two operations of one worker: this is to find lost writes, and not to keep the processors from the nodes. */
const THINKING_MS = 20
const CONNECT_MS = 1500
const RETRY_MS = 100
const [ENOSPC, ESHUTDOWN] = [28, 108] as const
/** To who asks for an export. */
const REP_ERR_SHUTDOWN = 0x8000_0007

/**
 * A client that keeps writing to one export, goes to another gateway when its own one is gone or says nothing, and holds everything that
 * it reads against what was acknowledged. Whatever is wrong with that ends it, and `failure` says what it was.
 */
export class Writer {
  readonly tally: WriterTally = { acknowledged: 0, refused: 0, unanswered: 0, connections: 0, sectorsChecked: 0 }
  failure: Error | null = null
  /** Why it left the last gateway. */
  lastLoss = ''
  readonly #options: WriterOptions
  readonly #random: SeededRandom
  readonly #ledger: WriteLedger
  readonly #busy: Uint8Array
  /** Byte offsets of where it writes: around borders of objects, all over the disk. */
  readonly #spots: number[] = []
  readonly #places: number[]
  #at = 0
  #life: Promise<void> = Promise.resolve()
  #isStopping = false
  #lastProgress = performance.now()
  #longestWait = 0

  constructor(options: WriterOptions) {
    this.#options = options
    this.#random = new SeededRandom(options.seed)
    this.#ledger = WriteLedger.open(options.ledgerPath, options.sizeBytes)
    this.#busy = new Uint8Array(options.sizeBytes / SECTOR_BYTES)
    const borders = options.sizeBytes / OBJECT_BYTES / 2 - 1
    this.#places = Array.from({ length: borders }, (_, i) => (2 * i + 1) * OBJECT_BYTES - SPOT_BYTES / 2)
    for (let i = 0; i < SPOTS_FIRST; i++) this.writeToNewPlace()
  }

  get gateway(): string {
    return this.#options.gateways[this.#at]!
  }

  start(): void {
    this.#isStopping = false
    this.#lastProgress = performance.now()
    this.#life = this.#live().catch((error: Error) => {
      this.failure ??= error
    })
  }

  /** Resolves when everything that was sent is answered and durable; rejects when something was lost. */
  async stop(): Promise<void> {
    this.#isStopping = true
    await this.#life
    if (this.failure) throw this.failure
  }

  /** From now on it writes to objects of which it has none yet, as well; not when it is everywhere already. */
  writeToNewPlace(): void {
    const [place] = this.#places.splice(this.#random.below(this.#places.length), 1)
    if (place !== undefined) this.#spots.push(place)
  }

  /** The longest that it has waited for an answer since the last time that this was asked, also where it waits still. */
  takeLongestWaitMs(): number {
    const waited = Math.max(this.#longestWait, performance.now() - this.#lastProgress)
    this.#longestWait = 0
    return Math.round(waited)
  }

  /** Counts its waiting from now on only. */
  forgetWait(): void {
    this.#lastProgress = performance.now()
    this.#longestWait = 0
  }

  async #live(): Promise<void> {
    while (!this.#isStopping) {
      const isDone = await this.#unlessLost(() => this.#serveOnce())
      if (isDone) return
      this.#at = (this.#at + 1) % this.#options.gateways.length
      await pause(RETRY_MS)
    }
  }

  async #serveOnce(): Promise<void> {
    const client = await this.#connect()
    try {
      await this.#checkAll(client)
      this.#ledger.forgetInFlight()
      this.#busy.fill(0)
      this.tally.connections++
      const working = Array.from({ length: WORKERS }, () => this.#work(client))
      try {
        await Promise.all(working)
      } finally {
        client.destroy()
        await Promise.allSettled(working) // nothing of this connection is left for the next one
        this.tally.unanswered += this.#ledger.inFlight
      }
    } finally {
      client.destroy()
    }
  }

  /** The whole of what was ever written to, also by those who want to see it through another gateway. */
  async #checkAll(client: NbdClient): Promise<void> {
    for (const offset of this.#spots) {
      const content = await this.#within(client, () => client.read(offset, SPOT_BYTES))
      this.#ledger.check(offset / SECTOR_BYTES, content)
      this.tally.sectorsChecked += SPOT_BYTES / SECTOR_BYTES
    }
  }

  async #work(client: NbdClient): Promise<void> {
    while (!this.#isStopping) {
      await this.#step(client)
      await pause(THINKING_MS)
    }
    await this.#within(client, () => client.flush())
  }

  async #step(client: NbdClient): Promise<void> {
    const random = this.#random
    const chance = random.next()
    if (chance < 0.03) return this.#within(client, () => client.flush())
    const range = this.#takeRange()
    if (range === null) return
    const { firstSector, sectors } = range
    const [offset, lengthBytes] = [firstSector * SECTOR_BYTES, sectors * SECTOR_BYTES]
    if (chance < 0.15) await this.#checkRange(client, firstSector, sectors)
    else {
      const kind = chance < 0.22 ? 'zeros' : 'data'
      const flags = random.chance(0.1) ? FUA : 0
      const number = this.#ledger.sent(kind, firstSector, sectors)
      const sentAt = performance.now()
      try {
        await this.#within(client, () => {
          if (kind === 'data') return client.write(offset, contentOf(number, firstSector, sectors), flags)
          return this.#options.trims && random.chance(0.5)
            ? client.trim(offset, lengthBytes, flags)
            : client.writeZeroes(offset, lengthBytes, flags)
        })
        this.#ledger.acknowledged(number)
        this.tally.acknowledged++
        this.#progressed(sentAt)
      } catch (error) {
        if (!(error instanceof NbdError) || error.code !== ENOSPC) throw error
        await this.#checkRange(client, firstSector, sectors)
        this.#ledger.refused(number)
        this.tally.refused++
        this.#progressed(sentAt)
      }
    }
    this.#busy.fill(0, firstSector, firstSector + sectors)
  }

  async #checkRange(client: NbdClient, firstSector: number, sectors: number): Promise<void> {
    const content = await this.#within(client, () => client.read(firstSector * SECTOR_BYTES, sectors * SECTOR_BYTES))
    this.#ledger.check(firstSector, content)
    this.tally.sectorsChecked += sectors
  }

  /** A wait is from when the request was sent, or from the last answer before the connection was lost. */
  #progressed(sentAt: number): void {
    const now = performance.now()
    const since = Math.min(sentAt, this.#lastProgress + THINKING_MS)
    this.#longestWait = Math.max(this.#longestWait, now - since)
    this.#lastProgress = now
  }

  /** Sectors that no request in flight covers; null when the dice fell on such. */
  #takeRange(): { firstSector: number; sectors: number } | null {
    const random = this.#random
    const alignment = random.chance(0.6) ? 8 : 1
    const longest = random.chance(0.2) ? WRITE_BYTES_MAX / SECTOR_BYTES : 8
    const sectors = alignment * (1 + random.below(longest / alignment))
    const withinSpot = random.below((SPOT_BYTES / SECTOR_BYTES - sectors) / alignment + 1) * alignment
    const firstSector = random.pick(this.#spots) / SECTOR_BYTES + withinSpot
    if (this.#busy.subarray(firstSector, firstSector + sectors).includes(1)) return null
    this.#busy.fill(1, firstSector, firstSector + sectors)
    return { firstSector, sectors }
  }

  async #connect(): Promise<NbdClient> {
    const { exportName, patienceMs } = this.#options
    const connecting = NbdClient.connect(this.gateway, exportName)
    let isLate = false
    connecting.then(
      (client) => {
        if (isLate) client.destroy()
      },
      () => {},
    )
    return inTime(CONNECT_MS + patienceMs, connecting, () => {
      isLate = true
    })
  }

  #within<T>(client: NbdClient, ask: () => Promise<T>): Promise<T> {
    return inTime(this.#options.patienceMs, ask(), () => client.destroy())
  }

  /** False when the work ended because the gateway is gone, or silent, or has no store behind it. */
  async #unlessLost(work: () => Promise<void>): Promise<boolean> {
    try {
      await work()
      return true
    } catch (error) {
      if (isLost(error as Error)) {
        this.lastLoss = (error as Error).message
        return false
      }
      throw error instanceof NbdError
        ? new Error(`${this.gateway} answered with error ${error.code}: ${error.message}`)
        : error
    }
  }
}

class Silence extends Error {}

function inTime<T>(ms: number, work: Promise<T>, tooLate: () => void): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new Silence(`no answer in ${ms} ms`))
      tooLate()
    }, ms)
    work.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

const LOST_CODES = ['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'EHOSTUNREACH', 'ENETUNREACH', 'ETIMEDOUT']

function isLost(error: Error): boolean {
  if (error instanceof Silence) return true
  if (error instanceof NbdError) return error.code === ESHUTDOWN || error.code === REP_ERR_SHUTDOWN
  const { code = '' } = error as NodeJS.ErrnoException
  return LOST_CODES.includes(code) || error.message.startsWith('the stream ended')
}
