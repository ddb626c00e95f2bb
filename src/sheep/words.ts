const IS_BIG_ENDIAN = new Uint8Array(new Uint32Array([1]).buffer)[0] === 0

/** Puts 32-bit words where a file has them, little-endian; word by word it would cost more than writing the file. */
export function writeWords(target: Buffer, words: Uint32Array): void {
  target.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength))
  if (IS_BIG_ENDIAN) target.subarray(0, words.byteLength).swap32()
}

/** The first `count` little-endian words of a file's bytes. */
export function readWords(source: Buffer, count: number): Uint32Array {
  const words = new Uint32Array(count)
  const bytes = Buffer.from(words.buffer)
  source.copy(bytes, 0, 0, bytes.length)
  if (IS_BIG_ENDIAN) bytes.swap32()
  return words
}
