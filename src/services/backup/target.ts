/**
 * Where backups are kept: objects with names, as a directory or an object store has them. Names are parts joined by `/`; each part
 * is any text that is not empty. No object is larger than a few MiB.
 *
 * What a target promises, each proved for every target by test/services/backup/target-contract.ts:
 *
 * 1. `put` replaces an object as a whole: whoever reads it meanwhile or after a crash gets the old bytes or the new ones.
 *    It is durable when it resolves. Bytes that arrive damaged are refused.
 * 2. What is put into a batch is there, whole and durable, when its `commit` has resolved. Before, or when that rejects, each
 *    object of it may be there or not.
 * 3. `list` may be behind what was put and removed a moment ago (a Swift is); `get` is not.
 * 4. `remove` of what is not there succeeds.
 * 5. Every method may be repeated, and used any number of times at once.
 * 6. What fails rejects with a ServiceError whose reason an operator can act on: ServiceUnavailable while the target cannot be
 *    reached, BackendFailure for the rest. No reason tells a password or a key.
 */
export interface BackupTarget {
  /** As records of backups name it: a record goes to the kind of target that it came from. */
  readonly service: string
  put(name: string, bytes: Buffer): Promise<void>
  /** For several objects that become durable together, which costs less. It ends with `commit` or `discard`. */
  batch(): Batch
  /** Null for an object that is not there. A target may put it into memory that the caller has for it, where it fits. */
  get(name: string, memory?: Buffer): Promise<Buffer | null>
  /** The names that stand directly below a directory and begin so, without the directory, in no order. */
  list(directory: string, beginning?: string): Promise<string[]>
  remove(name: string): Promise<void>
  /** Removes what is directly below a directory, what a crash left half written there too. */
  removeBelow(directory: string): Promise<void>
  close(): Promise<void>
}

export interface Batch {
  put(name: string, bytes: Buffer): Promise<void>
  commit(): Promise<void>
  /** Lets go of what was not committed. */
  discard(): Promise<void>
}
