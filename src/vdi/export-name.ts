import { createHash } from 'node:crypto'

/**
 * What the store keeps instead of an export name, so that whoever reads the store's records cannot use the rights in it:
 * SHA-256, hexadecimal. A name is random, so it needs no salt.
 */
export function hashExportName(name: string): string {
  return createHash('sha256').update(name).digest('hex')
}
