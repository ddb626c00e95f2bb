import { StoreError } from '../../errors.ts'
import { formatOid, oidKind } from '../../protocol/oid.ts'
import type { Copy, Disk, DiskFile, OpenDisk, Write } from '../../runtime/disk.ts'
import type { Log } from '../../runtime/log.ts'
import type { Random } from '../../runtime/random.ts'
import { BLOCK_BYTES, decodeHeader, HEADER_OFFSET, objectDirectory, parseObjectName } from '../object-format.ts'
import type { StoredObject } from '../stored-object.ts'
import { type DiskState, type ListedDisk, readDiskList, removeIdentity, shortIdOf, writeDiskList } from './identity.ts'
import { type Joined, joinDisk, rejoinDisk } from './joining.ts'
import { innerFile, Member, MemberFailed, memberOfFile } from './member.ts'
import { Volume } from './volume.ts'

/** An open file, and the directory that its name is new in, if it is. */
export interface NamedFile {
  file: DiskFile
  directory: string | null
}

/** The disks beside the first one. */
export interface DisksOptions {
  open: OpenDisk
  /** The directory of the first disk, and its file system. */
  homePath: string
  homeDevice: string
  /** Directories that are disks of this store, or become it. */
  configured: readonly string[]
  /** Disks to start without, although the store has objects on them. */
  without: readonly string[]
}

interface ArrayOptions {
  storeId: Buffer
  random: Random
  log: Log
  reserveBytes: number
  disks?: DisksOptions
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

const DIRECTORY_COUNT = 256
/** The name of a copy that is not finished yet; see Evacuation. */
export const MOVING_SUFFIX = '.moving'

/**
 * All disks of a node as one. The first disk ("home") has the journal, the superblock, the log, and every object that is not
 * data: maps are few, and without them nobody could say what a lost disk held. A data object is a file on any one disk.
 *
 * 1. Paths below `obj/` go to the disk that has the object; all others to the first disk. A new object's disk is chosen by
 *    `place`: at random, weighted by room.
 * 2. A disk other than the first that fails is taken out, for good: `onLost` is told, and whatever touches it is answered
 *    with MemberFailed. The list on the first disk says so before a checkpoint relies on it (`save`).
 * 3. An object has one file. A move makes the second durable before the first goes, and both are the same until then; what a
 *    crash leaves of that is cleared at the start.
 */
export class DiskArray implements Disk {
  readonly #options: ArrayOptions
  /** Disks that this start has found to fail, and why. */
  readonly #unusable: ReadonlyMap<string, string>
  readonly home: Member
  readonly #members: Member[]
  /** Disks that failed before this start: nothing of them is open. */
  #absent: ListedDisk[] = []
  /** Objects that are not on the first disk. */
  readonly #places = new Map<bigint, Member>()
  /** Objects that are removed, though not in the files yet, by name; and whether there is one of that name again. */
  readonly #removing = new Map<bigint, { objects: Set<StoredObject>; isMadeAgain: boolean; place: Member }>()
  /** Objects that may have two files at the moment, which have to stay the same; see Evacuation. */
  readonly moving = new Set<bigint>()
  #isSaved = true
  /** Disks that have failed since the start. */
  failures = 0
  /** Told when a disk has failed. Its objects keep their place until `moveTo` gives them another. */
  onLost: (member: Member) => void = () => {}

  private constructor(home: Disk, options: ArrayOptions, unusable: ReadonlyMap<string, string>) {
    this.#options = options
    this.#unusable = unusable
    this.home = new Member({
      id: options.storeId.toString('hex'),
      path: options.disks?.homePath ?? 'sheep',
      disk: home,
      volume: new Volume(options.disks?.homeDevice ?? ''),
      state: 'ok',
      identity: null,
      onFailed: () => {},
      release: async () => {},
    })
    this.#members = [this.home]
  }

