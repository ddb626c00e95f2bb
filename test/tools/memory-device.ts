import { StoreError, type StoreErrorCode } from '../../src/errors.ts'
import type { Device, Done, Extent, Mark } from '../../src/vdi/device.ts'

const BLOCK_BYTES = 4096
const PAGE_BYTES = 1024 * 1024
const KINDS = ['hole', 'zero', 'data'] as const
const HOLE = 0
const ZERO = 1
const DATA = 2

/** Decides when a request is carried out; it must run each action once. */
export type Schedule = (action: () => void) => void

/** Carries requests out some turns later, several at a time, in an order that the seed decides. */
export function seededSchedule(seed: number): Schedule {
  const random = mulberry32(seed)
  const waiting: (() => void)[] = []
  let scheduled = false
  const runSome = () => {
    scheduled = false
    for (let count = 1 + Math.floor(random() * 4); count > 0 && waiting.length > 0; count--) {
      const [action] = waiting.splice(Math.floor(random() * waiting.length), 1)
      action!()
    }
    if (waiting.length > 0) runLater()
  }
  const runLater = () => {
    if (scheduled) return
    scheduled = true
    setImmediate(runSome)
  }
  return (action) => {
    waiting.push(action)
    runLater()
  }
}

/** A generator of numbers in [0, 1) that is good enough to shuffle with and the same on every machine. */
export function mulberry32(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** The bytes behind any number of MemoryDevice sessions, sparse in blocks of 4 KiB. */
export class MemoryDisk {
  sizeBytes: number
  private kinds: Uint8Array
  private readonly pages = new Map<number, Buffer>()
  /** Writes that a loss of power would undo: done without FUA and not covered by a flush. */
  unflushedWrites = 0
  /** Requests that were carried out, flushes and failed ones included. */
  requests = 0
  /** While set, every request fails with it. */
  failure: StoreErrorCode | undefined

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes
    this.kinds = new Uint8Array(Math.ceil(sizeBytes / BLOCK_BYTES))
  }

  /** As an operator extends a volume while it is in use. */
  grow(sizeBytes: number): void {
    const grown = new Uint8Array(Math.ceil(sizeBytes / BLOCK_BYTES))
    grown.set(this.kinds)
    this.kinds = grown
    this.sizeBytes = sizeBytes
  }

  copyOut(offset: number, target: Buffer): void {
    this.eachPage(offset, target.length, (page, start, end, position) => {
      const bytes = this.pages.get(page)
      if (bytes === undefined) target.fill(0, position, position + end - start)
      else bytes.copy(target, position, start, end)
    })
  }

  copyIn(offset: number, source: Buffer): void {
    this.eachPage(offset, source.length, (page, start, _end, position) => {
      let bytes = this.pages.get(page)
      if (bytes === undefined) {
        bytes = Buffer.alloc(PAGE_BYTES)
        this.pages.set(page, bytes)
      }
      source.copy(bytes, start, position, position + Math.min(PAGE_BYTES - start, source.length - position))
    })
    this.kinds.fill(DATA, Math.floor(offset / BLOCK_BYTES), Math.ceil((offset + source.length) / BLOCK_BYTES))
  }

  /** Blocks that lie wholly in the range become holes or zeros; of the others only the bytes are cleared. */
  clear(offset: number, lengthBytes: number, becomes: 'hole' | 'zero'): void {
    const end = offset + lengthBytes
    this.eachPage(offset, lengthBytes, (page, from, to) => this.pages.get(page)?.fill(0, from, to))
    const first = Math.ceil(offset / BLOCK_BYTES)
    const last = end === this.sizeBytes ? this.kinds.length : Math.floor(end / BLOCK_BYTES)
    if (first < last) this.kinds.fill(becomes === 'hole' ? HOLE : ZERO, first, last)
    if (becomes === 'hole') return
    for (const edge of [Math.floor(offset / BLOCK_BYTES), Math.ceil(end / BLOCK_BYTES) - 1]) {
      if (this.kinds[edge] === HOLE) this.kinds[edge] = ZERO
    }
  }

  extents(offset: number, lengthBytes: number): Extent[] {
    const extents: Extent[] = []
    const end = offset + lengthBytes
    for (let position = offset; position < end; ) {
      const block = Math.floor(position / BLOCK_BYTES)
      const blockEnd = Math.min((block + 1) * BLOCK_BYTES, end)
      const kind = KINDS[this.kinds[block]!]!
      const last = extents.at(-1)
      if (last?.kind === kind) last.lengthBytes += blockEnd - position
      else extents.push({ kind, lengthBytes: blockEnd - position })
      position = blockEnd
    }
    return extents
  }

  private eachPage(
    offset: number,
    lengthBytes: number,
    visit: (page: number, start: number, end: number, position: number) => void,
  ): void {
    for (let position = 0; position < lengthBytes; ) {
      const page = Math.floor((offset + position) / PAGE_BYTES)
      const start = (offset + position) % PAGE_BYTES
      const end = Math.min(PAGE_BYTES, start + lengthBytes - position)
      visit(page, start, end, position)
      position += end - start
    }
  }
}

