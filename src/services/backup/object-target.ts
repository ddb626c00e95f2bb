import { inParallel } from './in-parallel.ts'
import { decodePart, encodeName } from './names.ts'
import type { BackupTarget } from './target.ts'

/** What S3 and Swift have in common: objects below keys, in one place that the operator names. */
export interface ObjectStore {
  readonly service: string
  put(key: string, bytes: Buffer): Promise<void>
  /** Null when there is none. */
  get(key: string): Promise<Buffer | null>
  /** One page of the keys that begin so, each up to the next `/`, with that; `after` is what the page before said is next. */
  list(prefix: string, after: string | null): Promise<{ keys: string[]; next: string | null }>
  remove(key: string): Promise<void>
  close(): void
}

const REMOVALS_AT_ONCE = 8

/**
 * Backups in an object store. An object is small and sent in one request, so that it is there as a whole or not at all, and nothing
 * unfinished stays behind for anybody to clear away.
 */
export function createObjectTarget(store: ObjectStore): BackupTarget {
  async function list(directory: string, beginning: string): Promise<string[]> {
    const prefix = directory === '' ? '' : `${encodeName(directory)}/`
    // Of what the user's text begins with, encoded, every character is a character of the key.
    const start = prefix + encodeName(beginning)
    const names: string[] = []
    let after: string | null = null
    do {
      const page = await store.list(start, after)
      for (const key of page.keys) {
        const name = decodePart(key.slice(prefix.length).replace(/\/$/, ''))
        if (name !== null) names.push(name)
      }
      after = page.next
    } while (after !== null)
    return names
  }

  const put = (name: string, bytes: Buffer) => store.put(encodeName(name), bytes)
  const remove = (name: string) => store.remove(encodeName(name))
  return {
    service: store.service,
    put,
    batch: () => ({ put, commit: async () => {}, discard: async () => {} }),
    get: (name) => store.get(encodeName(name)),
    list: (directory, beginning = '') => list(directory, beginning),
    remove,
    removeBelow: async (directory) => {
      const names = await list(directory, '')
      await inParallel(names, REMOVALS_AT_ONCE, (name) => remove(`${directory}/${name}`))
    },
    close: async () => store.close(),
  }
}