  /**
   * Opens what the list names and takes in what is configured besides. Throws DiskFailed when a disk is missing, is in use by
   * another process, or is not what it is taken for; the message says what to do.
   */
  static async open(home: Disk, options: ArrayOptions): Promise<DiskArray> {
    const unusable = new Map<string, string>()
    for (;;) {
      const array = new DiskArray(home, options, unusable)
      try {
        await array.#openAll()
        return array
      } catch (error) {
        await array.close()
        if (!(error instanceof MemberFailed)) throw error
        if (!options.disks?.without.includes(error.path)) throw missing(error.path, error.reason)
        unusable.set(error.path, error.reason)
      }
    }
  }

  async #openAll(): Promise<void> {
    for (const listed of await readDiskList(this.home.disk)) await this.#reopen(listed)
    for (const path of this.#options.disks?.configured ?? []) await this.#openConfigured(path)
    await this.save()
    await this.refresh()
    for (const member of this.#members) {
      await member.guard('listing', () => this.#findDirectories(member))
      if (member.takesNew) await member.guard('making a directory', () => makeAllDirectories(member))
    }
    for (const member of this.#members) if (member.state === 'leaving') await this.#syncRemovals(member)
    if (this.isSpread) await this.#findObjects()
    for (const { failure } of this.#members) if (failure) throw failure
  }

  async #reopen(listed: ListedDisk): Promise<void> {
    const { disks, storeId, log } = this.#options
    if (listed.state === 'failed') {
      log.error({ disk: listed.path, reason: listed.reason }, 'a disk of this store has failed and is not used')
      this.#absent.push(listed)
      return
    }
    // A disk is known by what it says of itself: it may be mounted elsewhere now.
    const places = [listed.path, ...(disks?.configured ?? []).filter((path) => path !== listed.path)]
    let problem: StoreError | null = null
    for (const path of places) {
      try {
        if (!disks) throw new StoreError('DiskFailed', 'this start knows of no other disks')
        const failed = this.#unusable.get(path)
        if (failed !== undefined) throw new StoreError('DiskFailed', failed)
        const joined = await rejoinDisk(disks.open, path, { store: storeId.toString('hex'), disk: listed.id })
        this.#add(joined, listed.state).listedCache = listed.cache ?? 0
        if (joined.disk.path !== listed.path) this.#isSaved = false
        return
      } catch (error) {
        if (!(error instanceof StoreError)) throw error
        problem ??= error
      }
    }
    const reason = problem?.message ?? ''
    if (!disks?.without.includes(listed.path)) throw missing(listed.path, reason)
    log.error({ disk: listed.path, reason }, 'starting without a disk: what it held is lost')
    this.#absent.push({ ...listed, state: 'failed', reason })
    this.#isSaved = false
  }

  async #openConfigured(path: string): Promise<void> {
    const { disks } = this.#options
    if (!disks || this.find(path)) return
    const joined = await joinDisk(disks.open, path, this.#joining())
    if (!joined) return
    this.#add(joined, 'ok')
    this.#isSaved = false
  }

  #joining() {
    const others = [...this.#members, ...this.#absent]
    const taken = new Set(others.map(({ id }) => shortIdOf(id)))
    let disk: string
    do disk = this.#options.random.bytes(16).toString('hex')
    while (taken.has(shortIdOf(disk)))
    const identity = { store: this.#options.storeId.toString('hex'), disk }
    return { identity, known: others.map(({ path }) => path) }
  }

  #add({ disk, identity, lock, cache }: Joined, state: DiskState): Member {
    const volume = this.#members.find((member) => member.volume.device === disk.device)?.volume
    const member = new Member({
      id: identity.disk,
      path: disk.path,
      disk,
      volume: volume ?? new Volume(disk.device),
      state,
      identity,
      onFailed: (failed) => this.#fail(failed),
      release: async () => {
        await lock.release()
        await disk.close()
      },
    })
    member.cache = cache
    member.listedCache = cache
    this.#members.push(member)
    return member
  }

  #fail(member: Member): void {
    this.failures++
    this.#isSaved = false
    this.onLost(member)
    this.#options.log.error(
      { disk: member.path, reason: member.reason, objects: member.objects },
      'a disk has failed and is taken out; what only it held is lost. Plug another one in, then `collie node disk unplug` this one',
    )
  }

