import { isUtf8 } from 'node:buffer'
import { readU64 } from '../../runtime/u64.ts'

/** Bytes of another node that are no message as this version knows it; says which field is wrong. */
export class MalformedMessage extends Error {
  override readonly name = 'MalformedMessage'
}

const TWO_TO_32 = 0x1_0000_0000
const HIGH_HALF_MAX = 0x1f_ffff

/** A text, and what it is made of. */
class Text {
  readonly text: string
  readonly #bytes: Uint8Array

  constructor(bytes: Buffer) {
    this.text = bytes.toString('utf8')
    this.#bytes = Uint8Array.from(bytes)
  }

  /** Whether it is what is there. */
  isAt(source: Buffer, start: number, length: number): boolean {
    const bytes = this.#bytes
    if (bytes.length !== length) return false
    for (let at = 0; at < length; at++) if (source[start + at] !== bytes[at]) return false
    return true
  }
}

/** Most messages name the one who has named himself in the message before. */
let lastText = new Text(Buffer.alloc(0))

/** Takes the fields of a message apart, in order. Each method throws a MalformedMessage that names the field. */
export class ByteReader {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  u8(field: string): number {
    return this.#bytes[this.#advance(1, field)]!
  }

  u16(field: string): number {
    return this.#bytes.readUInt16LE(this.#advance(2, field))
  }

  u32(field: string): number {
    return this.#bytes.readUInt32LE(this.#advance(4, field))
  }

  /** 64 bits as a number. */
  whole(field: string): number {
    const at = this.#advance(8, field)
    const high = this.#bytes.readUInt32LE(at + 4)
    if (high > HIGH_HALF_MAX) throw new MalformedMessage(`${field} is more than 2^53`)
    return high * TWO_TO_32 + this.#bytes.readUInt32LE(at)
  }

  /** 64 bits of which each matters. */
  bits64(field: string): bigint {
    return readU64(this.#bytes, this.#advance(8, field))
  }

  /** UTF-8 after its length, a byte. */
  shortText(field: string): string {
    const length = this.u8(field)
    const at = this.#advance(length, field)
    if (lastText.isAt(this.#bytes, at, length)) return lastText.text
    const bytes = this.#bytes.subarray(at, at + length)
    if (!isUtf8(bytes)) throw new MalformedMessage(`${field} is no text`)
    lastText = new Text(bytes)
    return lastText.text
  }

  /** How many items follow, of at least `itemBytes` each: never more than there is room for. */
  count(field: string, itemBytes: number): number {
    const count = this.u32(field)
    if (count * itemBytes > this.#bytes.length - this.#at)
      throw new MalformedMessage(`${field}: there is no room for ${count}`)
    return count
  }

  bytes(field: string, length: number): Buffer {
    const at = this.#advance(length, field)
    return this.#bytes.subarray(at, at + length)
  }

  takeRest(): Buffer {
    const rest = this.#bytes.subarray(this.#at)
    this.#at = this.#bytes.length
    return rest
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length
  }

  /** Nothing may be left. */
  end(message: string): void {
    if (this.#at !== this.#bytes.length)
      throw new MalformedMessage(`${this.#bytes.length - this.#at} bytes are left after the ${message}`)
  }

  #advance(length: number, field: string): number {
    const at = this.#at
    if (at + length > this.#bytes.length) throw new MalformedMessage(`the message ends before ${field} does`)
    this.#at = at + length
    return at
  }
}
