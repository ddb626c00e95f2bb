/**
 * 64 bits of a buffer as a big integer, little endian. As Buffer's own methods, which make several big integers on the way: here the
 * halves lie where the whole is, so that there is one to read, and none to write.
 */
const whole = new BigUint64Array(1)
const halves = new Uint32Array(whole.buffer)

/** Throws a RangeError when they are not all in the buffer. */
export function readU64(bytes: Buffer, at: number): bigint {
  halves[0] = bytes.readUInt32LE(at)
  halves[1] = bytes.readUInt32LE(at + 4)
  return whole[0]!
}

/** Of the value its lowest 64 bits; returns where they end. Throws a RangeError when there is no room, and may have written half. */
export function writeU64(bytes: Buffer, value: bigint, at: number): number {
  whole[0] = value
  bytes.writeUInt32LE(halves[0]!, at)
  return bytes.writeUInt32LE(halves[1]!, at + 4)
}