  async #findDirectories(member: Member): Promise<void> {
    for (const name of await member.disk.list('obj')) member.directories.add(`obj/${name}`)
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
    for (const path of new Set(this.#members.flatMap((member) => [...member.directories]))) {
      const onHome = new Set(await this.home.disk.list(path))
      for (const member of this.#members) {
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
    const other = this.#places.get(oid) ?? (onHome.has(name) ? this.home : null)
    const kept = other === null ? member : await this.#keepOne(`${directory}/${name}`, other, member)
    this.moveTo(oid, kept)
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

  /** Whether there are disks beside the first one. */
  get isSpread(): boolean {
    return this.#members.length > 1
  }

  get members(): readonly Member[] {
    return this.#members
  }

  /** The disk at a path, as it was given or without symbolic links; among those that failed before this start, too. */
  find(path: string): Member | ListedDisk | undefined {
    return this.#members.find((member) => member.path === path) ?? this.#absent.find((disk) => disk.path === path)
  }

  /** Takes a directory in as a disk. Throws InvalidParameters, DiskFailed when it cannot be one. */
  async plug(path: string): Promise<Member> {
    const { disks, log } = this.#options
    if (!disks) throw new StoreError('Unsupported', 'this store has one disk')
    const joined = await joinDisk(disks.open, path, this.#joining())
    if (!joined) throw new StoreError('InvalidParameters', `${path} is a disk of this store already`)
    const member = this.#add(joined, 'ok')
    member.isReady = false // no object goes to a disk that the list does not have yet
    try {
      await member.guard('listing', () => this.#findDirectories(member))
      await member.guard('making a directory', () => makeAllDirectories(member))
      await this.#saveNow()
      member.isReady = true
    } catch (error) {
      this.#members.splice(this.#members.indexOf(member), 1)
      this.#isSaved = false
      await member.release()
      throw error
    }
    await this.refresh()
    log.info({ disk: member.path, id: member.id }, 'a disk was plugged in')
    return member
  }

  /** From now on no new object comes to the disk, also after the next start. */
  async setState(member: Member, state: 'ok' | 'leaving'): Promise<void> {
    if (member.failure) throw member.failure
    member.state = state
    await this.#saveNow()
  }

  /** Forgets a disk that holds nothing any more, or that has failed. */
  async drop(path: string): Promise<void> {
    const member = this.#members.find((candidate) => candidate.path === path)
    // A file that came back after a loss of power would be taken for somebody else's when the disk is plugged in again.
    if (member && !member.failure) await member.guard('leaving', () => syncNames(member.disk)).catch(() => {})
    if (member) this.#members.splice(this.#members.indexOf(member), 1)
    this.#absent = this.#absent.filter((disk) => disk.path !== path)
    await this.#saveNow()
    if (!member) return
    if (!member.failure) await member.guard('leaving', () => removeIdentity(member.disk)).catch(() => {})
    await member.release()
  }

  /** Writes the list, if a disk has come, gone or failed since. Durable when it resolves. */
  async save(): Promise<void> {
    if (this.#isSaved) await this.#saving
    else await this.#saveNow()
  }

  /** What an earlier process left in the page cache only does not matter any more. Durable when it resolves. */
  async adoptCaches(): Promise<void> {
    for (const member of this.#members) {
      if (member.isHome || member.isSameCache) continue
      member.listedCache = member.cache
      this.#isSaved = false
    }
    await this.save()
  }

  #saving: Promise<void> = Promise.resolve()

  #saveNow(): Promise<void> {
    const write = async () => {
      this.#isSaved = true
      const known = this.#members.filter((member) => !member.isHome)
      const disks = known.map(({ id, path, state, reason, listedCache }) => {
        return { id, path, state, reason, cache: listedCache }
      })
      try {
        await writeDiskList(this.home.disk, [...disks, ...this.#absent])
      } catch (error) {
        this.#isSaved = false
        throw error
      }
    }
    this.#saving = this.#saving.then(write, write)
    return this.#saving
  }

  /** Fails each disk whose directory is not that disk any more. */
  async prove(): Promise<void> {
    for (const member of [...this.#members]) await member.prove()
  }

  /** Where a data object is; the first disk for all that it does not know. */
  placeOf(oid: bigint): Member {
    return this.#places.get(oid) ?? this.home
  }

  /** The disk that a record of the journal names; undefined when it is not there any more. */
  memberOf(shortId: number): Member | undefined {
    return this.#members.find((member) => member.shortId === shortId)
  }

  /** Whether what is on no disk may have been on one that failed before this start. */
  get isMissingDisks(): boolean {
    return this.#absent.length > 0
  }

  /** Whether a large write may go into the file of an object now: it is not about to be moved, nor being moved. */
  takesPlaced(oid: bigint): boolean {
    return this.placeOf(oid).takesNew && !this.moving.has(oid)
  }

  /**
   * Chooses a disk for a new object, and for `bytes` of it, by room. One that takes the name of an object whose removal is not
   * in the files yet goes where that one is: a path must not mean two things.
   */
  place(oid: bigint, bytes: number): void {
    const removing = this.#removing.get(oid)
    if (removing) removing.isMadeAgain = true
    if (removing && !this.placeOf(oid).failure) return
    this.moveTo(oid, this.isSpread && oidKind(oid) === 'data' ? this.#choose(bytes, null) : this.home)
  }

  /** A new object has its file already, on that disk. */
  placeOn(oid: bigint, member: Member): void {
    const removing = this.#removing.get(oid)
    if (removing) removing.isMadeAgain = true
    this.moveTo(oid, member)
  }

  /** The object was not made after all. */
  unplace(oid: bigint): void {
    const removing = this.#removing.get(oid)
    if (removing) removing.isMadeAgain = false
    else this.#forget(oid)
  }

  /** A disk other than `from` that has room for an object that leaves; null when none has. */
  placeFor(bytes: number, from: Member): Member | null {
    const member = this.#choose(bytes, from)
    return member !== from && this.roomOf(member) >= bytes ? member : null
  }

  /** The object is on that disk now. */
  moveTo(oid: bigint, member: Member): void {
    this.#forget(oid)
    if (member.isHome) return
    this.#places.set(oid, member)
    member.objects++
  }

  #forget(oid: bigint): void {
    const before = this.#places.get(oid)
    if (before) before.objects--
    this.#places.delete(oid)
  }

  /** The object is being removed: its file is there until a checkpoint calls `removed`. */
  removing(object: StoredObject): void {
    const { objects = new Set<StoredObject>(), place = this.placeOf(object.oid) } = this.#removing.get(object.oid) ?? {}
    this.#removing.set(object.oid, { objects: objects.add(object), isMadeAgain: false, place })
  }

  /** The checkpoint of a removal is complete. */
  removed(object: StoredObject): void {
    const removing = this.#removing.get(object.oid)
    if (!removing?.objects.delete(object) || removing.objects.size > 0) return
    this.#removing.delete(object.oid)
    if (!removing.isMadeAgain) this.#forget(object.oid)
  }

  /** Those of a name that are being removed. */
  removingOf(oid: bigint): Iterable<StoredObject> {
    return this.#removing.get(oid)?.objects ?? []
  }

  isRemoving(oid: bigint): boolean {
    return this.#removing.has(oid)
  }

  /** The objects of a disk other than the first. */
  oidsOn(member: Member): bigint[] {
    return [...this.#places].filter(([, place]) => place === member).map(([oid]) => oid)
  }

  #choose(bytes: number, except: Member | null): Member {
    const open = this.#members.filter((member) => member.takesNew && member !== except)
    if (open.length === 1) return open[0]!
    const rooms = open.map((member) => {
      const sharing = open.filter((other) => other.volume === member.volume).length
      return { member, room: this.roomOf(member), weight: Math.max(0, this.roomOf(member)) / sharing }
    })
    const fitting = rooms.filter(({ room }) => room >= bytes)
    if (fitting.length === 0) return rooms.reduce((best, next) => (next.room > best.room ? next : best)).member
    const total = fitting.reduce((sum, { weight }) => sum + weight, 0)
    let at = (this.#options.random.bytes(4).readUInt32LE() / 2 ** 32) * total
    for (const { member, weight } of fitting) {
      at -= weight
      if (at < 0) return member
    }
    return fitting.at(-1)!.member
  }

  /** What may still be allocated on a disk, so that the reserve stays free. */
  roomOf(member: Member): number {
    return member.volume.unpromisedBytes - this.#options.reserveBytes
  }

  /** Whether a new data object of `bytes` fits somewhere, and `homeBytes` of its map on the first disk. */
  hasRoomForNew(bytes: number, homeBytes: number): boolean {
    if (!this.isSpread) return this.roomOf(this.home) >= bytes + homeBytes
    if (this.roomOf(this.home) < homeBytes) return false
    return this.#members.some((member) => {
      if (!member.takesNew) return false
      return this.roomOf(member) >= bytes + (member.volume === this.home.volume ? homeBytes : 0)
    })
  }

  hasRoomFor(oid: bigint, bytes: number): boolean {
    return this.roomOf(this.placeOf(oid)) >= bytes
  }

  promise(generation: number, oid: bigint, bytes: number): void {
    this.placeOf(oid).volume.promise(generation, bytes)
  }

  /** A generation is in the object files: what was promised to it is taken, and counts as such after `refresh`. */
  settle(generation: number): void {
    for (const member of this.#members) member.volume.settle(generation)
  }

  /** Asks each file system for its space. */
  async refresh(): Promise<void> {
    for (const member of [...this.#members]) {
      if (member.failure) continue
      try {
        const { totalBytes, freeBytes } = await member.guard('asking for the space', () => member.disk.space())
        member.volume.totalBytes = totalBytes
        member.volume.freeBytes = freeBytes
      } catch (error) {
        if (!(error instanceof MemberFailed)) throw error
      }
    }
  }

  /** What there is in all, and what of it changes may take, as of the last `refresh`. */
  room(): { totalBytes: number; freeBytes: number } {
    return this.#sum(this.#options.reserveBytes)
  }

  #sum(reserveBytes: number): { totalBytes: number; freeBytes: number } {
    const volumes = new Set(this.#members.filter((member) => !member.failure).map((member) => member.volume))
    let totalBytes = 0
    let freeBytes = 0
    for (const volume of volumes) {
      totalBytes += volume.totalBytes
      freeBytes += Math.max(0, volume.freeBytes - reserveBytes)
    }
    return { totalBytes, freeBytes }
  }

  /** The file system that a write found full has no room until the next `refresh`. */
  assumeFull(error: unknown): void {
    const path = (error as { memberPath?: string }).memberPath
    const member = this.#members.find((candidate) => candidate.path === path) ?? this.home
    member.volume.freeBytes = 0
  }

  /** Why an object may be gone that a map names; null when no disk has failed. */
  lossOf(oid: bigint): StoreError | null {
    const place = this.placeOf(oid)
    if (place.failure) return place.failure
    const [lost] = this.#absent
    if (!lost || oidKind(oid) !== 'data') return null
    return new StoreError('DiskFailed', `object ${formatOid(oid)} is lost with ${this.#absent.map((d) => d.path)}`)
  }

  async info(homeObjects: number): Promise<DiskInfo[]> {
    await this.prove()
    await this.refresh()
    const { reserveBytes } = this.#options
    const known = this.#members.map((member) => ({
      path: member.path,
      id: member.id,
      state: member.state,
      reason: member.reason,
      isFirst: member.isHome,
      totalBytes: member.failure ? 0 : member.volume.totalBytes,
      freeBytes: member.failure ? 0 : Math.max(0, member.volume.freeBytes - reserveBytes),
      objects: member.isHome ? homeObjects - this.#places.size : member.objects,
    }))
    const absent = this.#absent.map((disk) => ({ ...disk, isFirst: false, totalBytes: 0, freeBytes: 0, objects: 0 }))
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
    if (!this.isSpread || !path.startsWith('obj/')) return this.home
    const parsed = parseObjectName(nameOf(path))
    return parsed ? this.placeOf(parsed.oid) : this.home
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
    for (const member of [...this.#members]) {
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
    for (const member of [...this.#members]) {
      if (member.failure) continue
      for (const name of await member.guard('listing', () => member.disk.list(path))) names.add(name)
    }
    return [...names].filter((name) => !name.endsWith(MOVING_SUFFIX))
  }

  async listBelow(path: string): Promise<string[]> {
    const names = new Set<string>()
    for (const member of [...this.#members]) {
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
    for (const member of [...this.#members]) {
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
    const place = this.#removing.get(object.oid)?.place
    if (!place || place.failure || place === this.placeOf(object.oid)) return
    await toleratingLoss(removeFile(place, path))
  }

  /** Where there is something to sync. */
  async syncDirectory(path: string): Promise<void> {
    if (!path.startsWith('obj/')) return this.home.disk.syncDirectory(path)
    for (const member of [...this.#members]) {
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
    await this.refresh()
    return this.#sum(0)
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

  async syncMany(files: readonly DiskFile[], directories: readonly string[] = []): Promise<void> {
    const groups = groupBy(files, (file) => memberOfFile(file) ?? this.home)
    for (const member of this.#members) if (!member.failure && !groups.has(member)) groups.set(member, [])
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
    await this.save()
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
  async close(): Promise<void> {
    for (const member of this.#members) await member.release().catch(() => {})
  }
}

/** So that a new object's file can be made without waiting. Durable when it resolves. */
async function makeAllDirectories({ disk, directories }: Member): Promise<void> {
  const all = Array.from({ length: DIRECTORY_COUNT }, (_, i) => objectDirectory(BigInt(i)))
  const missing = all.filter((path) => !directories.has(path))
  if (missing.length === 0) return
  await disk.makeDirectory('obj')
  await Promise.all(missing.map((path) => disk.makeDirectory(path)))
  await disk.syncDirectory('obj')
  await disk.syncDirectory('.')
  for (const path of missing) directories.add(path)
}

/** Durable when it resolves. */
function removeFile(member: Member, path: string): Promise<void> {
  return member.guard('removing a file', async () => {
    await member.disk.unlink(path)
    await member.disk.syncDirectory(directoryOf(path))
  })
}

/** Of the header of an object file; -1 when it has none that is whole. */
function versionOf(member: Member, path: string): Promise<number> {
  return member.guard('reading', async () => {
    const file = await member.disk.open(path)
    try {
      const page = Buffer.alloc(BLOCK_BYTES)
      await file.read(page, HEADER_OFFSET)
      const header = decodeHeader(page)
      return 'problem' in header ? -1 : header.version
    } finally {
      await file.close()
    }
  })
}

function missing(path: string, reason: string): StoreError {
  const advice = `mount it and start again; or, if it is lost for good, start with --without-disks=${path}`
  return new StoreError('DiskFailed', `the store has objects on ${path}: ${reason}; ${advice}`)
}

const nameOf = (path: string) => path.slice(path.lastIndexOf('/') + 1)

const directoryOf = (path: string) => path.slice(0, Math.max(0, path.lastIndexOf('/')))

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

/** Makes durable what was created and removed among the object files. */
async function syncNames(disk: Disk): Promise<void> {
  const directories = await disk.list('obj')
  const paths = directories.map((directory) => `obj/${directory}`)
  await disk.syncMany([], paths)
}
