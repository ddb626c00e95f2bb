import type { StoreError } from '../../errors.ts'
import { nonZeroRuns } from '../../runtime/zeros.ts'
import type { Device, Done } from '../../vdi/device.ts'

/** Long reads and writes of a device, several pieces at a time. */

/** One piece: long enough that a request costs little, short enough that several fit into memory and are answered soon. */
export const PIECE_BYTES = 1024 * 1024
const PIECES_AT_ONCE = 8

export interface Range {
  offset: number
  lengthBytes: number
}

export interface Piece {
  offset: number
  bytes: Buffer
}

export const readAt = (device: Device, offset: number, target: Buffer): Promise<void> =>
  promised((done) => device.read(offset, target, done))

export const flush = (device: Device): Promise<void> => promised((done) => device.flush(done))

export function promised(submit: (done: Done) => void): Promise<void> {
  return new Promise((resolve, reject) => submit((error: StoreError | null) => (error ? reject(error) : resolve())))
}

/** The ranges of a device that may hold something but zeros, as far as `range` goes. Asks as it goes. */
export async function* dataRanges(
  device: Device,
  { offset, lengthBytes }: Range,
  signal: AbortSignal,
): AsyncGenerator<Range> {
  const step = 2 ** 30
  for (const end = offset + lengthBytes; offset < end; offset += step) {
    signal.throwIfAborted() // holes may be long, and bring no piece
    let at = offset
    for (const extent of await device.extents(offset, Math.min(step, end - offset))) {
      if (extent.kind === 'data') yield { offset: at, lengthBytes: extent.lengthBytes }
      at += extent.lengthBytes
    }
  }
}

/** Reads ranges in order, and ahead of whoever takes the pieces. */
export async function* readPieces(
  device: Device,
  ranges: AsyncIterable<Range> | Iterable<Range>,
  signal: AbortSignal,
): AsyncGenerator<Piece> {
  const ahead: { piece: Piece; read: Promise<void> }[] = []
  const take = async () => {
    const { piece, read } = ahead.shift()!
    await read
    signal.throwIfAborted()
    return piece
  }
  try {
    for await (const range of ranges) {
      for (let at = 0; at < range.lengthBytes; at += PIECE_BYTES) {
        const bytes = Buffer.allocUnsafe(Math.min(PIECE_BYTES, range.lengthBytes - at))
        const piece = { offset: range.offset + at, bytes }
        const read = readAt(device, piece.offset, bytes)
        read.catch(() => {}) // told to whoever takes the piece
        ahead.push({ piece, read })
        if (ahead.length === PIECES_AT_ONCE) yield await take()
      }
    }
    while (ahead.length > 0) yield await take()
  } finally {
    await Promise.allSettled(ahead.map(({ read }) => read)) // the device still fills their buffers
  }
}

/** Writes to a device, a bounded number at a time. The first failure is told to the next call. */
export class PieceWriter {
  readonly #device: Device
  readonly #inFlight = new Set<Promise<void>>()
  #failure: unknown = null

  constructor(device: Device) {
    this.#device = device
  }

  /** Resolves when there is room for more. The bytes belong to the writer from now on. */
  async write(offset: number, bytes: Buffer): Promise<void> {
    this.#submit((done) => this.#device.write(offset, bytes, { fua: false }, done))
    while (this.#inFlight.size >= PIECES_AT_ONCE) await Promise.race(this.#inFlight)
    this.#check()
  }

  /** Writes the blocks that hold something, leaving out those of zeros: for a device that reads as zeros so far. */
  async writeData(offset: number, bytes: Buffer): Promise<void> {
    for (const { offset: at, lengthBytes } of nonZeroRuns(bytes)) {
      await this.write(offset + at, bytes.subarray(at, at + lengthBytes))
    }
  }

  /** Resolves when everything is written, and durable. */
  async finish(): Promise<void> {
    await this.settled()
    this.#check()
    await flush(this.#device)
  }

  /** Resolves when nothing is under way any more, well or not. */
  async settled(): Promise<void> {
    await Promise.all(this.#inFlight)
  }

  #submit(request: (done: Done) => void): void {
    const written: Promise<void> = promised(request)
      .catch((error: unknown) => {
        this.#failure ??= error
      })
      .finally(() => this.#inFlight.delete(written))
    this.#inFlight.add(written)
  }

  #check(): void {
    if (this.#failure !== null) throw this.#failure
  }
}
