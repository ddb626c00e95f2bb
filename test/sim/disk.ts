import assert from 'node:assert'
import { type Copy, type Disk, type DiskFile, type OpenedDisk, WOULD_BLOCK } from '../../src/runtime/disk.ts'
import type { SimClock } from './clock.ts'
import type { SeededRandom } from './random.ts'

const PAGE = 4096
const SECTOR = 512
/** Pages are never changed in place, so that one may be in many files, in the cache and on the disk. Many hold nothing but zeros. */
const ZEROS = Buffer.alloc(PAGE)

interface Inode {
  pages: Map<number, Buffer>
  size: number
  durablePages: Map<number, Buffer>
  durableSize: number
  dirty: Set<number>
  /** Times that dirty pages could not be written. Each handle says so once, of those since it was opened. */
  failures: number
}

/** A range of pages, to its end exclusively. */
interface Hole {
  inode: Inode
  first: number
  end: number
}

interface SimFile extends DiskFile {
  beginHole(position: number, length: number): Hole
}

type NamespaceOp = { directory: string } & (
  | { kind: 'link'; path: string; inode: Inode }
  | { kind: 'unlink'; path: string }
  | { kind: 'rename'; from: string; to: string; inode: Inode }
)

/** What may go wrong, each with a probability for each operation. */
export interface DiskFaults {
  wouldBlock: number
  /** A page written but not synced reaches the disk by itself, as it was before the next write to it. */
  writeback: number
}

/**
 * A disk that keeps exactly what src/runtime/disk.ts promises and nothing more. `powerLoss` drops what was not synced:
 * each dirty page stays old, becomes new, or is torn between sectors; of the directory operations since the last sync a
 * random number of the first ones survive. `kill` keeps the page cache, as the end of a process does.
 */
export class SimDisk {
  readonly #random: SeededRandom
  readonly #clock: SimClock
  readonly faults: DiskFaults
  #names = new Map<string, Inode>()
  #durableNames = new Map<string, Inode>()
  /** The directories within each directory. */
  readonly #directories = new Map<string, Set<string>>()
  #unsyncedNames: NamespaceOp[] = []
  /** Those that `punchMany` is making: until it resolves nobody may write there. */
  readonly #holes = new Set<Hole>()
  readonly #everNamed = new Set<string>()
  #life = 0
  #boots = 0
  #locked = false
  capacityBytes = 2 ** 40
  /** The next sync fails, and what it covered is lost although later syncs succeed. */
  failNextSync = false
  /** The process ends when it has written so many more pages at once: in the middle of whatever it is doing. */
  endAfterPages = Number.POSITIVE_INFINITY
  /** How long an operation takes. */
  latencyMsMax = 2
  /** Files opened so far, by whatever lives. */
  opens = 0
  /** After so many more operations all of them fail; null for a disk that is well. */
  operationsLeft: number | null = null
  /** What it was asked to do so far. */
  operations = 0
  /** Its directory is not there any more; files that are open do not notice. */
  isGone = false
  /** Files that the process which lives has open. */
  openFiles = 0
  /** Files that were closed while `copyMany` or `writeMany` had work left on them: their descriptors may be other files' by then. */
  closedInUse = 0

  constructor(random: SeededRandom, clock: SimClock, faults: Partial<DiskFaults> = {}) {
    this.#random = random
    this.#clock = clock
    this.faults = { wouldBlock: 0.1, writeback: 0.2, ...faults }
  }

