import type { FileSync } from '../runtime/file-sync.ts'

/**
 * What a database has written and not yet synced. Commits that come while a sync runs share the next one, and nobody waits
 * on the processor for the disk.
 *
 * A failed sync is final: the kernel may drop the pages and call the next one a success. From then on nothing is durable.
 */
export class CommitLog {
  readonly #file: FileSync
  #hasUnsynced = false
  #running: Promise<void> | null = null
  #next: Promise<void> | null = null
  #failure: { error: unknown } | null = null

  constructor(file: FileSync) {
    this.#file = file
  }

  /** A commit is in the file. */
  wrote(): void {
    this.#hasUnsynced = true
  }

  /** Null when all that was written is durable, else what resolves when it is; rejects when it may never be. */
  durable(): Promise<void> | null {
    if (this.#failure !== null) return Promise.reject(this.#failure.error)
    if (!this.#hasUnsynced) return this.#running
    if (this.#running === null) return this.#sync()
    this.#next ??= this.#running.then(() => this.#sync())
    return this.#next
  }

  close(): void {
    this.#file.close()
  }

  #sync(): Promise<void> {
    this.#next = null
    this.#hasUnsynced = false
    const running = this.#run().finally(() => {
      if (this.#running === running) this.#running = null
    })
    this.#running = running
    return running
  }

  async #run(): Promise<void> {
    try {
      await this.#file.sync()
    } catch (error) {
      this.#failure = { error }
      throw error
    }
  }
}
