import { ServiceError } from '../errors.ts'
import { toPairs } from './rows.ts'

/** The JSON text of metadata after `changes`; with `replace` nothing of the old stays. */
export function mergeMetadata(json: string, changes: Readonly<Record<string, string>>, replace: boolean): string {
  return JSON.stringify(replace ? changes : { ...toPairs(json), ...changes })
}

/** Throws MetadataKeyNotFound when the key is not there. */
export function removeMetadataKey(
  json: string,
  key: string,
  owner: { owner: 'Volume' | 'Snapshot'; id: string },
): string {
  const rest = withoutKey(toPairs(json), key)
  if (rest === null) throw new ServiceError('MetadataKeyNotFound', { ...owner, key })
  return JSON.stringify(rest)
}

/** The pairs but that of the key; null when it is not among them, though every object has a `constructor`. */
export function withoutKey(pairs: Readonly<Record<string, string>>, key: string): Record<string, string> | null {
  if (!Object.hasOwn(pairs, key)) return null
  const { [key]: _, ...rest } = pairs
  return rest
}

/** All values of each key over many metadata, as `volumes/summary` shows them. */
export function collectValues(jsons: readonly string[]): Record<string, string[]> {
  const values = new Map<string, Set<string>>()
  for (const json of jsons) {
    for (const [key, value] of Object.entries(toPairs(json))) {
      const seen = values.get(key)
      if (seen === undefined) values.set(key, new Set([value]))
      else seen.add(value)
    }
  }
  return Object.fromEntries([...values].map(([key, seen]) => [key, [...seen]]))
}
