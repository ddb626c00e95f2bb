import { pino } from 'pino'
import type { StoreError } from '../../src/errors.ts'
import type { Disk } from '../../src/runtime/disk.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../src/sheep/object-format.ts'
import type { StoreDone } from '../../src/sheep/object-store.ts'
import type { Session } from '../../src/sheep/session.ts'
import { Sheep, type SheepOptions } from '../../src/sheep/sheep.ts'
import { SimClock } from '../sim/clock.ts'
import { SimDisk } from '../sim/disk.ts'
import { SeededRandom } from '../sim/random.ts'

type BenchOptions = Partial<
  Pick<
    SheepOptions,
    | 'durability'
    | 'reserveBytes'
    | 'loadedObjectsMax'
    | 'placedMinBytes'
    | 'keptBytesMax'
    | 'segmentBytes'
    | 'scrubBytesPerSecond'
    | 'scrubIntervalMs'
  >
> & {
  seed?: number
  /** A second disk beside the first. */
  hasDataDisk?: boolean
  /** Stands between the sheep and its first disk. */
  wrap?: (disk: Disk) => Disk
}

export const VDI_BYTES = 8 * OBJECT_BYTES

/** One sheep on a simulated disk, for tests that place each event by hand. */
export class SheepBench {
  readonly random: SeededRandom
  readonly clock: SimClock
  readonly disk: SimDisk
  readonly dataDisk: SimDisk
  readonly #options: BenchOptions
  sheep!: Sheep
  failure: StoreError | null = null

  constructor(options: BenchOptions = {}) {
    this.#options = options
    this.random = new SeededRandom(options.seed ?? 1)
    this.clock = new SimClock(this.random)
    this.disk = new SimDisk(this.random, this.clock)
    this.dataDisk = new SimDisk(this.random, this.clock)
  }

  static async open(options: BenchOptions = {}): Promise<SheepBench> {
    const bench = new SheepBench(options)
    await bench.open()
    return bench
  }

  /** Starts a process on the disk. */
  async open(): Promise<void> {
    this.failure = null
    this.sheep = await this.run(
      Sheep.open({
        disk: this.#options.wrap?.(this.disk.mount()) ?? this.disk.mount(),
        disks: {
          open: async (path) => this.dataDisk.opened(path),
          homePath: '/first',
          homeDevice: 'first',
          configured: this.#options.hasDataDisk ? ['/data'] : [],
          without: [],
        },
        clock: this.clock.mount(),
        random: this.random,
        log: pino({ level: 'silent' }),
        address: '127.0.0.1:7000',
        zone: 0,
        segmentBytes: 60 * BLOCK_BYTES,
        durability: 'flush',
        reserveBytes: 0,
        copies: 1,
        onFailed: (error) => {
          this.failure = error
        },
        ...this.#options,
      }),
    )
  }

  async restart(how: 'kill' | 'powerLoss' = 'powerLoss'): Promise<void> {
    this.disk[how]()
    this.dataDisk[how]()
    await this.open()
  }

  run<T>(work: Promise<T>): Promise<T> {
    return this.clock.run(work)
  }

  /** Lets a number of events happen, and all that follows from each at once. */
  async step(events: number): Promise<void> {
    for (let i = 0; i < events; i++) {
      await new Promise<void>((resolve) => setImmediate(resolve))
      this.clock.step()
    }
  }

  async create(name: string, sizeBytes = VDI_BYTES): Promise<number> {
    return (await this.run(this.sheep.createVdi(name, sizeBytes, 0))).vid
  }

  /** A session on a VDI, read and write if it is not a snapshot. */
  session(vid: number): Session {
    return this.sheep.sessions.openAnonymous(vid, false)
  }

  async write(session: Session, offset: number, source: Buffer): Promise<void> {
    await this.run(answered((done) => session.write(offset, source, true, done)))
  }

  async discard(session: Session, offset: number, length: number): Promise<void> {
    await this.run(answered((done) => session.discard(offset, length, true, done)))
  }

  async read(session: Session, offset: number, length: number): Promise<Buffer> {
    const target = Buffer.alloc(length, 0xee)
    await this.run(answered((done) => session.read(offset, target, done)))
    return target
  }

  /** Ends the sessions, and audits. */
  async audit() {
    await this.run(this.sheep.sessions.closeAll())
    await this.run(this.sheep.reclaimed())
    return this.run(this.sheep.audit())
  }
}

/** A method that takes a callback, as a promise. */
export function answered(run: (done: StoreDone) => void): Promise<void> {
  return new Promise((resolve, reject) => run((error) => (error ? reject(error) : resolve())))
}
