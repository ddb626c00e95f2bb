import {
  HANDSHAKE_FLAG,
  NBD_MAGIC,
  OPTION_MAGIC,
  OPTION_MAGIC_HIGH,
  OPTION_MAGIC_LOW,
  ProtocolError,
} from './protocol.ts'

/** A name and all queries that make sense are far shorter; longer options are an attack. */
export const OPTION_BYTES_MAX = 16 * 1024
const CLIENT_FLAGS_BYTES = 4
const OPTION_HEADER_BYTES = 16

export interface ClientFlags {
  /** Leave out the 124 zero bytes after the answer to EXPORT_NAME. */
  noZeroes: boolean
}

export interface Option {
  option: number
  data: Buffer
}

/** S: 64 bits "NBDMAGIC", 64 bits "IHAVEOPT", 16 bits handshake flags. */
export function encodeGreeting(): Buffer {
  const greeting = Buffer.alloc(18)
  greeting.write(NBD_MAGIC + OPTION_MAGIC, 'latin1')
  greeting.writeUInt16BE(HANDSHAKE_FLAG.FIXED_NEWSTYLE | HANDSHAKE_FLAG.NO_ZEROES, 16)
  return greeting
}

/**
 * Cuts the client's side of the handshake into its messages, whatever pieces it arrives in.
 *
 *     C: 32 bits client flags, once, then any number of options:
 *     C: 64 bits "IHAVEOPT", 32 bits option, 32 bits length, `length` bytes of data
 */
export class OptionReader {
  private buffered: Buffer = Buffer.alloc(0)

  push(chunk: Buffer): void {
    this.buffered = this.buffered.length === 0 ? chunk : Buffer.concat([this.buffered, chunk])
  }

  /** Must be asked for once, before the first option. Throws ProtocolError on a flag that was not offered. */
  nextClientFlags(): ClientFlags | undefined {
    if (this.buffered.length < CLIENT_FLAGS_BYTES) return undefined
    const flags = this.buffered.readUInt32BE(0)
    this.buffered = this.buffered.subarray(CLIENT_FLAGS_BYTES)
    if ((flags & ~(HANDSHAKE_FLAG.FIXED_NEWSTYLE | HANDSHAKE_FLAG.NO_ZEROES)) !== 0) {
      throw new ProtocolError('unknown client flags')
    }
    return { noZeroes: (flags & HANDSHAKE_FLAG.NO_ZEROES) !== 0 }
  }

  /** Throws ProtocolError when what follows is no option or too long. */
  nextOption(): Option | undefined {
    if (this.buffered.length < OPTION_HEADER_BYTES) return undefined
    if (this.buffered.readUInt32BE(0) !== OPTION_MAGIC_HIGH || this.buffered.readUInt32BE(4) !== OPTION_MAGIC_LOW) {
      throw new ProtocolError('no option magic')
    }
    const lengthBytes = this.buffered.readUInt32BE(12)
    if (lengthBytes > OPTION_BYTES_MAX) throw new ProtocolError('option too long')
    const end = OPTION_HEADER_BYTES + lengthBytes
    if (this.buffered.length < end) return undefined
    const option = { option: this.buffered.readUInt32BE(8), data: this.buffered.subarray(OPTION_HEADER_BYTES, end) }
    this.buffered = this.buffered.subarray(end)
    return option
  }

  /** Something has come that was not asked for yet. */
  get hasMore(): boolean {
    return this.buffered.length > 0
  }

  /** What came after the option that ended the handshake: the first requests. */
  takeRest(): Buffer {
    const rest = this.buffered
    this.buffered = Buffer.alloc(0)
    return rest
  }
}
