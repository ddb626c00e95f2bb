import { StoreError } from '../errors.ts'
import { BODY_SIZE_MAX_BYTES, FLAG, RESULT } from '../protocol/constants.ts'
import type { SheepRequest } from '../protocol/message.ts'
import { OP } from '../protocol/opcodes.ts'
import { decodeExtents, extentEntry } from '../protocol/structs.ts'
import { errorOf } from '../results.ts'
import { DEVICE_BLOCK_BYTES, type Device, type Done, type Extent, type Mark, type WriteOptions } from './device.ts'
import type { Transport } from './transport.ts'

/** The most that one request moves: below the limit of a frame, and a bound on what a slow node holds in memory. */
const TRANSFER_MAX_BYTES = 8 * 1024 * 1024
/** The longest range without bytes of its own in one request: lengths on the wire have 32 bits. */
const RANGE_MAX_BYTES = 2 ** 30
/** The longest range that a node is asked to tell extents of at a time: it may have to list every block of it. */
const EXTENTS_RANGE_BYTES = 64 * 1024 * 1024
const EXTENTS_PER_REQUEST = 4096
/** Written where zeros must be allocated. All devices share it, and nobody ever writes into it. */
const ZEROS = Buffer.alloc(1024 * 1024)

/**
 * A session on a VDI, as a device: byte ranges go to the VDI's owner through the transport.
 *
 * The owner alone knows how long the VDI is. What is here is the length that was heard last: a request within it goes
 * straight to the owner, one beyond it asks for the length first, so that a long request does not fail halfway.
 */
export class SessionDevice implements Device {
  readonly readOnly: boolean
  readonly #transport: Transport
  readonly #session: number
  #sizeBytes: number

  constructor(transport: Transport, session: number, sizeBytes: number, readOnly: boolean) {
    this.#transport = transport
    this.#session = session
    this.#sizeBytes = sizeBytes
    this.readOnly = readOnly
  }

  get sizeBytes(): number {
    return this.#sizeBytes
  }

  read(offset: number, target: Buffer, done: Done): void {
    const length = target.length
    if (offset + length > this.#sizeBytes) {
      this.#afterGrowth(offset + length, done, () => this.read(offset, target, done))
    } else if (length > TRANSFER_MAX_BYTES) {
      inParts(length, TRANSFER_MAX_BYTES, done, (at, partLength, partDone) => {
        this.read(offset + at, target.subarray(at, at + partLength), partDone)
      })
    } else {
      this.#submit({ opcode: OP.READ_VDI, session: this.#session, offset, length, dataLength: length, target }, done)
    }
  }

  write(offset: number, source: Buffer, options: WriteOptions, done: Done): void {
    const { length } = source
    const { fua, crcs } = options
    if (offset + length > this.#sizeBytes) {
      this.#afterGrowth(offset + length, done, () => this.write(offset, source, options, done))
    } else if (length > TRANSFER_MAX_BYTES) {
      inParts(length, TRANSFER_MAX_BYTES, done, (at, partLength, partDone) => {
        const part = source.subarray(at, at + partLength)
        const partCrcs = crcs?.subarray(at / DEVICE_BLOCK_BYTES, (at + partLength) / DEVICE_BLOCK_BYTES)
        this.write(offset + at, part, { fua, crcs: partCrcs }, partDone)
      })
    } else {
      const flags = fua ? FLAG.WRITE | FLAG.FUA : FLAG.WRITE
      this.#submit({ opcode: OP.WRITE_VDI, session: this.#session, flags, offset, body: source, crcs }, done)
    }
  }

  discard(offset: number, lengthBytes: number, done: Done): void {
    this.#changeRange(OP.DISCARD_VDI, 0, offset, lengthBytes, done)
  }

  zero(offset: number, lengthBytes: number, options: { fua: boolean; mayDiscard: boolean }, done: Done): void {
    if (options.mayDiscard) {
      this.#changeRange(OP.ZERO_VDI, options.fua ? FLAG.FUA : 0, offset, lengthBytes, done)
    } else if (offset + lengthBytes > this.#sizeBytes) {
      this.#afterGrowth(offset + lengthBytes, done, () => this.zero(offset, lengthBytes, options, done))
    } else {
      // Blocks that must stay allocated are written: what the store marks as zeros has given its space back.
      inParts(lengthBytes, ZEROS.length, done, (at, length, partDone) => {
        this.write(offset + at, ZEROS.subarray(0, length), { fua: options.fua }, partDone)
      })
    }
  }

  flush(done: Done): void {
    this.#submit({ opcode: OP.FLUSH_VDI_SESSION, session: this.#session }, done)
  }

