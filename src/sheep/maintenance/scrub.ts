import { crc32 } from '@node-rs/crc32'
import { StoreError } from '../../errors.ts'
import { formatOid } from '../../protocol/oid.ts'
import type { Clock, Timer } from '../../runtime/clock.ts'
import type { Disk } from '../../runtime/disk.ts'
import type { Log } from '../../runtime/log.ts'
import type { ClusterState } from '../cluster-state.ts'
import type { ObjectStore } from '../object-store.ts'
import { asCorrupt, type Damage, damageOf, verifyBlocks } from './verify.ts'

export interface ScrubStatus {
  /** `waiting` is the time between two rounds. */
  state: 'off' | 'running' | 'waiting' | 'paused'
  bytesPerSecond: number
  /** Counts the rounds, from 1. */
  round: number
  /** Objects of this round that were read, and that there are. */
  objectsDone: number
  objectsTotal: number
  bytesRead: number
  /** Blocks, or whole objects, that were found damaged in this round and could not be put right. */
  findings: number
  /** Those that were, from other copies. */
  repaired: number
  /** Where users see what was found in this round, as far as there is room. */
  damage: readonly Damage[]
  /** When the last whole round ended, in milliseconds since 1970, and what it had found; 0 when there was none. */
  lastRoundAt: number
  lastRoundFindings: number
}

export interface ScrubOptions {
  store: ObjectStore
  state: ClusterState
  /** See VdiStore. */
  mend?: ((oid: bigint, blocks: readonly number[] | null) => Promise<readonly Damage[]>) | undefined
  disk: Disk
  clock: Clock
  log: Log
  /** 0 turns it off. */
  bytesPerSecond: number
  /** From the start of one round to that of the next, if it takes no longer. */
  roundIntervalMs?: number
}

/** What is kept over restarts. */
interface Saved {
  round: number
  /** The last object that was read in this round, hexadecimal; empty between rounds. */
  position: string
  objectsDone: number
  bytesRead: number
  findings: number
  repaired: number
  startedAt: number
  lastRoundAt: number
  lastRoundFindings: number
  isPaused: boolean
}

const PATH = 'scrub'
const NEW_PATH = 'scrub.new'
const SAVE_INTERVAL_MS = 60_000
const ROUND_INTERVAL_MS = 24 * 60 * 60 * 1000
const DAMAGE_MAX = 100

/**
 * Reads every object through its checksums, in the order of oids, one round after the other, so that rot is found before
 * somebody needs the block.
 *
 * 1. It never reads more than its rate allows: each read waits for the time that the reads before it stand for.
 * 2. Where it is survives a restart, to the minute. A record that is lost or damaged only starts the round again.
 * 3. What a write, a checkpoint or a reclaim changes meanwhile is no finding; see verifyBlocks and damageOf.
 * 4. Where there are other copies it has what it finds put right from them.
 * 5. Room that a crash has left taken for nothing is given back; see punchStraySlots.
 */
export class Scrubber {
  readonly #options: ScrubOptions
  readonly #roundIntervalMs: number
  #saved: Saved = FIRST_ROUND
  #savedMs = 0
  #damage: Damage[] = []
  #objectsTotal = 0
  /** When the reads so far are paid for. */
  #paidUntilMs = 0
  #isStopped = false
  #isReading = false
  #running: Promise<void> | null = null
  #saving: Promise<void> = Promise.resolve()
  #wake: () => void = () => {}

  constructor(options: ScrubOptions) {
    this.#options = options
    this.#roundIntervalMs = options.roundIntervalMs ?? ROUND_INTERVAL_MS
  }

