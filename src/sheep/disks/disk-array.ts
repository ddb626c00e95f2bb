import { StoreError } from '../../errors.ts'
import type { Copy, Disk, DiskFile, FileRange, Write } from '../../runtime/disk.ts'
import { parseObjectName } from '../object-format.ts'
import type { StoredObject } from '../stored-object.ts'
import type { DiskState } from './identity.ts'
import { innerFile, type Member, MemberFailed, memberOfFile } from './member.ts'
import { type ArrayOptions, Membership, missing } from './membership.ts'
import {
  directoryOf,
  findDirectories,
  MOVING_SUFFIX,
  makeAllDirectories,
  removeFile,
  versionOf,
} from './object-files.ts'
import { Placement } from './placement.ts'

/** An open file, and the directory that its name is new in, if it is. */
export interface NamedFile {
  file: DiskFile
  directory: string | null
}

/** What is known of a disk, for people and programs. */
export interface DiskInfo {
  path: string
  id: string
  state: DiskState
  /** Why it failed; empty for others. */
  reason: string
  /** Holds the journal and the log; cannot be unplugged. */
  isFirst: boolean
  totalBytes: number
  freeBytes: number
  objects: number
}

/**
 * All disks of a node as one. The first disk ("home") has the journal, the superblock, the log, and every object that is not
 * data: maps are few, and without them nobody could say what a lost disk held. A data object is a file on any one disk.
 *
 * 1. Paths below `obj/` go to the disk that has the object; all others to the first disk. A new object's disk is chosen by
 *    `Placement.place`: at random, weighted by room.
 * 2. A disk other than the first that fails is taken out, for good: `onLost` is told, and whatever touches it is answered
 *    with MemberFailed. The list on the first disk says so before a checkpoint or a sync of the journal relies on it
 *    (`Membership.save`).
 * 3. An object has one file. A move makes the second durable before the first goes, and both are the same until then; what a
 *    crash leaves of that is cleared at the start.
 */
export class DiskArray implements Disk {
  readonly #reserveBytes: number
  /** Which disks there are. */
  readonly membership: Membership
  /** Which object is on which of them. */
  readonly placement: Placement

  private constructor(membership: Membership, options: ArrayOptions) {
    this.#reserveBytes = options.reserveBytes
    this.membership = membership
    this.placement = new Placement(membership, options)
  }

  /**
   * Opens what the list names and takes in what is configured besides. Throws DiskFailed when a disk is missing, is in use by
   * another process, or is not what it is taken for; the message says what to do.
   */
  static async open(home: Disk, options: ArrayOptions): Promise<DiskArray> {
    const unusable = new Map<string, string>()
    for (;;) {
      const array = new DiskArray(new Membership(home, options, unusable), options)
      try {
        await array.membership.open()
        await array.#findAll()
        return array
      } catch (error) {
        await array.close()
        if (!(error instanceof MemberFailed)) throw error
        if (!options.disks?.without.includes(error.path)) throw missing(error.path, error.reason)
        unusable.set(error.path, error.reason)
      }
    }
  }

