import { StoreError } from '../../errors.ts'
import { type Disk, type DiskFile, WOULD_BLOCK } from '../../runtime/disk.ts'
import { type DiskIdentity, type DiskState, readIdentity, shortIdOf } from './identity.ts'
import type { Volume } from './volume.ts'

/** What an operation on a disk that has failed is answered with; the node itself goes on. */
export class MemberFailed extends StoreError {
  readonly path: string
  readonly reason: string

  constructor(path: string, reason: string) {
    super('DiskFailed', `${path} is taken out: ${reason}`)
    this.path = path
    this.reason = reason
  }
}

/** Failures that say nothing about the disk: it is full, or this process has run out of something, or has a defect. */
const NOT_THE_DISK = new Set(['ENOSPC', 'EDQUOT', 'EMFILE', 'ENFILE', 'ENOMEM', 'EBADF', 'EINVAL', 'EAGAIN', 'EINTR'])

/**
 * One of the disks that hold objects. Every operation on it goes through `guard`: the first that fails for a reason of the
 * disk ends it, and from then on all are answered with MemberFailed, those too that were under way. The first disk is
 * not guarded: without it there is no store, and it fails the node.
 */
export class Member {
  readonly id: string
  path: string
  readonly disk: Disk
  readonly volume: Volume
  readonly #identity: DiskIdentity | null
  readonly #onFailed: (member: Member) => void
  readonly #release: () => Promise<void>
  state: DiskState
  failure: MemberFailed | null = null
  reason = ''
  /** False until the list of disks has it. */
  isReady = true
  /** CRC-32 of the identity of the page cache that it is seen through, and of the one that the list of disks names. */
  cache = 0
  listedCache = 0
  /** Objects that are here. */
  objects = 0
  /** Directories for objects that are there. */
  readonly directories = new Set<string>()
  /** Directories with changes that are not synced. */
  readonly changed = new Set<string>()

  constructor(options: {
    id: string
    path: string
    disk: Disk
    volume: Volume
    state: DiskState
    /** Null for the first disk. */
    identity: DiskIdentity | null
    onFailed: (member: Member) => void
    release: () => Promise<void>
  }) {
    this.id = options.id
    this.path = options.path
    this.disk = options.disk
    this.volume = options.volume
    this.state = options.state
    this.#identity = options.identity
    this.#onFailed = options.onFailed
    this.#release = options.release
  }

  get isHome(): boolean {
    return this.#identity === null
  }

  /** What the journal calls it by. */
  get shortId(): number {
    return this.isHome ? 0 : shortIdOf(this.id)
  }

  /** What the process before wrote to it and did not sync is there, unless this process has told the list otherwise. */
  get isSameCache(): boolean {
    return this.cache === this.listedCache
  }

  get takesNew(): boolean {
    return this.state === 'ok' && this.isReady
  }

  async open(path: string, options?: { create?: boolean; empty?: boolean }): Promise<DiskFile> {
    const file = await this.guard('opening', () => this.disk.open(path, options))
    return this.isHome ? file : new MemberFile(this, file)
  }

  openNow(path: string): DiskFile | null {
    const file = this.failure ? null : this.disk.openNow(path)
    return file && !this.isHome ? new MemberFile(this, file) : file
  }

  async createMany(paths: readonly string[]): Promise<DiskFile[]> {
    const files = await this.guard('making files', () => this.disk.createMany(paths))
    return this.isHome ? files : files.map((file) => new MemberFile(this, file))
  }

  /** As Disk.createNow. Throws ENOENT also where the disk is not there any more: whoever waits finds that out. */
  createNow(path: string): DiskFile {
    if (this.isHome) return this.disk.createNow(path)
    if (this.failure) throw this.failure
    try {
      return new MemberFile(this, this.disk.createNow(path))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw error
      throw this.judgeNow('making a file', error)
    }
  }