  get status(): ScrubStatus {
    const { round, objectsDone, bytesRead, findings, repaired, lastRoundAt, lastRoundFindings } = this.#saved
    return {
      state: this.#state(),
      bytesPerSecond: this.#options.bytesPerSecond,
      round,
      objectsDone,
      objectsTotal: Math.max(objectsDone, this.#objectsTotal),
      bytesRead,
      findings,
      repaired,
      damage: this.#damage,
      lastRoundAt,
      lastRoundFindings,
    }
  }

  #state(): ScrubStatus['state'] {
    if (this.#options.bytesPerSecond === 0 || this.#isStopped) return 'off'
    if (this.#saved.isPaused) return 'paused'
    return this.#isReading ? 'running' : 'waiting'
  }

  /** Goes on where the last process was. */
  async open(): Promise<void> {
    if (this.#options.bytesPerSecond === 0) return
    this.#saved = await this.#load()
    this.#running = this.#run()
  }

  /** Goes on after a pause; between rounds it starts the next one. Throws InvalidParameters when the rate is 0. */
  async start(): Promise<void> {
    this.#checkOn()
    this.#saved = { ...this.#saved, isPaused: false, startedAt: 0 }
    this.#wake()
    await this.#save()
  }

  /** Stays where it is, over restarts too, until `start`. */
  async pause(): Promise<void> {
    this.#checkOn()
    this.#saved = { ...this.#saved, isPaused: true }
    this.#wake()
    await this.#save()
  }

  #checkOn(): void {
    if (this.#options.bytesPerSecond === 0) {
      throw new StoreError('InvalidParameters', 'scrubbing is off: set scrub_rate_mib, and start the node again')
    }
  }

  /** The object that is being read is read to its end. */
  async stop(): Promise<void> {
    this.#isStopped = true
    this.#wake()
    await this.#running
  }

  async #run(): Promise<void> {
    try {
      while (!this.#isStopped) {
        if (this.#saved.isPaused) await this.#sleep(this.#roundIntervalMs)
        else if (!this.#isDue()) await this.#sleep(this.#untilDueMs())
        else await this.#round()
      }
      await this.#saveIfPossible()
    } catch (error) {
      this.#isStopped = true
      this.#options.log.error({ err: error }, 'scrubbing ended')
    }
  }

  #isDue(): boolean {
    return this.#saved.position !== '' || this.#untilDueMs() === 0
  }

  /** A clock that was set back, or far ahead, makes nobody wait longer than a round. */
  #untilDueMs(): number {
    const leftMs = this.#saved.startedAt + this.#roundIntervalMs - this.#options.clock.now()
    return this.#saved.startedAt === 0 ? 0 : Math.min(Math.max(0, leftMs), this.#roundIntervalMs)
  }

  async #round(): Promise<void> {
    const { store, clock } = this.#options
    if (this.#saved.position === '') {
      const { round, lastRoundAt, lastRoundFindings } = this.#saved
      this.#saved = { ...FIRST_ROUND, round: round + 1, startedAt: clock.now(), lastRoundAt, lastRoundFindings }
      this.#damage = []
    }
    const from = this.#saved.position === '' ? 0n : BigInt(`0x${this.#saved.position}`) + 1n
    const oids = BigUint64Array.from(store.oids()).sort() // natively: there may be very many
    this.#objectsTotal = oids.length
    this.#isReading = true
    try {
      for (const oid of oids) {
        if (oid < from) continue
        await this.#scrub(oid)
        if (this.#isStopped || this.#saved.isPaused) return
      }
    } finally {
      this.#isReading = false
    }
    const { findings } = this.#saved
    this.#saved = { ...this.#saved, position: '', lastRoundAt: clock.now(), lastRoundFindings: findings }
    await this.#saveIfPossible()
  }

  async #scrub(oid: bigint): Promise<void> {
    const { store, clock } = this.#options
    if (store.exists(oid)) {
      const { bad, unreadable } = await verifyBlocks(store, oid, (bytes) => this.#pay(bytes))
      if (unreadable) await this.#report(oid, null)
      else await this.#punchStraySlots(oid)
      if (bad.length > 0) await this.#report(oid, bad)
    }
    const { objectsDone } = this.#saved
    this.#saved = { ...this.#saved, position: formatOid(oid), objectsDone: objectsDone + 1 }
    await new Promise<void>((resolve) => clock.afterInput(resolve)) // objects without data take no time that is paid for
    if (clock.monotonicMs() - this.#savedMs >= SAVE_INTERVAL_MS) await this.#saveIfPossible()
  }

  async #punchStraySlots(oid: bigint): Promise<void> {
    const { store, log } = this.#options
    try {
      const blocks = await store.punchStraySlots(oid)
      if (blocks > 0) log.info({ oid: formatOid(oid), blocks }, 'gave back what a crash had left of large writes')
    } catch (error) {
      if (store.exists(oid)) asCorrupt(error)
    }
  }

  /** Waits until what was read before is paid for. */
  async #pay(bytes: number): Promise<void> {
    const { clock, bytesPerSecond } = this.#options
    const startMs = Math.max(clock.monotonicMs(), this.#paidUntilMs)
    while (!this.#isStopped && clock.monotonicMs() < startMs) await this.#sleep(startMs - clock.monotonicMs())
    this.#paidUntilMs = startMs + (bytes * 1000) / bytesPerSecond
    this.#saved = { ...this.#saved, bytesRead: this.#saved.bytesRead + bytes }
  }

  async #report(oid: bigint, blocks: readonly number[] | null): Promise<void> {
    const { store, state, mend, log } = this.#options
    let damage: readonly Damage[]
    if (mend) {
      const left = await this.#mend(mend, oid, blocks)
      if (!left) return
      damage = left
    } else {
      damage = await damageOf(store, state, oid, blocks)
      if (damage.length === 0) return // nobody sees it: a deleted VDI has left it
    }
    const findings = this.#saved.findings + (blocks?.length ?? 1)
    this.#saved = { ...this.#saved, findings }
    this.#damage.push(...damage.slice(0, DAMAGE_MAX - this.#damage.length))
    log.error({ oid: formatOid(oid), blocks, damage: damage.slice(0, DAMAGE_MAX) }, 'scrubbing found damage')
  }

  /** What is damaged for good, or may be; null when all of it is as it should be again. */
  async #mend(
    mend: NonNullable<ScrubOptions['mend']>,
    oid: bigint,
    blocks: readonly number[] | null,
  ): Promise<readonly Damage[] | null> {
    const { log } = this.#options
    try {
      const damage = await mend(oid, blocks)
      if (damage.length > 0) return damage
      this.#saved = { ...this.#saved, repaired: this.#saved.repaired + (blocks?.length ?? 1) }
      log.warn({ oid: formatOid(oid), blocks }, 'scrubbing found damage; it is repaired from other copies')
      return null
    } catch (err) {
      if (!(err instanceof StoreError)) throw err
      log.warn(
        { err, oid: formatOid(oid) },
        'what scrubbing found damaged could not be repaired; the next round tries again',
      )
      return []
    }
  }

