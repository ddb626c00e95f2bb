import type { Disk, FileRange } from '../runtime/disk.ts'
import { MemberFailed } from './disks/member.ts'
import type { ObjectCache } from './object-cache.ts'
import type { StoredObject } from './stored-object.ts'

/**
 * Gives slots back to the file system beside everything else, on another thread, since that may wait for the device.
 *
 * 1. Whoever asks has seen, in the same turn, that no table and no entry names the slots. So no checkpoint that is under way writes
 *    there: what it has left to write is in the overlay.
 * 2. Until they are given back nothing is placed in the object, and no checkpoint begins (`settled`): what has gone through the journal
 *    meanwhile may be on its way to the very slot.
 */
export class SlotPunches {
  readonly #disk: Pick<Disk, 'punchMany'>
  readonly #cache: ObjectCache
  #running: Promise<unknown> = Promise.resolve()

  constructor(options: { disk: Pick<Disk, 'punchMany'>; cache: ObjectCache }) {
    this.#disk = options.disk
    this.#cache = options.cache
  }

  /** The object has to be loaded, and the ranges in its file. Rejects, as `settled` does from then on, when nobody knows what was done. */
  give(object: StoredObject, ranges: readonly FileRange[]): Promise<void> {
    this.#cache.holdLoaded(object)
    object.givingBack++
    const giving = this.#punch(ranges).finally(() => {
      object.givingBack--
      this.#cache.release(object)
    })
    this.#running = Promise.all([this.#running, giving])
    this.#running.catch(() => {}) // `settled` tells
    return giving
  }

  /** Resolves when everything is given back that was begun before. */
  async settled(): Promise<void> {
    await this.#running
  }

  async #punch(ranges: readonly FileRange[]): Promise<void> {
    try {
      await this.#disk.punchMany(ranges)
    } catch (error) {
      if (!(error instanceof MemberFailed)) throw error // what was on a disk that has failed is lost as a whole
    }
  }
}