  /** Runs an operation on the disk; `what` names it: "reading". */
  async guard<T>(what: string, work: () => Promise<T>): Promise<T> {
    if (this.isHome) return work()
    if (this.failure) throw this.failure
    let result: T
    try {
      result = await work()
    } catch (error) {
      throw await this.judge(what, error)
    }
    // What was under way when the disk failed proves nothing: a sync after a failed one may say success.
    if (this.failure) throw this.failure
    return result
  }

  /** What an operation is to be answered with that ended in `error`. */
  async judge(what: string, error: unknown): Promise<unknown> {
    if (this.isHome || error instanceof StoreError) return error
    if (this.failure) return this.failure
    const { code, message } = error as NodeJS.ErrnoException
    if (code === undefined || NOT_THE_DISK.has(code)) {
      return Object.assign(error as Error, { memberPath: this.path })
    }
    // A file that is missing may be all that is wrong, or the directory may not be the disk any more.
    if (code === 'ENOENT') {
      const problem = await this.#problem()
      return problem === null ? error : this.fail(problem)
    }
    return this.fail(`${what}: ${message}`)
  }

  /** As `judge`, where there is no time to look: a missing file does not occur. */
  judgeNow(what: string, error: unknown): unknown {
    if (this.isHome || error instanceof StoreError) return error
    const { code, message } = error as NodeJS.ErrnoException
    return code === undefined || NOT_THE_DISK.has(code) ? error : this.fail(`${what}: ${message}`)
  }

  /** Fails the disk unless its directory still is that disk: what goes to files of a directory that was removed is lost. */
  async prove(): Promise<void> {
    if (this.isHome || this.failure) return
    const problem = await this.#problem()
    if (problem !== null) this.fail(problem)
  }

  async #problem(): Promise<string | null> {
    try {
      const found = await readIdentity(this.disk)
      if (found === null) return 'the directory is not this disk any more (removed, or not mounted)'
      return found.disk === this.#identity?.disk && found.store === this.#identity.store
        ? null
        : 'it is another disk now'
    } catch (error) {
      return error instanceof Error ? error.message : String(error)
    }
  }

  fail(reason: string): MemberFailed {
    if (this.failure) return this.failure
    this.failure = new MemberFailed(this.path, reason)
    this.reason = reason
    this.state = 'failed'
    this.#onFailed(this)
    return this.failure
  }

  /** Lets go of the lock and of all that is open. */
  release(): Promise<void> {
    return this.#release()
  }
}

/** A file on a disk that may fail while the node goes on. */
export class MemberFile implements DiskFile {
  readonly member: Member
  readonly inner: DiskFile

  constructor(member: Member, inner: DiskFile) {
    this.member = member
    this.inner = inner
  }

  read(target: Uint8Array, position: number): Promise<number> {
    return this.member.guard('reading', () => this.inner.read(target, position))
  }

  readNow(target: Uint8Array, position: number): number {
    return this.member.failure ? WOULD_BLOCK : this.inner.readNow(target, position)
  }

  write(source: Uint8Array, position: number): Promise<void> {
    return this.member.guard('writing', () => this.inner.write(source, position))
  }

  writeNow(sources: readonly Uint8Array[], position: number): void {
    if (this.member.failure) throw this.member.failure
    try {
      this.inner.writeNow(sources, position)
    } catch (error) {
      throw this.member.judgeNow('writing', error)
    }
  }

  sync(): Promise<void> {
    return this.member.guard('syncing', () => this.inner.sync())
  }

  truncate(length: number): Promise<void> {
    return this.member.guard('writing', () => this.inner.truncate(length))
  }

  size(): Promise<number> {
    return this.member.guard('reading', () => this.inner.size())
  }

  dataRanges(): Promise<{ position: number; length: number }[]> {
    return this.member.guard('reading', () => this.inner.dataRanges())
  }

  /** What a failed disk says to this changes nothing. */
  async close(): Promise<void> {
    if (this.member.failure) await this.inner.close().catch(() => {})
    else await this.inner.close()
  }
}

/** The file as its own disk knows it. */
export const innerFile = (file: DiskFile): DiskFile => (file instanceof MemberFile ? file.inner : file)

export const memberOfFile = (file: DiskFile): Member | null => (file instanceof MemberFile ? file.member : null)