  /** The disk as a process that starts now sees it; it goes dead with the next `kill` or `powerLoss`. */
  mount(): Disk {
    const life = this.#life
    const alive = () => {
      if (life !== this.#life) throw new Error('this process has ended')
    }
    const device = async () => {
      if (life === this.#life) await this.#clock.latency(this.latencyMsMax)
      if (life !== this.#life) await new Promise(() => {}) // nobody is left to hear the answer
      this.#wear()
    }
    const directory = async () => {
      await device()
      if (this.isGone) throw errno('ENOENT', 'the directory of the disk')
    }
    const inUse = (error: NodeJS.ErrnoException) => {
      if (error.code === 'EBADF') this.closedInUse++
      throw error
    }
    const disk: Disk = {
      open: async (path, options) => {
        await directory()
        this.opens++
        let inode = this.#names.get(path)
        if (!inode) {
          if (!options?.create) throw errno('ENOENT', path)
          inode = newInode()
          this.#change({ kind: 'link', directory: parent(path), path, inode })
        }
        const file = this.#file(inode, device, alive)
        if (options?.empty) await file.truncate(0)
        return file
      },
      openNow: (path) => {
        alive()
        const inode = this.#names.get(path)
        if (!inode || this.isGone || this.isBroken || this.#random.chance(this.faults.wouldBlock)) return null
        this.opens++
        return this.#file(inode, device, alive)
      },
      createNow: (path) => {
        alive()
        this.#wear()
        if (this.isGone || !this.#isDirectory(parent(path))) throw errno('ENOENT', path)
        const inode = newInode()
        this.#change({ kind: 'link', directory: parent(path), path, inode })
        return this.#file(inode, device, alive)
      },
      createMany: async (paths) => {
        const files: DiskFile[] = []
        try {
          for (const path of paths) files.push(await disk.open(path, { create: true, empty: true }))
        } catch (error) {
          for (const file of files) await file.close()
          throw error
        }
        return files
      },
      makeDirectory: async (path) => {
        await directory()
        const siblings = this.#directories.get(parent(path)) ?? new Set()
        this.#directories.set(parent(path), siblings.add(nameIn(path)))
      },
      list: async (path) => {
        await directory()
        const prefix = path === '.' ? '' : `${path}/`
        const names = new Set(this.#directories.get(path))
        for (const name of this.#names.keys()) {
          if (!name.startsWith(prefix)) continue
          const end = name.indexOf('/', prefix.length)
          names.add(end < 0 ? name.slice(prefix.length) : name.slice(prefix.length, end))
        }
        return [...names]
      },
      listBelow: async (path) => {
        await device()
        const below = [...this.#names.keys()].filter((name) => name.startsWith(`${path}/`))
        return below.map((name) => name.slice(path.length + 1)).filter((name) => name.includes('/'))
      },
      rename: async (from, to) => {
        await directory()
        const inode = this.#names.get(from)
        if (!inode) throw errno('ENOENT', from)
        this.#change({ kind: 'rename', directory: parent(from), from, to, inode })
      },
      unlink: async (path) => {
        await directory()
        if (this.#names.has(path)) this.#change({ kind: 'unlink', directory: parent(path), path })
      },
      syncDirectory: async (path) => {
        await directory()
        this.#syncNames(path)
      },
      space: async () => {
        await directory()
        return { totalBytes: this.capacityBytes, freeBytes: this.capacityBytes - this.usedBytes() }
      },
      copyMany: async (copies: readonly Copy[]) => {
        for (const { from, fromPosition, to, toPosition, length } of copies) {
          const buffer = Buffer.alloc(length)
          await from.read(buffer, fromPosition).catch((error) => {
            throw Object.assign(error, { syscall: 'read' })
          })
          await to.write(buffer, toPosition).catch(inUse)
        }
      },
      writeMany: async (writes) => {
        for (const { to, position, bytes } of writes) await to.write(bytes, position).catch(inUse)
      },
      punchMany: async (ranges) => {
        const holes = ranges.map(({ file, position, length }) => (file as SimFile).beginHole(position, length))
        try {
          for (const hole of holes) {
            await device()
            this.#makeHole(hole)
          }
        } finally {
          for (const hole of holes) this.#holes.delete(hole)
        }
      },
      syncMany: async (files, directories = []) => {
        for (const file of files) await file.sync()
        if (directories.length > 0) await device()
        for (const directory of directories) this.#syncNames(directory)
      },
      startWriteback: () => alive(), // `faults.writeback` does it all the time
      cacheIdentity: async () => {
        await device()
        return `cache ${this.#boots}`
      },
      lock: async () => {
        await device()
        if (life !== this.#life) await new Promise(() => {}) // it has ended since the device answered: the lock is another's now
        if (this.#locked) return null
        this.#locked = true
        return {
          release: async () => {
            this.#locked = false
          },
        }
      },
    }
    return disk
  }

  #isDirectory(path: string): boolean {
    return path === '.' || this.#directories.get(parent(path))?.has(nameIn(path)) === true
  }

  /** As `mount`, by a path, for a store with several disks. */
  opened(path: string, device = path): OpenedDisk {
    return { ...this.mount(), path, device, close: async () => {} }
  }

  get isBroken(): boolean {
    return this.operationsLeft === 0
  }

  #wear(): void {
    this.operations++
    if (this.isBroken) throw errno('EIO', 'a broken disk')
    if (this.operationsLeft !== null) this.operationsLeft--
  }

  #file(inode: Inode, device: () => Promise<void>, alive: () => void): SimFile {
    let open = true
    let failuresSeen = inode.failures
    const life = this.#life
    this.openFiles++
    const ready = async () => {
      if (!open) throw errno('EBADF', 'a closed file')
      await device()
    }
    return {
      read: async (target, position) => {
        await ready()
        return readInode(inode, target, position)
      },
      readNow: (target, position) => {
        alive()
        if (!open) throw errno('EBADF', 'a closed file')
        if (this.isBroken || this.#random.chance(this.faults.wouldBlock)) return WOULD_BLOCK
        return readInode(inode, target, position)
      },
      write: async (source, position) => {
        await ready()
        this.#write(inode, source, position)
      },
      writeNow: (sources, position) => {
        alive()
        this.#wear()
        for (const source of sources) {
          const pages = Math.ceil(source.length / PAGE)
          const written = Math.min(source.length, Math.max(0, this.endAfterPages) * PAGE)
          this.#write(inode, written < source.length ? source.subarray(0, written) : source, position)
          this.endAfterPages -= pages
          if (written < source.length) {
            this.kill()
            alive()
          }
          position += source.length
        }
      },
      sync: async () => {
        const covered = [...inode.dirty].map((page) => ({ page, bytes: inode.pages.get(page) }))
        await ready()
        if (this.failNextSync) {
          this.failNextSync = false
          for (const { page } of covered) inode.dirty.delete(page) // the kernel marks them clean: the next sync says success
          inode.failures++
        }
        if (inode.failures > failuresSeen) {
          failuresSeen = inode.failures
          throw errno('EIO', 'sync')
        }
        this.#persistCovered(inode, covered)
        inode.durableSize = inode.size
      },
      beginHole: (position, length) => {
        alive()
        assert(open && position % PAGE === 0 && length % PAGE === 0)
        const hole = { inode, first: position / PAGE, end: (position + length) / PAGE }
        this.#holes.add(hole)
        return hole
      },
      truncate: async (length) => {
        await ready()
        for (const page of inode.pages.keys()) {
          if (page * PAGE >= length) {
            inode.pages.delete(page)
            inode.dirty.add(page)
          }
        }
        inode.size = length
      },
      size: async () => {
        await ready()
        return inode.size
      },
      dataRanges: async () => {
        await ready()
        const pages = [...inode.pages.keys()].sort((a, b) => a - b)
        return pages.map((page) => ({ position: page * PAGE, length: Math.min(PAGE, inode.size - page * PAGE) }))
      },
      close: async () => {
        if (open && life === this.#life) this.openFiles--
        open = false
      },
    }
  }

  #write(inode: Inode, source: Uint8Array, position: number): void {
    const whole = position % PAGE === 0 ? wholePages(source) : []
    for (let done = 0; done < source.length; ) {
      const page = Math.floor((position + done) / PAGE)
      const offset = (position + done) % PAGE
      const count = Math.min(PAGE - offset, source.length - done)
      for (const hole of this.#holes) {
        assert(hole.inode !== inode || page < hole.first || page >= hole.end, 'written where a hole is being made')
      }
      if (inode.dirty.has(page) && this.#random.chance(this.faults.writeback)) persist(inode, page)
      const bytes =
        whole[done / PAGE] ?? changed(inode.pages.get(page) ?? ZEROS, source.subarray(done, done + count), offset)
      if (!inode.pages.has(page) && this.usedBytes() >= this.capacityBytes) throw errno('ENOSPC', 'write')
      inode.pages.set(page, bytes)
      inode.dirty.add(page)
      done += count
    }
    inode.size = Math.max(inode.size, position + source.length)
  }

  /** What was dirty when a sync began. What was written there since may be on its way. */
  #persistCovered(inode: Inode, covered: readonly { page: number; bytes: Buffer | undefined }[]): void {
    for (const { page, bytes } of covered) {
      if (!inode.dirty.has(page)) continue
      const isSame = inode.pages.get(page) === bytes
      if (isSame || this.#random.chance(0.5)) persist(inode, page)
      else if (bytes) inode.durablePages.set(page, bytes)
      else inode.durablePages.delete(page)
      if (isSame) inode.dirty.delete(page)
    }
  }

  #makeHole({ inode, first, end }: Hole): void {
    for (let page = first; page < end; page++) {
      if (inode.dirty.has(page) && this.#random.chance(this.faults.writeback)) persist(inode, page)
      if (inode.pages.delete(page)) inode.dirty.add(page)
    }
  }

  usedBytes(): number {
    if (this.capacityBytes === 2 ** 40) return 0
    let pages = 0
    for (const inode of this.#names.values()) pages += inode.pages.size
    return pages * PAGE
  }

  #syncNames(directory: string): void {
    const mine = this.#unsyncedNames.filter((op) => op.directory === directory)
    this.#unsyncedNames = this.#unsyncedNames.filter((op) => op.directory !== directory)
    for (const op of mine) applyName(this.#durableNames, op)
  }

  #change(op: NamespaceOp): void {
    if (op.kind !== 'unlink') this.#everNamed.add(op.kind === 'link' ? op.path : op.to)
    applyName(this.#names, op)
    this.#unsyncedNames.push(op)
  }

  /** How many processes have ended. */
  get ended(): number {
    return this.#life
  }

  /** The process ends; the kernel and its page cache stay. */
  kill(): void {
    this.#life++
    this.endAfterPages = Number.POSITIVE_INFINITY
    this.openFiles = 0
    this.#locked = false
    this.#holes.clear()
    this.#clock.endProcess()
  }

  powerLoss(): void {
    this.kill()
    this.#boots++
    for (const inode of new Set([...this.#names.values(), ...this.#durableNames.values()])) this.#loseCache(inode)
    for (const directory of new Set(this.#unsyncedNames.map((op) => op.directory))) {
      const ops = this.#unsyncedNames.filter((op) => op.directory === directory)
      for (const op of ops.slice(0, this.#random.below(ops.length + 1))) applyName(this.#durableNames, op)
    }
    this.#unsyncedNames = []
    this.#names = new Map(this.#durableNames)
  }

  #loseCache(inode: Inode): void {
    for (const page of inode.dirty) {
      const fate = this.#random.next()
      if (fate < 0.4) continue
      if (fate < 0.8) persist(inode, page)
      else {
        const torn = Buffer.from(inode.durablePages.get(page) ?? ZEROS)
        const fresh = inode.pages.get(page) ?? ZEROS
        for (let at = 0; at < PAGE; at += SECTOR) if (this.#random.chance(0.5)) fresh.copy(torn, at, at, at + SECTOR)
        inode.durablePages.set(page, torn)
      }
    }
    if (this.#random.chance(0.5)) inode.durableSize = inode.size
    inode.dirty.clear()
    inode.pages = new Map(inode.durablePages)
    inode.size = inode.durableSize
    for (const page of inode.pages.keys()) if (page * PAGE >= inode.size) inode.pages.delete(page)
  }

  /** Puts a file there, whole and durable, instead of what has its name. Pages are shared, and never changed in place. */
  place(path: string, pages: readonly Buffer[], sizeBytes = pages.length * PAGE): void {
    const entries = pages.flatMap((page, index): [number, Buffer][] =>
      index * PAGE < sizeBytes ? [[index, page]] : [],
    )
    this.placeSparse(path, new Map(entries), sizeBytes)
  }

  /** As `place`, of a file with holes: its pages by their number. */
  placeSparse(path: string, pages: ReadonlyMap<number, Buffer>, sizeBytes: number): void {
    const inode = newInode(pages, sizeBytes)
    this.#names.set(path, inode)
    this.#durableNames.set(path, inode)
  }

  /** The pages of a file that hold anything, by their number; not to be changed. */
  pagesOf(path: string): ReadonlyMap<number, Buffer> {
    return new Map(this.#names.get(path)?.pages)
  }

  remove(path: string): void {
    this.#names.delete(path)
    this.#durableNames.delete(path)
  }

  paths(): string[] {
    return [...this.#names.keys()]
  }

  /** Flips one bit at a byte of a file, on the disk and in the cache. */
  flipBit(path: string, position: number): void {
    const inode = this.#names.get(path)!
    for (const pages of [inode.pages, inode.durablePages]) {
      const number = Math.floor(position / PAGE)
      const page = pages.get(number)
      if (!page) continue
      const flipped = Buffer.of(page[position % PAGE]! ^ (1 << this.#random.below(8)))
      pages.set(number, changed(page, flipped, position % PAGE))
    }
  }

  /** Whether a file of this name, or of one that begins with it, was made here at any time. */
  hasEverHad(path: string): boolean {
    return this.#everNamed.has(path) || [...this.#everNamed].some((name) => name.startsWith(path))
  }

  sizeOf(path: string): number {
    return this.#names.get(path)?.size ?? 0
  }

  /** Whether a page of a file holds anything. */
  hasPage(path: string, page: number): boolean {
    return this.#names.get(path)?.pages.has(page) ?? false
  }
}

function newInode(pages: ReadonlyMap<number, Buffer> = new Map(), size = 0): Inode {
  return {
    pages: new Map(pages),
    size,
    durablePages: new Map(pages),
    durableSize: size,
    dirty: new Set(),
    failures: 0,
  }
}

function persist(inode: Inode, page: number): void {
  const bytes = inode.pages.get(page)
  if (bytes) inode.durablePages.set(page, bytes)
  else inode.durablePages.delete(page)
  inode.durableSize = Math.max(inode.durableSize, Math.min(inode.size, (page + 1) * PAGE))
}

/** What is written, as pages; a last one that is not whole is left out. */
function wholePages(source: Uint8Array): Buffer[] {
  const count = Math.floor(source.length / PAGE)
  const copy = Buffer.allocUnsafeSlow(count * PAGE)
  copy.set(count * PAGE === source.length ? source : source.subarray(0, count * PAGE))
  return Array.from({ length: count }, (_, page) => {
    const start = page * PAGE
    const isZero = copy.compare(ZEROS, 0, PAGE, start, start + PAGE) === 0
    return isZero ? ZEROS : copy.subarray(start, start + PAGE)
  })
}

function changed(page: Buffer, bytes: Uint8Array, offset: number): Buffer {
  const copy = Buffer.from(page)
  copy.set(bytes, offset)
  return copy
}

function readInode(inode: Inode, target: Uint8Array, position: number): number {
  const length = Math.max(0, Math.min(target.length, inode.size - position))
  for (let done = 0; done < length; ) {
    const offset = (position + done) % PAGE
    const count = Math.min(PAGE - offset, length - done)
    const page = inode.pages.get(Math.floor((position + done) / PAGE))
    if (page) target.set(page.subarray(offset, offset + count), done)
    else target.fill(0, done, done + count)
    done += count
  }
  return length
}

function applyName(names: Map<string, Inode>, op: NamespaceOp): void {
  if (op.kind === 'link') names.set(op.path, op.inode)
  else if (op.kind === 'unlink') names.delete(op.path)
  else {
    names.delete(op.from)
    names.set(op.to, op.inode)
  }
}

function parent(path: string): string {
  const slash = path.lastIndexOf('/')
  return slash < 0 ? '.' : path.slice(0, slash)
}

function nameIn(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}

function errno(code: string, what: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${what}`), { code })
}
