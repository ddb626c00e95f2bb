/**
 * Where backups are kept: objects with names, as a directory or an object store has them. Names are parts joined by `/`; each part
 * is any text that is not empty.
 *
 * 1. `put` replaces an object as a whole: whoever reads it meanwhile or after a crash gets the old bytes or the new ones.
 *    It is durable when it resolves.
 * 2. `get` rejects with ServiceError BackendFailure for an object that is not there.
 * 3. `remove` of what is not there succeeds.
 */
export interface BackupTarget {
  /** As records of backups name it: a record goes to the kind of target that it came from. */
  readonly service: string
  put(name: string, bytes: Buffer): Promise<void>
  get(name: string): Promise<Buffer>
  /** The names that stand directly below a prefix, without it, in no order. */
  list(prefix: string): Promise<string[]>
  remove(name: string): Promise<void>
}
