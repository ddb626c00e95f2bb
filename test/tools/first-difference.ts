/**
 * Where two contents begin to differ; null when they are equal. For buffers of megabytes, on which the matchers of a test
 * take minutes.
 */
export function firstDifference(a: Buffer, b: Buffer): number | null {
  if (a.equals(b)) return null
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return i
  return length
}