  #sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer: Timer = this.#options.clock.timer(delayMs, resolve)
      this.#wake = () => {
        timer.cancel()
        resolve()
      }
    })
  }

  async #load(): Promise<Saved> {
    const { disk } = this.#options
    if (!(await disk.list('.')).includes(PATH)) return this.#saved
    const file = await disk.open(PATH)
    const bytes = Buffer.alloc(await file.size())
    await file.read(bytes, 0)
    await file.close()
    const json = bytes.subarray(9)
    if (crcOf(json) !== bytes.toString('latin1', 0, 8)) return this.#saved
    return { ...FIRST_ROUND, ...(JSON.parse(json.toString()) as Partial<Saved>) }
  }

  /** Reading goes on when that fails: a restart begins where it was written last. */
  async #saveIfPossible(): Promise<void> {
    const { log } = this.#options
    await this.#save().catch((err: unknown) => log.warn({ err }, 'how far scrubbing has come cannot be written down'))
  }

  /** Under its name only when it is whole. One at a time. */
  #save(): Promise<void> {
    this.#savedMs = this.#options.clock.monotonicMs()
    const saved = this.#saving.then(async () => {
      const { disk } = this.#options
      const json = Buffer.from(JSON.stringify(this.#saved))
      const file = await disk.open(NEW_PATH, { create: true })
      await file.truncate(0)
      await file.write(Buffer.concat([Buffer.from(`${crcOf(json)} `), json]), 0)
      await file.sync()
      await file.close()
      await disk.rename(NEW_PATH, PATH)
      await disk.syncDirectory('.')
    })
    this.#saving = saved.catch(() => {}) // for the next one
    return saved
  }
}

const FIRST_ROUND: Saved = {
  round: 0,
  position: '',
  objectsDone: 0,
  bytesRead: 0,
  findings: 0,
  repaired: 0,
  startedAt: 0,
  lastRoundAt: 0,
  lastRoundFindings: 0,
  isPaused: false,
}

const crcOf = (bytes: Buffer) => crc32(bytes).toString(16).padStart(8, '0')
