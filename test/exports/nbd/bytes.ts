/** Bytes written by hand: hex digits, blanks wherever they help to read. */
export function hex(...parts: string[]): Buffer {
  return Buffer.from(parts.join('').replaceAll(/\s/g, ''), 'hex')
}

/** Cuts a stream at the positions given, in any order and with repetitions. */
export function cutAt(stream: Buffer, cuts: readonly number[]): Buffer[] {
  const positions = [...new Set([0, ...cuts, stream.length])].sort((a, b) => a - b)
  return positions.slice(1).map((end, index) => stream.subarray(positions[index], end))
}
