/**
 * Names of objects as targets store them. Parts of names come from users: each is encoded, so that none leads out of its directory
 * or is taken apart on the way by whoever reads paths.
 */

export function encodeName(name: string): string {
  return name.split('/').map(encodePart).join('/')
}

/** No path separator, no hidden name, no `.` or `..`, and no tilde is left; all of it is ASCII. */
export function encodePart(part: string): string {
  return encodeURIComponent(part).replace(/^\./, '%2E').replaceAll('~', '%7E')
}

/** Null for what this did not encode: somebody else put it there. */
export function decodePart(encoded: string): string | null {
  try {
    const part = decodeURIComponent(encoded)
    return part !== '' && encodePart(part) === encoded ? part : null
  } catch {
    return null
  }
}
