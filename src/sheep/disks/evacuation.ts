import { StoreError } from '../../errors.ts'
import type { Copy, DiskFile } from '../../runtime/disk.ts'
import type { Checkpointer } from '../checkpoint.ts'
import type { Journal } from '../journal.ts'
import type { KeptSlots } from '../kept-slots.ts'
import type { ObjectCache } from '../object-cache.ts'
import { BLOCK_BYTES, OBJECT_TAIL_BYTES, objectPath } from '../object-format.ts'
import type { StoredObject } from '../stored-object.ts'
import type { DiskArray } from './disk-array.ts'
import { type Member, MemberFailed } from './member.ts'
import { MOVING_SUFFIX } from './object-files.ts'
import type { UnplugProgress } from './store-disks.ts'

/** Objects that are moved between two checkpoints: few, so that writes do not wait for them. */
const BATCH = 8

/**
 * Moves every object of a disk to others, while the store is in use, and then drops the disk.
 *
 * A batch goes between two checkpoints, so that nobody writes the files meanwhile. Each file is copied under a name of its own,
 * synced, renamed, and the directory synced; only then is the first one removed, and that synced too. So at any moment there is
 * a whole file, and when there are two they are the same, also after loss of power: large writes that went to the first one and
 * were not synced are synced before the copy counts, no large write goes to either, and no later checkpoint can have changed one
 * of them. When the first disk fails before its files are gone, the list says so before the others change. What reads the first
 * file keeps it open until it is done.
 */
export class Evacuation {
  readonly #member: Member
  readonly #disks: DiskArray
  readonly #cache: ObjectCache
  readonly #journal: Journal
  readonly #checkpointer: Checkpointer
  readonly #kept: KeptSlots
  #isStopped = false
  readonly progress: UnplugProgress
  readonly done: Promise<UnplugProgress>

  constructor(options: {
    member: Member
    disks: DiskArray
    cache: ObjectCache
    journal: Journal
    checkpointer: Checkpointer
    kept: KeptSlots
  }) {
    this.#member = options.member
    this.#disks = options.disks
    this.#cache = options.cache
    this.#journal = options.journal
    this.#checkpointer = options.checkpointer
    this.#kept = options.kept
    this.progress = { moved: 0, total: options.member.objects }
    this.done = this.#run()
  }

  stop(): void {
    this.#isStopped = true
  }