/** A session on a MemoryDisk: a Device that keeps the whole contract, without any storage below it. */
export class MemoryDevice implements Device {
  readonly readOnly: boolean
  private readonly disk: MemoryDisk
  private readonly schedule: Schedule
  private inFlight = 0
  private closed = false
  private drained: () => void = () => {}

  constructor(disk: MemoryDisk, options: { readOnly?: boolean; schedule?: Schedule } = {}) {
    this.disk = disk
    this.readOnly = options.readOnly ?? false
    this.schedule = options.schedule ?? ((action) => action())
  }

  get sizeBytes(): number {
    return this.disk.sizeBytes
  }

  read(offset: number, target: Buffer, done: Done): void {
    this.submit(offset, target.length, false, done, () => this.disk.copyOut(offset, target))
  }

  write(offset: number, source: Buffer, options: { fua: boolean }, done: Done): void {
    this.submit(offset, source.length, true, done, () => {
      this.disk.copyIn(offset, source)
      if (!options.fua) this.disk.unflushedWrites++
    })
  }

  discard(offset: number, lengthBytes: number, done: Done): void {
    this.submit(offset, lengthBytes, true, done, () => {
      this.disk.clear(offset, lengthBytes, 'hole')
      this.disk.unflushedWrites++
    })
  }

  zero(offset: number, lengthBytes: number, options: { fua: boolean; mayDiscard: boolean }, done: Done): void {
    this.submit(offset, lengthBytes, true, done, () => {
      this.disk.clear(offset, lengthBytes, options.mayDiscard ? 'hole' : 'zero')
      if (!options.fua) this.disk.unflushedWrites++
    })
  }

  flush(done: Done): void {
    this.submit(0, 0, false, done, () => {
      this.disk.unflushedWrites = 0
    })
  }

  extents(offset: number, lengthBytes: number, extentsMax = Number.POSITIVE_INFINITY): Promise<Extent[]> {
    return new Promise((resolve, reject) => {
      let extents: Extent[] = []
      const settle: Done = (error) => (error === null ? resolve(extents) : reject(error))
      this.submit(offset, lengthBytes, false, settle, () => {
        extents = this.disk.extents(offset, lengthBytes).slice(0, extentsMax)
      })
    })
  }

  async marks(_offset: number, lengthBytes: number): Promise<Mark[]> {
    return [{ lengthBytes, mark: null }]
  }

  async close(): Promise<void> {
    this.closed = true
    if (this.inFlight === 0) return
    await new Promise<void>((resolve) => {
      this.drained = resolve
    })
  }

  private submit(offset: number, lengthBytes: number, changes: boolean, done: Done, carryOut: () => void): void {
    if (this.closed) return done(new StoreError('Fenced'))
    if (changes && this.readOnly) return done(new StoreError('ReadOnly'))
    if (offset < 0 || offset + lengthBytes > this.sizeBytes) return done(new StoreError('InvalidParameters'))
    this.inFlight++
    this.schedule(() => {
      this.disk.requests++
      const { failure } = this.disk
      if (failure === undefined) carryOut()
      this.inFlight--
      done(failure === undefined ? null : new StoreError(failure))
      if (this.inFlight === 0) this.drained()
    })
  }
}
