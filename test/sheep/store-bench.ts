import { createHash } from 'node:crypto'
import { pino } from 'pino'
import type { StoreError } from '../../src/errors.ts'
import type { Disk } from '../../src/runtime/disk.ts'
import type { LoggedEntry } from '../../src/sheep/entry-log.ts'
import { BLOCK_BYTES } from '../../src/sheep/object-format.ts'
import { type Change, ObjectStore, type ObjectStoreOptions } from '../../src/sheep/object-store.ts'
import { SimClock } from '../sim/clock.ts'
import { SimDisk } from '../sim/disk.ts'
import { SeededRandom } from '../sim/random.ts'

type BenchOptions = Partial<
  Pick<
    ObjectStoreOptions,
    'durability' | 'reserveBytes' | 'loadedObjectsMax' | 'openFilesMax' | 'placedMinBytes' | 'keptBytesMax'
  >
> & {
  /** Other disks that there are to plug in, by path. */
  dataDisks?: readonly string[]
  /** Of them, those that the settings name. */
  configured?: readonly string[]
  without?: readonly string[]
  seed?: number
  segmentBlocks?: number
  /** A bench whose disk is used, and whose process has ended. */
  on?: { random: SeededRandom; clock: SimClock; disk: SimDisk }
  /** Stands between the store and its disk. */
  wrap?: (disk: Disk) => Disk
}

export const OBJECT = 5n << 32n
const SILENT = pino({ level: 'silent' })

/** One object store on a simulated disk, for tests that place each fault by hand. */
export class StoreBench {
  readonly random: SeededRandom
  readonly clock: SimClock
  readonly disk: SimDisk
  readonly dataDisks = new Map<string, SimDisk>()
  #options: BenchOptions
  store!: ObjectStore
  /** What the last start found in the ordered log. */
  entries: LoggedEntry[] = []
  failure: StoreError | null = null

  constructor(options: BenchOptions = {}) {
    this.#options = options
    this.random = options.on?.random ?? new SeededRandom(options.seed ?? 1)
    this.clock = options.on?.clock ?? new SimClock(this.random)
    this.disk = options.on?.disk ?? new SimDisk(this.random, this.clock)
    for (const path of options.dataDisks ?? []) this.dataDisks.set(path, new SimDisk(this.random, this.clock))
  }

  /** A bench with a store that is open. */
  static async open(options: BenchOptions = {}): Promise<StoreBench> {
    const bench = new StoreBench(options)
    await bench.open()
    return bench
  }

  /** Starts a process on the disk. */
  async start(): Promise<ObjectStore> {
    const {
      durability = 'flush',
      reserveBytes = 0,
      loadedObjectsMax,
      segmentBlocks = 40,
      placedMinBytes = 64 * 1024,
      keptBytesMax,
      openFilesMax,
    } = this.#options
    const disk = this.disk.mount()
    this.failure = null
    const { store, entries } = await ObjectStore.open({
      disk: this.#options.wrap?.(disk) ?? disk,
      disks: {
        open: async (path) => {
          const found = this.dataDisks.get(path)
          if (!found) throw Object.assign(new Error(`ENOENT: ${path}`), { code: 'ENOENT' })
          return found.opened(path)
        },
        homePath: '/first',
        homeDevice: 'first',
        configured: this.#options.configured ?? [],
        without: this.#options.without ?? [],
      },
      clock: this.clock.mount(),
      random: this.random,
      log: SILENT,
      segmentBytes: segmentBlocks * BLOCK_BYTES,
      durability,
      reserveBytes,
      placedMinBytes,
      ...(loadedObjectsMax === undefined ? {} : { loadedObjectsMax }),
      ...(openFilesMax === undefined ? {} : { openFilesMax }),
      ...(keptBytesMax === undefined ? {} : { keptBytesMax }),
      onFailed: (error) => {
        this.failure = error
      },
    })
    this.store = store
    this.entries = entries
    return store
  }

  async open(): Promise<void> {
    await this.clock.run(this.start())
  }

  async close(): Promise<void> {
    await this.clock.run(this.store.close())
    this.#end('kill')
  }

