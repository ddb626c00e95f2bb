import { StoreError } from '../../errors.ts'
import type { Log } from '../../runtime/log.ts'
import type { Checkpointer } from '../checkpoint.ts'
import type { Journal } from '../journal.ts'
import type { KeptSlots } from '../kept-slots.ts'
import type { ObjectCache } from '../object-cache.ts'
import { BLOCK_BYTES, OBJECT_TAIL_BYTES } from '../object-format.ts'
import type { StoredObject } from '../stored-object.ts'
import type { DiskArray, DiskInfo } from './disk-array.ts'
import { Evacuation } from './evacuation.ts'
import { Member } from './member.ts'

/** Objects that have left a disk, of those that were on it. */
export interface UnplugProgress {
  moved: number
  total: number
}

/**
 * The disks of a store that is running.
 *
 * 1. `plug` takes an empty directory in; new objects come to it from then on.
 * 2. `unplug` moves what a disk holds to the others while I/O goes on, and then forgets it. A crash in between is no matter: the
 *    next start goes on with it. A disk that has failed is forgotten when the journal does not name anything of it any more.
 * 3. When a disk fails, the objects on it are lost and answer DiskFailed, but for those that the journal has as a whole: they go
 *    to another disk. Of an object that a large write has made it has not. A write is not acknowledged any more once its object
 *    is lost.
 */
export class StoreDisks {
  readonly #disks: DiskArray
  readonly #cache: ObjectCache
  readonly #journal: Journal
  readonly #checkpointer: Checkpointer
  readonly #kept: KeptSlots
  readonly #log: Log
  readonly #leaving = new Map<Member, Evacuation>()
  #isStopped = false

  constructor(options: {
    disks: DiskArray
    cache: ObjectCache
    journal: Journal
    checkpointer: Checkpointer
    kept: KeptSlots
    log: Log
  }) {
    this.#disks = options.disks
    this.#cache = options.cache
    this.#journal = options.journal
    this.#checkpointer = options.checkpointer
    this.#kept = options.kept
    this.#log = options.log
    this.#disks.membership.onLost = (member) => this.#lose(member)
  }

  list(): Promise<DiskInfo[]> {
    return this.#disks.info(this.#cache.size)
  }

  /** Why an object may be gone that a map names; null when no disk has failed. */
  lossOf(oid: bigint): StoreError | null {
    return this.#disks.placement.lossOf(oid)
  }

  /** Throws InvalidParameters when the directory cannot become a disk; the message says why. */
  async plug(path: string): Promise<void> {
    await this.#disks.membership.plug(path)
  }

  /**
   * Resolves when nothing of the store is on the disk any more. Throws InvalidParameters for the first disk and for what is no
   * disk, NoSpace when the others have no room (then the disk stays), DiskFailed when it fails meanwhile, and Stopping when the
   * node stops before it is done.
   */
  async unplug(path: string): Promise<UnplugProgress> {
    if (this.#isStopped) throw new StoreError('Stopping')
    const found = this.#disks.membership.find(path)
    if (!found) throw new StoreError('InvalidParameters', `${path} is no disk of this store`)
    if (!(found instanceof Member) || found.failure) {
      if (found instanceof Member) await this.#emptyJournal()
      await this.#disks.membership.drop(path)
      return { moved: 0, total: 0 }
    }
    if (found.isHome) {
      throw new StoreError('InvalidParameters', `${path} holds the journal and the maps; it cannot be unplugged`)
    }
    return this.#evacuate(found)
  }

  /** A replay that finds a disk named which it knows nothing of would take what was there for torn. */
  async #emptyJournal(): Promise<void> {
    await new Promise<void>((resolve, reject) => this.#journal.sync((error) => (error ? reject(error) : resolve())))
    await this.#checkpointer.between(async () => {})
    this.#journal.seal()
    await this.#checkpointer.between(async () => {})
  }

  /** How far an unplugging is; null when there is none. */
  progressOf(path: string): UnplugProgress | null {
    for (const [member, evacuation] of this.#leaving) if (member.path === path) return evacuation.progress
    return null
  }

  /** Goes on with what an earlier process had begun. */
  resume(): void {
    for (const member of this.#disks.membership.members) {
      if (member.state !== 'leaving') continue
      this.#log.info({ disk: member.path, objects: member.objects }, 'going on with the unplugging of a disk')
      this.#evacuate(member).catch((error) => {
        this.#log.error({ err: error, disk: member.path }, 'unplugging a disk did not succeed')
      })
    }
  }

  #evacuate(member: Member): Promise<UnplugProgress> {
    const running = this.#leaving.get(member)
    if (running) return running.done
    const evacuation = new Evacuation({
      member,
      disks: this.#disks,
      cache: this.#cache,
      journal: this.#journal,
      checkpointer: this.#checkpointer,
      kept: this.#kept,
    })
    this.#leaving.set(member, evacuation)
    const forget = () => this.#leaving.delete(member)
    evacuation.done.then(forget, forget)
    return evacuation.done
  }

  /** Ends what is under way; the next start goes on with it. */
  async stop(): Promise<void> {
    this.#isStopped = true
    for (const evacuation of this.#leaving.values()) evacuation.stop()
    await Promise.allSettled([...this.#leaving.values()].map((evacuation) => evacuation.done))
  }

  /** A disk has failed: what only it had is lost. */
  #lose(member: Member): void {
    for (const oid of this.#disks.placement.oidsOn(member)) {
      for (const object of this.#disks.placement.removingOf(oid)) this.#cache.lose(object, member.failure)
      const object = this.#cache.peek(oid)
      if (!object) continue
      if (object.fresh && object.tag === 0) this.#placeAgain(object)
      else this.#cache.lose(object, member.failure)
    }
  }

  /** The journal has all of a fresh object without placed blocks: its file, if there is one already, is made again elsewhere. */
  #placeAgain(object: StoredObject): void {
    this.#cache.exchangeFile(object, null)
    const bytes = OBJECT_TAIL_BYTES + object.overlay.size * BLOCK_BYTES
    this.#disks.placement.place(object.oid, bytes)
    this.#disks.placement.promise(this.#journal.generation, object.oid, bytes)
  }
}
