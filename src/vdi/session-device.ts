import { StoreError } from '../errors.ts'
import { FLAG } from '../protocol/constants.ts'
import { OP } from '../protocol/opcodes.ts'
import { decodeExtents, extentEntry } from '../protocol/structs.ts'
import { errorOf } from '../results.ts'
import type { Device, Done, Extent } from './device.ts'
import type { Transport } from './transport.ts'

/** The most that one request moves: below the limit of a frame, and a bound on what a slow node holds in memory. */
const TRANSFER_MAX_BYTES = 8 * 1024 * 1024
/** The longest range without bytes of its own in one request: lengths on the wire have 32 bits. */
const RANGE_MAX_BYTES = 2 ** 30
const EXTENTS_PER_REQUEST = 4096

/** A session on a VDI, as a device: byte ranges go to the VDI's owner through the transport. */
export class SessionDevice implements Device {
  readonly sizeBytes: number
  readonly readOnly: boolean
  readonly #transport: Transport
  readonly #session: number

  constructor(transport: Transport, session: number, sizeBytes: number, readOnly: boolean) {
    this.#transport = transport
    this.#session = session
    this.sizeBytes = sizeBytes
    this.readOnly = readOnly
  }

  read(offset: number, target: Buffer, done: Done): void {
    if (target.length > TRANSFER_MAX_BYTES) {
      inParts(target.length, TRANSFER_MAX_BYTES, done, (at, length, partDone) => {
        this.read(offset + at, target.subarray(at, at + length), partDone)
      })
      return
    }
    const length = target.length
    this.#transport.submit(
      { opcode: OP.READ_VDI, session: this.#session, offset, length, dataLength: length, target },
      (response) => done(errorOf(response.result)),
    )
  }

  write(offset: number, source: Buffer, { fua }: { fua: boolean }, done: Done): void {
    if (source.length > TRANSFER_MAX_BYTES) {
      inParts(source.length, TRANSFER_MAX_BYTES, done, (at, length, partDone) => {
        this.write(offset + at, source.subarray(at, at + length), { fua }, partDone)
      })
      return
    }
    const flags = fua ? FLAG.WRITE | FLAG.FUA : FLAG.WRITE
    this.#transport.submit({ opcode: OP.WRITE_VDI, session: this.#session, flags, offset, body: source }, (response) =>
      done(errorOf(response.result)),
    )
  }

  discard(offset: number, lengthBytes: number, done: Done): void {
    inParts(lengthBytes, RANGE_MAX_BYTES, done, (at, length, partDone) => {
      this.#submitRange(OP.DISCARD_VDI, 0, offset + at, length, partDone)
    })
  }

  zero(offset: number, lengthBytes: number, options: { fua: boolean; mayDiscard: boolean }, done: Done): void {
    if (!options.mayDiscard) {
      // Blocks that must stay allocated are written: what the store marks as zeros has given its space back.
      const zeros = Buffer.alloc(Math.min(lengthBytes, TRANSFER_MAX_BYTES))
      inParts(lengthBytes, TRANSFER_MAX_BYTES, done, (at, length, partDone) => {
        this.write(offset + at, zeros.subarray(0, length), { fua: options.fua }, partDone)
      })
      return
    }
    inParts(lengthBytes, RANGE_MAX_BYTES, done, (at, length, partDone) => {
      this.#submitRange(OP.ZERO_VDI, options.fua ? FLAG.FUA : 0, offset + at, length, partDone)
    })
  }

  #submitRange(opcode: number, flags: number, offset: number, length: number, done: Done): void {
    this.#transport.submit({ opcode, session: this.#session, flags, offset, length }, (response) =>
      done(errorOf(response.result)),
    )
  }

  flush(done: Done): void {
    this.#transport.submit({ opcode: OP.FLUSH_VDI_SESSION, session: this.#session }, (response) =>
      done(errorOf(response.result)),
    )
  }

  async extents(offset: number, lengthBytes: number): Promise<Extent[]> {
    const extents: Extent[] = []
    for (const end = offset + lengthBytes; offset < end; ) {
      const part = await this.#someExtents(offset, end - offset)
      if (part.length === 0) throw new StoreError('InvalidParameters', 'the node told no extents')
      for (const extent of part) {
        const last = extents.at(-1)
        if (last?.kind === extent.kind) last.lengthBytes += extent.lengthBytes
        else extents.push(extent)
        offset += extent.lengthBytes
      }
    }
    return extents
  }

  /** The extents from `offset` on, as far as one answer goes. */
  #someExtents(offset: number, lengthBytes: number): Promise<Extent[]> {
    const length = Math.min(lengthBytes, RANGE_MAX_BYTES)
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

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#transport.submit({ opcode: OP.CLOSE_VDI, session: this.#session }, () => resolve())
    })
  }
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
  const next: Done = (error) => {
    if (error || at === lengthBytes) {
      done(error)
      return
    }
    const start = at
    const length = Math.min(partMaxBytes, lengthBytes - start)
    at += length
    run(start, length, next)
  }
  next(null)
}
