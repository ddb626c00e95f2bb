import { UsageError } from '../errors.ts'

const UNITS = 'KMGTP'

/**
 * Bytes, from digits with or without a unit: `4096`, `512M`, `1.5T`. Units count in 1024s; `MiB` is the same as `M`. Throws a
 * UsageError that names `field`.
 */
export function parseBytes(text: string, field: string): number {
  const match = /^(\d+(?:\.\d+)?)(?:([KMGTP])(?:i?B)?|B)?$/i.exec(text.trim())
  const power = match?.[2] === undefined ? 0 : UNITS.indexOf(match[2].toUpperCase()) + 1
  const bytes = Number(match?.[1] ?? Number.NaN) * 1024 ** power
  if (Number.isSafeInteger(bytes)) return bytes
  const problem = Number.isNaN(bytes)
    ? 'is no size'
    : Number.isInteger(bytes)
      ? 'is too large'
      : 'is no whole number of bytes'
  throw new UsageError(
    `${field}: "${text}" ${problem}; write bytes, or a number with K, M, G, T or P, such as 512M or 10G`,
  )
}