  async extents(offset: number, lengthBytes: number, extentsMax = Number.POSITIVE_INFINITY): Promise<Extent[]> {
    const end = offset + lengthBytes
    if (end > this.#sizeBytes) {
      await new Promise<void>((resolve, reject) => {
        this.#afterGrowth(end, (error) => reject(error), resolve)
      })
    }
    const extents: Extent[] = []
    while (offset < end && extents.length < extentsMax) {
      const part = await this.#someExtents(offset, end - offset)
      if (part.length === 0) throw new StoreError('InvalidParameters', 'the node told no extents')
      for (const extent of part) {
        const last = extents.at(-1)
        if (last?.kind === extent.kind) last.lengthBytes += extent.lengthBytes
        else extents.push(extent)
        offset += extent.lengthBytes
      }
    }
    return extents.length > extentsMax ? extents.slice(0, extentsMax) : extents
  }

  async marks(offset: number, lengthBytes: number): Promise<Mark[]> {
    const marks: Mark[] = []
    for (let left = lengthBytes; left > 0; ) {
      const part = await this.#someMarks(offset + lengthBytes - left, left)
      if (part.length === 0) throw new StoreError('InvalidParameters', 'the node told no marks')
      for (const mark of part) {
        marks.push(mark)
        left -= mark.lengthBytes
      }
    }
    return marks
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#transport.submit({ opcode: OP.CLOSE_VDI, session: this.#session }, () => resolve())
    })
  }

  #changeRange(opcode: number, flags: number, offset: number, lengthBytes: number, done: Done): void {
    if (offset + lengthBytes > this.#sizeBytes) {
      this.#afterGrowth(offset + lengthBytes, done, () => this.#changeRange(opcode, flags, offset, lengthBytes, done))
      return
    }
    inParts(lengthBytes, RANGE_MAX_BYTES, done, (at, length, partDone) => {
      this.#submit({ opcode, session: this.#session, flags, offset: offset + at, length }, partDone)
    })
  }

  /** The extents from `offset` on, as far as one answer goes. */
  #someExtents(offset: number, lengthBytes: number): Promise<Extent[]> {
    const length = Math.min(lengthBytes, EXTENTS_RANGE_BYTES)
    const dataLength = EXTENTS_PER_REQUEST * extentEntry.sizeBytes
    return new Promise((resolve, reject) => {
      this.#transport.submit(
        { opcode: OP.EXTENTS_VDI, session: this.#session, offset, length, dataLength },
        (response) => {
          const error = errorOf(response.result)
          if (error) reject(error)
          else resolve(decodeExtents(response.body ?? Buffer.alloc(0)))
        },
      )
    })
  }

  /** The marks from `offset` on, as far as one answer goes. */
  #someMarks(offset: number, lengthBytes: number): Promise<Mark[]> {
    const length = Math.min(lengthBytes, RANGE_MAX_BYTES)
    const dataLength = BODY_SIZE_MAX_BYTES
    return new Promise((resolve, reject) => {
      this.#transport.submit(
        { opcode: OP.MARKS_VDI, session: this.#session, offset, length, dataLength },
        (response) => {
          const error = errorOf(response.result)
          // A node of an earlier version does not know what it is asked.
          if (error?.code === 'InvalidParameters') resolve([{ lengthBytes: length, mark: null }])
          else if (error) reject(error)
          else resolve(parseMarks(response.body))
        },
      )
    })
  }

  /** Asks how long the VDI is now: `go` if it reaches to `endBytes`, else `done` with InvalidParameters. */
  #afterGrowth(endBytes: number, done: Done, go: () => void): void {
    this.#transport.submit({ opcode: OP.STAT_VDI_SESSION, session: this.#session }, ({ result, vdiSize = 0 }) => {
      if (result === RESULT.SUCCESS) this.#sizeBytes = vdiSize
      if (endBytes <= this.#sizeBytes) go()
      else done(errorOf(result) ?? new StoreError('InvalidParameters', 'beyond the end of the VDI'))
    })
  }

  #submit(request: SheepRequest, done: Done): void {
    this.#transport.submit(request, (response) => done(errorOf(response.result)))
  }
}

function parseMarks(body: Buffer | undefined): Mark[] {
  const told = JSON.parse(body?.toString() ?? '[]') as [lengthBytes: number, mark: string | null][]
  return told.map(([lengthBytes, mark]) => ({ lengthBytes, mark }))
}

/**
 * Runs a long request as several, one after the other, so that it holds no more memory than one of them. `done` gets the
 * first error; what would come after it is not tried.
 */
function inParts(
  lengthBytes: number,
  partMaxBytes: number,
  done: Done,
  run: (at: number, length: number, partDone: Done) => void,
): void {
  let at = 0
  let running = false
  let again = false
  const next: Done = (error) => {
    if (error || at === lengthBytes) {
      done(error)
      return
    }
    again = true
    if (running) return // called from within `run`: the loop below goes on, so that the stack does not grow
    running = true
    while (again) {
      again = false
      const start = at
      const length = Math.min(partMaxBytes, lengthBytes - start)
      at += length
      run(start, length, next)
    }
    running = false
  }
  next(null)
}