  async #findAll(): Promise<void> {
    for (const member of this.membership.members) {
      await member.guard('listing', () => findDirectories(member))
      if (member.takesNew) await member.guard('making a directory', () => makeAllDirectories(member))
    }
    for (const member of this.membership.members) if (member.state === 'leaving') await this.#syncRemovals(member)
    if (this.membership.isSpread) await this.#findObjects()
    for (const { failure } of this.membership.members) if (failure) throw failure
  }

  /**
   * An earlier process may have removed the files of objects that it had moved, and ended before that was durable: they must not
   * be there again after a loss of power, when the objects have changed.
   */
  async #syncRemovals(member: Member): Promise<void> {
    await member.guard('syncing directories', () => member.disk.syncMany([], [...member.directories]))
  }

  /** Where the objects are, on a start. */
  async #findObjects(): Promise<void> {
    for (const path of new Set(this.membership.members.flatMap((member) => [...member.directories]))) {
      const onHome = new Set(await this.home.disk.list(path))
      for (const member of this.membership.members) {
        const names = member.isHome ? onHome : await member.guard('listing', () => member.disk.list(path))
        for (const name of names) {
          if (name.endsWith(MOVING_SUFFIX)) await removeFile(member, `${path}/${name}`)
          else if (!member.isHome) await this.#found(member, path, name, onHome)
        }
      }
    }
  }

  async #found(member: Member, directory: string, name: string, onHome: ReadonlySet<string>): Promise<void> {
    const parsed = parseObjectName(name)
    if (!parsed) {
      const path = `${member.path}/${directory}/${name}`
      throw new StoreError('DiskFailed', `${path} is not a file of the store; move it away`)
    }
    if (parsed.tag !== 0) return // the journal says whose it is, and on which disk
    const { oid } = parsed
    const other = this.placement.knownPlaceOf(oid) ?? (onHome.has(name) ? this.home : null)
    const kept = other === null ? member : await this.#keepOne(`${directory}/${name}`, other, member)
    this.placement.moveTo(oid, kept)
  }

  /** A crash has left an object on two disks. They are the same, or the one with the higher version is newer. */
  async #keepOne(path: string, a: Member, b: Member): Promise<Member> {
    const kept = (await versionOf(a, path)) >= (await versionOf(b, path)) ? a : b
    const other = kept === a ? b : a
    // The name of the one that stays may be in the page cache only.
    await kept.guard('syncing a directory', () => kept.disk.syncDirectory(directoryOf(path)))
    await removeFile(other, path)
    return kept
  }

  get home(): Member {
    return this.membership.home
  }

  async info(homeObjects: number): Promise<DiskInfo[]> {
    await this.membership.prove()
    await this.membership.refresh()
    const reserveBytes = this.#reserveBytes
    const known = this.membership.members.map((member) => ({
      path: member.path,
      id: member.id,
      state: member.state,
      reason: member.reason,
      isFirst: member.isHome,
      totalBytes: member.failure ? 0 : member.volume.totalBytes,
      freeBytes: member.failure ? 0 : Math.max(0, member.volume.freeBytes - reserveBytes),
      objects: member.isHome ? homeObjects - this.placement.apart : member.objects,
    }))
    const absent = this.membership.absent.map((disk) => ({
      ...disk,
      isFirst: false,
      totalBytes: 0,
      freeBytes: 0,
      objects: 0,
    }))
    return [...known, ...absent]
  }

  // What follows is the Disk port.

  async open(path: string, options?: { create?: boolean; empty?: boolean }): Promise<DiskFile> {
    const member = this.#memberOfPath(path)
    if (options?.create) {
      await this.makeDirectoryOn(member, directoryOf(path))
      noteChange(member, path)
    }
    return member.open(path, options)
  }

  openNow(path: string): DiskFile | null {
    return this.#memberOfPath(path).openNow(path)
  }

  #memberOfPath(path: string): Member {
    if (!this.membership.isSpread || !path.startsWith('obj/')) return this.home
    const parsed = parseObjectName(nameOf(path))
    return parsed ? this.placement.placeOf(parsed.oid) : this.home
  }

  createNow(path: string): DiskFile {
    const member = this.#memberOfPath(path)
    noteChange(member, path)
    return member.createNow(path)
  }

  async createMany(paths: readonly string[]): Promise<DiskFile[]> {
    const files = new Map<string, DiskFile>()
    try {
      for (const [member, part] of groupBy(paths, (path) => this.#memberOfPath(path))) {
        for (const directory of new Set(part.map(directoryOf))) await this.makeDirectoryOn(member, directory)
        for (const path of part) noteChange(member, path)
        const made = await member.createMany(part)
        made.forEach((file, i) => {
          files.set(part[i]!, file)
        })
      }
    } catch (error) {
      for (const file of files.values()) await file.close()
      throw error
    }
    return paths.map((path) => files.get(path)!)
  }

  /** On all disks. */
  async makeDirectory(path: string): Promise<void> {
    for (const member of [...this.membership.members]) {
      if (!member.failure) await toleratingLoss(this.makeDirectoryOn(member, path))
    }
  }

  /** Makes a directory for objects on one disk, durably, unless it is there. */
  async makeDirectoryOn(member: Member, path: string): Promise<void> {
    if (!path.startsWith('obj/') || member.directories.has(path)) return
    await member.prove() // nothing is made where a disk was mounted that is not there any more
    await member.guard('making a directory', async () => {
      await member.disk.makeDirectory(path)
      await member.disk.syncDirectory('obj')
      await member.disk.syncDirectory('.')
    })
    member.directories.add(path)
  }

  async list(path: string): Promise<string[]> {
    if (path !== 'obj' && !path.startsWith('obj/')) return this.home.disk.list(path)
    const names = new Set<string>()
    for (const member of [...this.membership.members]) {
      if (member.failure) continue
      for (const name of await member.guard('listing', () => member.disk.list(path))) names.add(name)
    }
    return [...names].filter((name) => !name.endsWith(MOVING_SUFFIX))
  }

  async listBelow(path: string): Promise<string[]> {
    const names = new Set<string>()
    for (const member of [...this.membership.members]) {
      if (member.failure) continue
      for (const name of await member.guard('listing', () => member.disk.listBelow(path))) names.add(name)
    }
    return [...names].filter((name) => !name.endsWith(MOVING_SUFFIX))
  }

  async rename(from: string, to: string): Promise<void> {
    const member = this.#memberOfPath(from)
    noteChange(member, from)
    noteChange(member, to)
    await member.guard('renaming', () => member.disk.rename(from, to))
  }

  /** On each disk: a file of an object that was removed may be elsewhere than the one of an object that has its name now. */
  async unlink(path: string): Promise<void> {
    if (!path.startsWith('obj/')) return this.home.disk.unlink(path)
    for (const member of [...this.membership.members]) {
      if (member.failure || !member.directories.has(directoryOf(path))) continue
      noteChange(member, path)
      await toleratingLoss(member.guard('removing a file', () => member.disk.unlink(path)))
    }
  }

  /**
   * Removes the file of a removed object that is on another disk than the object that has its name now. Durable when it resolves,
   * so that the name is never on two of them.
   */
  async unlinkStranded(object: StoredObject, path: string): Promise<void> {
    const place = this.placement.strandedPlaceOf(object)
    if (place) await toleratingLoss(removeFile(place, path))
  }

  /** Where there is something to sync. */
  async syncDirectory(path: string): Promise<void> {
    if (!path.startsWith('obj/')) return this.home.disk.syncDirectory(path)
    for (const member of [...this.membership.members]) {
      if (member.failure || !member.changed.delete(path)) continue
      try {
        await member.guard('syncing a directory', () => member.disk.syncDirectory(path))
      } catch (error) {
        member.changed.add(path)
        throw error
      }
    }
  }

  async space(): Promise<{ totalBytes: number; freeBytes: number }> {
    await this.membership.refresh()
    return this.placement.sum(0)
  }

  async copyMany(copies: readonly Copy[]): Promise<void> {
    for (const [member, part] of groupBy(copies, (copy) => memberOfFile(copy.to) ?? this.home)) {
      if (member.failure) throw member.failure
      const plain = part.map((copy) => ({ ...copy, from: innerFile(copy.from), to: innerFile(copy.to) }))
      try {
        await member.disk.copyMany(plain)
      } catch (error) {
        const isReading = (error as NodeJS.ErrnoException).syscall === 'read'
        const culprit = isReading ? (memberOfFile(part[0]!.from) ?? this.home) : member
        throw await culprit.judge('copying', error)
      }
      if (member.failure) throw member.failure as MemberFailed
    }
  }

  async writeMany(writes: readonly Write[]): Promise<void> {
    for (const [member, part] of groupBy(writes, (write) => memberOfFile(write.to) ?? this.home)) {
      const plain = part.map((write) => ({ ...write, to: innerFile(write.to) }))
      await member.guard('writing', () => member.disk.writeMany(plain))
    }
  }

  async punchMany(ranges: readonly FileRange[]): Promise<void> {
    for (const [member, part] of groupBy(ranges, ({ file }) => memberOfFile(file) ?? this.home)) {
      const plain = part.map((range) => ({ ...range, file: innerFile(range.file) }))
      await member.guard('giving space back', () => member.disk.punchMany(plain))
    }
  }

  async syncMany(files: readonly DiskFile[], directories: readonly string[] = []): Promise<void> {
    const groups = groupBy(files, (file) => memberOfFile(file) ?? this.home)
    for (const member of this.membership.members) if (!member.failure && !groups.has(member)) groups.set(member, [])
    await allOf([...groups].map(([member, part]) => this.#syncOn(member, part.map(innerFile), directories)))
  }

  /** Files of one disk, and those of the directories below `obj/` in which something has changed there. */
  async #syncOn(member: Member, files: readonly DiskFile[], directories: readonly string[]): Promise<void> {
    const changed = directories.filter((directory) => member.changed.delete(directory))
    if (files.length + changed.length === 0) return
    try {
      await member.guard('syncing', () => member.disk.syncMany(files, changed))
    } catch (error) {
      for (const directory of changed) member.changed.add(directory)
      throw error
    }
  }

  /**
   * Makes files durable, and the names of new ones. A disk that fails is no failure: once the list says so, what only it had is
   * lost, and nothing that was there is taken for what it was before. `changed` stays, and is not asked: a checkpoint beside this one
   * waits for a sync of its own, and this one does not rely on one that is under way.
   */
  async syncPlaced(files: readonly NamedFile[]): Promise<void> {
    const groups = [...groupBy(files, ({ file }) => memberOfFile(file) ?? this.home)]
    try {
      await allOf(
        groups.map(([member, part]) => {
          const directories = new Set(part.map(({ directory }) => directory).filter((directory) => directory !== null))
          const inner = part.map(({ file }) => innerFile(file))
          return member.guard('syncing', () => member.disk.syncMany(inner, [...directories]))
        }),
      )
    } catch (error) {
      if (!(error instanceof MemberFailed)) throw error
    }
    await this.membership.save()
  }

  startWriteback(files: readonly DiskFile[]): void {
    for (const [member, part] of groupBy(files, (file) => memberOfFile(file) ?? this.home)) {
      if (!member.failure) member.disk.startWriteback(part.map(innerFile))
    }
  }

  cacheIdentity(): Promise<string> {
    return this.home.disk.cacheIdentity()
  }

  lock(path: string): Promise<{ release(): Promise<void> } | null> {
    return this.home.disk.lock(path)
  }

  /** Lets go of all disks but the first. */
  close(): Promise<void> {
    return this.membership.close()
  }
}

const nameOf = (path: string) => path.slice(path.lastIndexOf('/') + 1)

function noteChange(member: Member, path: string): void {
  member.changed.add(directoryOf(path))
}

function groupBy<T, K>(items: readonly T[], keyOf: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>()
  for (const item of items) {
    const key = keyOf(item)
    const group = groups.get(key)
    if (group) group.push(item)
    else groups.set(key, [item])
  }
  return groups
}

/** Waits for work on several disks. */
async function allOf(work: readonly Promise<void>[]): Promise<void> {
  const outcomes = await Promise.allSettled(work)
  const errors = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []))
  // What fails the node comes first: whoever can go on without a disk must not take it for that.
  const worst = errors.find((error) => !(error instanceof MemberFailed)) ?? errors[0]
  if (worst) throw worst
}

async function toleratingLoss(work: Promise<void>): Promise<void> {
  try {
    await work
  } catch (error) {
    if (!(error instanceof MemberFailed)) throw error
  }
}
