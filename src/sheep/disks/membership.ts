import { StoreError } from '../../errors.ts'
import type { Disk, OpenDisk } from '../../runtime/disk.ts'
import type { Log } from '../../runtime/log.ts'
import type { Random } from '../../runtime/random.ts'
import { type DiskState, type ListedDisk, readDiskList, removeIdentity, shortIdOf, writeDiskList } from './identity.ts'
import { type Joined, joinDisk, rejoinDisk } from './joining.ts'
import { Member, MemberFailed } from './member.ts'
import { findDirectories, makeAllDirectories, syncNames } from './object-files.ts'
import { Volume } from './volume.ts'

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

export interface ArrayOptions {
  storeId: Buffer
  random: Random
  log: Log
  reserveBytes: number
  disks?: DisksOptions
}

/**
 * Which disks a store has: how they are found at a start, how they come, go and fail, and the list of them on the first one, which is
 * written before anything relies on it.
 */
export class Membership {
  readonly #options: ArrayOptions
  /** Disks that this start has found to fail, and why. */
  readonly #unusable: ReadonlyMap<string, string>
  readonly home: Member
  readonly #members: Member[]
  /** Disks that failed before this start: nothing of them is open. */
  #absent: ListedDisk[] = []
  #isSaved = true
  /** Disks that have failed since the start. */
  failures = 0
  /** Told when a disk has failed. Its objects keep their place until `moveTo` gives them another. */
  onLost: (member: Member) => void = () => {}

  constructor(home: Disk, options: ArrayOptions, unusable: ReadonlyMap<string, string>) {
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

  /** Opens what the list names, and takes in what is configured besides. Throws MemberFailed when one of them fails meanwhile. */
  async open(): Promise<void> {
    for (const listed of await readDiskList(this.home.disk)) await this.#reopen(listed)
    for (const path of this.#options.disks?.configured ?? []) await this.#openConfigured(path)
    await this.save()
    await this.refresh()
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

  /** Whether there are disks beside the first one. */
  get isSpread(): boolean {
    return this.#members.length > 1
  }

  get members(): readonly Member[] {
    return this.#members
  }

  /** Those that failed before this start. */
  get absent(): readonly ListedDisk[] {
    return this.#absent
  }

  /** The disk at a path, as it was given or without symbolic links; among those that failed before this start, too. */
  find(path: string): Member | ListedDisk | undefined {
    return this.#members.find((member) => member.path === path) ?? this.#absent.find((disk) => disk.path === path)
  }

  /** The disk that a record of the journal names; undefined when it is not there any more. */
  memberOf(shortId: number): Member | undefined {
    return this.#members.find((member) => member.shortId === shortId)
  }

  /** Whether what is on no disk may have been on one that failed before this start. */
  get isMissingDisks(): boolean {
    return this.#absent.length > 0
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
      await member.guard('listing', () => findDirectories(member))
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

  /** Lets go of all disks but the first. */
  async close(): Promise<void> {
    for (const member of this.#members) await member.release().catch(() => {})
  }
}

export function missing(path: string, reason: string): StoreError {
  const advice = `mount it and start again; or, if it is lost for good, start with --without-disks=${path}`
  return new StoreError('DiskFailed', `the store has objects on ${path}: ${reason}; ${advice}`)
}