  async #run(): Promise<UnplugProgress> {
    await this.#disks.membership.setState(this.#member, 'leaving')
    try {
      await this.#kept.giveAllBack()
      await this.#moveAll()
    } catch (error) {
      // Without room the disk stays; what has moved is where it is.
      if (error instanceof StoreError && error.code === 'NoSpace')
        await this.#disks.membership.setState(this.#member, 'ok')
      throw error
    }
    await this.#disks.membership.drop(this.#member.path)
    return this.progress
  }

  async #moveAll(): Promise<void> {
    // Another disk that is leaving may be about to bring objects here: that ends first.
    await this.#checkpointer.between(async () => {})
    while (this.#member.objects > 0) {
      let isStuck = true
      const oids = this.#disks.placement.oidsOn(this.#member)
      this.progress.total = this.progress.moved + oids.length
      for (let first = 0; first < oids.length; first += BATCH) {
        const moved = await this.#checkpointer.between(() => this.#moveBatch(oids.slice(first, first + BATCH)))
        this.progress.moved += moved
        if (moved > 0) isStuck = false
      }
      // What is left is new, or is being removed: a checkpoint makes, or removes, its file.
      if (isStuck) {
        this.#journal.seal()
        await this.#checkpointer.between(async () => {})
      }
    }
  }

  /** How many of these objects have left the disk. */
  async #moveBatch(oids: readonly bigint[]): Promise<number> {
    if (this.#isStopped) throw new StoreError('Stopping', `${this.#member.path} is left as it is until the next start`)
    const moves: Move[] = []
    let placed = 0
    try {
      for (const oid of oids) {
        if (this.#disks.placement.placeOf(oid) !== this.#member || this.#disks.placement.isRemoving(oid)) continue
        const object = this.#cache.peek(oid)
        if (!object?.fresh) moves.push(await this.#begin(oid, object))
        else if (!object.file) {
          this.#placeElsewhere(object)
          placed++
        }
      }
      await this.#finish(moves)
      return placed + moves.length
    } catch (error) {
      if (this.#member.failure) await this.#disks.membership.save()
      // When the disk that they were going to has failed, they go to another one.
      if (error instanceof MemberFailed && !this.#member.failure) return placed
      if ((error as NodeJS.ErrnoException).code === 'ENOSPC') throw this.#noRoom()
      throw error
    } finally {
      for (const move of moves) {
        await this.#end(move)
        this.#disks.placement.moving.delete(move.oid)
      }
      await this.#disks.membership.refresh()
    }
  }

  /** The object has no file yet: its checkpoint makes it elsewhere. */
  #placeElsewhere(object: StoredObject): void {
    const bytes = OBJECT_TAIL_BYTES + object.overlay.size * BLOCK_BYTES
    this.#disks.placement.moveTo(object.oid, this.#target(bytes))
    this.#disks.placement.promise(this.#journal.generation, object.oid, bytes)
  }

  #target(bytes: number): Member {
    const target = this.#disks.placement.placeFor(bytes, this.#member)
    if (!target) throw this.#noRoom()
    return target
  }

  #noRoom(): StoreError {
    return new StoreError('NoSpace', `the other disks have no room for what is on ${this.#member.path}`)
  }

  async #begin(oid: bigint, object: StoredObject | undefined): Promise<Move> {
    const path = objectPath(oid)
    this.#disks.placement.moving.add(oid)
    const held = object && (await this.#hold(object)) ? object : null
    const opened: DiskFile[] = []
    try {
      const from = await this.#member.open(path)
      opened.push(from)
      const ranges = await from.dataRanges()
      const bytes = ranges.reduce((sum, range) => sum + range.length, 0)
      const target = this.#target(bytes)
      await this.#disks.makeDirectoryOn(target, path.slice(0, path.lastIndexOf('/')))
      const to = await target.open(path + MOVING_SUFFIX, { create: true })
      opened.push(to)
      await to.truncate(0)
      await to.truncate(await from.size())
      target.volume.freeBytes -= bytes // the others of the batch find the room that is left
      return { oid, path, held, from, to, target, ranges, state: 'copying' }
    } catch (error) {
      for (const file of opened) await file.close()
      if (held) this.#cache.release(held)
      this.#disks.placement.moving.delete(oid)
      throw error
    }
  }

  /** Nobody opens the file of an object that is loaded. One whose header is damaged cannot be, and moves as it is. */
  async #hold(object: StoredObject): Promise<boolean> {
    try {
      await this.#cache.holdObject(object)
      return true
    } catch (error) {
      if (error instanceof StoreError && error.code === 'CorruptBlock') return false
      throw error
    }
  }

  async #finish(moves: readonly Move[]): Promise<void> {
    await this.#disks.copyMany(moves.flatMap(copiesOf))
    await this.#disks.syncMany(moves.flatMap(({ from, to }) => [from, to]))
    for (const move of moves) {
      const { path, target } = move
      await target.guard('renaming', () => target.disk.rename(path + MOVING_SUFFIX, path))
      move.state = 'named'
    }
    await syncDirectories(moves.map(({ path, target }) => ({ member: target, path })))
    if (this.#member.failure) throw this.#member.failure
    for (const move of moves) this.#adopt(move)
    const sources = moves.map(({ path }) => ({ member: this.#member, path }))
    for (const { member, path } of sources) await member.guard('removing a file', () => member.disk.unlink(path))
    await syncDirectories(sources)
  }

  /** From here on the object is where it was moved to, and also one that has been given its name meanwhile. */
  #adopt(move: Move): void {
    this.#disks.placement.moveTo(move.oid, move.target)
    move.state = 'adopted'
    if (!move.held?.file) return
    this.#cache.exchangeFile(move.held, move.to)
    move.state = 'in use'
  }

  /** A copy that the object was not moved to must not be there when it changes. */
  async #end({ path, held, from, to, target, state }: Move): Promise<void> {
    await from.close()
    if (state !== 'in use') await to.close()
    if (held) this.#cache.release(held)
    if ((state !== 'copying' && state !== 'named') || target.failure) return
    const copy = state === 'copying' ? path + MOVING_SUFFIX : path
    try {
      await target.guard('removing a file', () => target.disk.unlink(copy))
      await syncDirectories([{ member: target, path }])
    } catch (error) {
      if (!(error instanceof MemberFailed)) throw error
    }
  }
}

interface Move {
  oid: bigint
  path: string
  /** The object, unless it cannot be loaded. */
  held: StoredObject | null
  from: DiskFile
  to: DiskFile
  target: Member
  ranges: { position: number; length: number }[]
  /** The copy has a name of its own; the object's name; is the object's; and is open as its file. */
  state: 'copying' | 'named' | 'adopted' | 'in use'
}

async function syncDirectories(files: readonly { member: Member; path: string }[]): Promise<void> {
  const synced = new Set<string>()
  for (const { member, path } of files) {
    const directory = path.slice(0, path.lastIndexOf('/'))
    const key = `${member.path}/${directory}`
    if (synced.has(key)) continue
    synced.add(key)
    await member.guard('syncing a directory', () => member.disk.syncDirectory(directory))
  }
}

function copiesOf({ from, to, ranges }: Move): Copy[] {
  return ranges.map(({ position, length }) => ({ from, fromPosition: position, to, toPosition: position, length }))
}