  /** Changes bytes of a file that no process has open. */
  async patch(path: string, position: number, bytes: Buffer): Promise<void> {
    await this.clock.run(
      this.disk
        .mount()
        .open(path)
        .then((file) => file.write(bytes, position).then(() => file.sync())),
    )
  }

  /** The bytes of all files, by path. */
  async image(): Promise<Map<string, string>> {
    const disk = this.disk.mount()
    const image = new Map<string, string>()
    for (const path of this.disk.paths()) {
      const bytes = Buffer.alloc(this.disk.sizeOf(path))
      await this.clock.run(disk.open(path).then((file) => file.read(bytes, 0)))
      image.set(path, createHash('sha256').update(bytes).digest('hex'))
    }
    return image
  }

  /** Resolves when the changes are acknowledged; the clock must run meanwhile. */
  submit(changes: readonly Change[], { durable }: { durable: boolean }): Promise<void> {
    return new Promise((resolve, reject) => {
      this.store.commit(changes, { durable }, (error) => (error ? reject(error) : resolve()))
    })
  }

  async commit(changes: readonly Change[], options = { durable: true }): Promise<void> {
    await this.clock.run(this.submit(changes, options))
  }

  async create(...oids: bigint[]): Promise<void> {
    await this.commit(oids.map((oid) => ({ kind: 'create', oid, runs: [] })))
  }

  /** Writes blocks that are filled with one byte, durably. */
  async write(oid: bigint, first: number, ...fills: number[]): Promise<void> {
    const object = await this.clock.run(this.store.hold(oid))
    await this.commit([{ kind: 'blocks', object, first, bytes: blocksOf(...fills) }])
    this.store.release(object)
  }

  async read(oid: bigint, first: number, count = 1): Promise<Buffer> {
    const target = Buffer.alloc(count * BLOCK_BYTES, 0xee)
    const reading = async () => {
      const object = await this.store.hold(oid)
      try {
        await this.store.readBlocks(object, first, target)
      } finally {
        this.store.release(object)
      }
    }
    await this.clock.run(reading())
    return target
  }

  /** Resolves when so many checkpoints are complete since the start. */
  async checkpointed(count: number): Promise<void> {
    while ((await this.clock.run(this.store.stats())).checkpoints < count) {
      if (!this.clock.step()) throw new Error('nothing is left to happen, and there was no such checkpoint')
    }
  }

  /** Ends the process in order and starts another: everything is in the object files, and nothing is loaded. */
  async settle(): Promise<void> {
    await this.close()
    await this.open()
  }

  /** The process dies; with `powerLoss` the machine does. Then another one starts. */
  async restart(how: 'kill' | 'powerLoss'): Promise<void> {
    this.#end(how)
    await this.open()
  }

  /** What the next starts are told. */
  configure(options: Pick<BenchOptions, 'configured' | 'without'>): void {
    this.#options = { ...this.#options, ...options }
  }

  #end(how: 'kill' | 'powerLoss'): void {
    this.disk[how]()
    for (const disk of this.dataDisks.values()) disk[how]()
  }

  async sync(): Promise<void> {
    await this.clock.run(
      new Promise<void>((resolve, reject) => this.store.sync((error) => (error ? reject(error) : resolve()))),
    )
  }

  async corruptBlocks(): Promise<number> {
    return (await this.clock.run(this.store.stats())).corruptBlocks
  }

  /** Lets `events` events happen; false when `work` settled before that. */
  async isBusyAfter(work: Promise<unknown>, events: number): Promise<boolean> {
    let settled = false
    const mark = () => {
      settled = true
    }
    work.then(mark, mark)
    for (let i = 0; ; i++) {
      await new Promise<void>((resolve) => setImmediate(resolve))
      if (settled) return false
      if (i === events) return true
      this.clock.step()
    }
  }
}

/** Whole blocks, each filled with one byte. */
export function blocksOf(...fills: number[]): Buffer {
  return Buffer.concat(fills.map((fill) => Buffer.alloc(BLOCK_BYTES, fill)))
}
