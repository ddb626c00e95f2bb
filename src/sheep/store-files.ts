import { crc32 } from '@node-rs/crc32'
import { StoreError } from '../errors.ts'
import type { Clock } from '../runtime/clock.ts'
import { type Disk, type DiskFile, orClose } from '../runtime/disk.ts'
import type { Log } from '../runtime/log.ts'
import type { Random } from '../runtime/random.ts'
import { AccountLog } from './account-log.ts'
import { AccountImages, type Accounts } from './accounts.ts'
import { CopyLog } from './copies/copy-log.ts'
import { isCopyRecord } from './copies/copy-records.ts'
import { CopyChanges, type CopyTable } from './copies/copy-table.ts'
import { DiskArray } from './disks/disk-array.ts'
import type { DisksOptions } from './disks/membership.ts'
import { EntryLog, type LoggedEntry } from './entry-log.ts'
import type { JournalState, SegmentFile } from './journal.ts'
import type { JournalRecord } from './journal-format.ts'
import { type ScannedFrame, scanJournal } from './journal-scan.ts'
import {
  BLOCK_BYTES,
  inheritWord1,
  OBJECT_TAIL_BYTES,
  objectPath,
  parseObjectName,
  zeroWord0,
  zeroWord1,
} from './object-format.ts'
import { acceptRewrites, cutUnprovenFrames, rewritePlaced } from './placed-replay.ts'
import { type DirtyGeneration, NO_PAYLOAD, PLACED, StoredObject } from './stored-object.ts'
import { Superblock } from './superblock.ts'

export interface ObjectStoreOptions {
  disk: Disk
  /** Other disks of the node; without them it has the one. */
  disks?: DisksOptions
  clock: Clock
  random: Random
  log: Log
  /** Size of each of the two journal segments. */
  segmentBytes: number
  durability: 'flush' | 'write'
  /** Free space that writes leave alone, so that deletes, checkpoints and the log always have room. */
  reserveBytes: number
  /** Writes of so many bytes and more go to the object's file at once, if its blocks are free; whole blocks. */
  placedMinBytes?: number
  /** How much of what overwriting frees may wait for the next write instead of being given back at once; see KeptSlots. */
  keptBytesMax?: number
  /** How many objects keep their table (8 KiB) and an open file. */
  loadedObjectsMax?: number
  /** How many files of objects may be open in all; more of them are in use only where many are read at the same time. */
  openFilesMax?: number
  /** Told once when the disk has failed. */
  onFailed(error: StoreError): void
}

/** Everything that a store has open, as it was found (or made) at the start. */
export interface StoreFiles {
  superblock: Superblock
  log: EntryLog
  accountLog: AccountLog
  accounts: Accounts
  /** Whether `accounts` can be believed; else they have to be counted again. */
  accountsKnown: boolean
  copyLog: CopyLog
  /** What this node knew of its copies, with what the journal held. */
  copies: CopyTable
  segments: readonly [SegmentFile, SegmentFile]
  objects: Map<bigint, StoredObject>
  /** Where the journal goes on. */
  journalState: JournalState
  /** What the journal held and the object files do not; must be applied before anything new is written. */
  replayed: { generation: number; nextSequence: number; dirty: DirtyGeneration } | null
  /** Files of objects that were about to be created when the process ended, and that no frame to replay knows. */
  leftovers: string[]
  /** CRC-32 of the page cache's identity. */
  cache: number
  disks: DiskArray
  close(): Promise<void>
}

const COPY_BYTES = 1024 * 1024

/** Throws DiskFailed when another process has the store or when it is of another format, CorruptBlock when it is damaged. */
export async function openStoreFiles(
  options: ObjectStoreOptions,
): Promise<{ files: StoreFiles; entries: LoggedEntry[] }> {
  const { disk } = options
  await disk.makeDirectory('obj')
  const lock = await disk.lock('lock')
  if (!lock) throw new StoreError('DiskFailed', 'another process has this store open')
  const open = new OpenParts()
  open.add({ close: () => lock.release() })
  return orClose(open, () => openLocked(options, open))
}

/** What is open so far, to be closed in the reverse order. */
class OpenParts {
  readonly #parts: { close(): Promise<void> }[] = []

  add<T extends { close(): Promise<void> }>(part: T): T {
    this.#parts.push(part)
    return part
  }

  async close(): Promise<void> {
    for (let part = this.#parts.pop(); part; part = this.#parts.pop()) await part.close()
  }
}

async function openLocked(options: ObjectStoreOptions, open: OpenParts) {
  const { disk, random, segmentBytes } = options
  const found = await Superblock.open(disk)
  if (found) open.add(found)
  else await checkEmpty(disk)
  const openWithTwin = async (path: string): Promise<SegmentFile> => {
    const file = open.add(await openSegment(disk, path, segmentBytes, found === null))
    return { file, twin: open.add(await disk.open(path)) }
  }
  const segments = [await openWithTwin('journal.0'), await openWithTwin('journal.1')] as const
  await disk.syncDirectory('.')
  // The superblock comes last: a directory without one is a first start that did not get far, and starts again.
  const superblock = found ?? open.add(await Superblock.create(disk, random.bytes(16)))
  const { storeId, generation } = superblock.content
  const { log, entries } = await EntryLog.open(disk, superblock.content)
  open.add(log)
  const { log: accountLog, accounts, known } = await AccountLog.open(disk, storeId, generation)
  open.add(accountLog)
  const { log: copyLog, copies } = await CopyLog.open(disk, storeId, superblock.content)
  open.add(copyLog)
  const disks = open.add(await DiskArray.open(disk, { ...options, storeId }))
  return openObjects(options, {
    superblock,
    segments,
    log,
    accountLog,
    accounts,
    accountsKnown: known,
    copyLog,
    copies,
    entries,
    disks,
    open,
  })
}

async function openObjects(
  { random }: ObjectStoreOptions,
  opened: Pick<
    StoreFiles,
    'superblock' | 'segments' | 'log' | 'accountLog' | 'accounts' | 'accountsKnown' | 'copyLog' | 'copies' | 'disks'
  > & {
    entries: LoggedEntry[]
    open: OpenParts
  },
) {
  const { superblock, segments, log, accountLog, accounts, accountsKnown, copyLog, copies } = opened
  const { entries, disks, open } = opened
  const { storeId, sequence } = superblock.content
  const { objects, tagged } = await listObjects(disks)

  const [first, second] = segments
  const files = [first.file, second.file] as const
  const scan = await scanJournal(files, storeId, superblock.content)
  const { home } = disks
  home.cache = crc32(await disks.cacheIdentity())
  home.listedCache = superblock.content.cache
  if (home.isSameCache) await acceptRewrites(disks, files, scan.frames, scan.provenSynced)
  for (const index of [0, 1] as const) await rewrite(files[index], scan.usedPages[index])
  const isAllThere = disks.membership.members.every((member) => member.isSameCache)
  const frames = isAllThere ? scan.frames : await cutUnprovenFrames(disks, scan.frames, scan.provenSynced)
  const last = frames.at(-1)
  const nextSequence = last ? last.header.sequence + 1 : sequence
  const replayed = last
    ? { generation: scan.generation, nextSequence, dirty: replay(frames, scan.generation, { ...opened, objects }) }
    : null
  if (!isAllThere) noteLossOfPower(copies, replayed?.dirty)
  if (replayed) await rewritePlaced(disks, replayed.dirty.objects.keys(), scan.provenSynced)
  for (const entry of replayed?.dirty.entries ?? []) if (entry.index > log.lastIndex) entries.push(entry)

  return {
    entries,
    files: {
      leftovers: leftoversOf(objects, tagged),
      cache: home.cache,
      superblock,
      log,
      accountLog,
      accounts,
      accountsKnown,
      copyLog,
      copies,
      segments,
      objects,
      journalState: {
        storeId,
        incarnation: random.bytes(4).readUInt32LE(),
        generation: scan.generation + 1,
        sequence: nextSequence,
      },
      replayed,
      disks,
      close: () => open.close(),
    },
  }
}

/** What was acknowledged before it was durable may be gone. */
function noteLossOfPower(copies: CopyTable, replayed: DirtyGeneration | undefined): void {
  const { clean, accepted, lost } = copies.horizon
  if (accepted <= Math.max(clean, lost)) return
  const record = { kind: 'horizon' as const, clean, accepted, lost: accepted }
  copies.apply(record)
  replayed?.copies.put(record)
}

/** A first start makes objects and a log only after the superblock: with them and without it, it is the superblock that is lost. */
async function checkEmpty(disk: Disk): Promise<void> {
  const log = (await disk.list('.')).find((name) => name.startsWith('log.'))
  const [directory] = await disk.list('obj')
  if (log || directory) throw new StoreError('DiskFailed', `there is a store (${log ?? 'obj'}), but no superblock`)
}

/** A segment is allocated and written once, so that appending to it never needs space. */
async function openSegment(disk: Disk, path: string, bytes: number, isFirstStart: boolean): Promise<DiskFile> {
  if (!isFirstStart && !(await disk.list('.')).includes(path))
    throw new StoreError('CorruptBlock', `${path} is missing`)
  const file = await disk.open(path, { create: isFirstStart })
  return orClose(file, async () => {
    const zeros = Buffer.alloc(Math.min(bytes, COPY_BYTES))
    let size = await file.size()
    if (size >= bytes) return file
    for (; size < bytes; size += zeros.length)
      await file.write(zeros.subarray(0, Math.min(zeros.length, bytes - size)), size)
    await file.sync()
    return file
  })
}

interface ObjectFiles {
  objects: Map<bigint, StoredObject>
  /** Files under names with a tag. */
  tagged: { oid: bigint; tag: number }[]
}

async function listObjects(disks: DiskArray): Promise<ObjectFiles> {
  const files: ObjectFiles = { objects: new Map(), tagged: [] }
  for (const path of await disks.listBelow('obj')) {
    const parsed = parseObjectName(path.slice(path.indexOf('/') + 1))
    if (!parsed) throw new StoreError('DiskFailed', `obj/${path} is not a file of the store; move it away`)
    if (parsed.tag !== 0) files.tagged.push(parsed)
    else files.objects.set(parsed.oid, new StoredObject(parsed.oid))
  }
  return files
}

function leftoversOf(objects: ReadonlyMap<bigint, StoredObject>, tagged: ObjectFiles['tagged']): string[] {
  return tagged.filter(({ oid, tag }) => objects.get(oid)?.tag !== tag).map(({ oid, tag }) => objectPath(oid, tag))
}

/**
 * Writes the pages of replayed frames again. After a failed sync the page cache may hold what the disk does not, and a
 * later sync would not write it; a page that was written again is.
 */
async function rewrite(file: DiskFile, pages: number): Promise<void> {
  if (pages === 0) return
  for (let at = 0; at < pages * BLOCK_BYTES; at += COPY_BYTES) {
    const chunk = Buffer.alloc(Math.min(COPY_BYTES, pages * BLOCK_BYTES - at))
    await file.read(chunk, at)
    await file.write(chunk, at)
  }
  await file.sync()
}

/** Applies the records in memory, as if they had just been committed in one generation. */
function replay(
  frames: readonly ScannedFrame[],
  generation: number,
  { objects, accounts, copies, disks }: Pick<StoreFiles, 'objects' | 'accounts' | 'copies' | 'disks'>,
): DirtyGeneration {
  const dirty: DirtyGeneration = {
    objects: new Map(),
    entries: [],
    accounts: new AccountImages(),
    copies: new CopyChanges(),
    placedBlocks: 0,
    placedFiles: 0,
  }
  const placeless = new Set<StoredObject>()
  /**
   * An object whose file is not there: it was removed by a record that follows, which an earlier replay had applied, or it is lost
   * with its disk.
   */
  const find = (oid: bigint): StoredObject => {
    let object = objects.get(oid)
    if (!object) {
      object = new StoredObject(oid)
      objects.set(oid, object)
      placeless.add(object)
    }
    return object
  }
  for (const { header, records, payload } of frames) {
    let location = payload
    for (const record of records) {
      if (record.kind === 'entry') {
        dirty.entries.push(record)
        continue
      }
      if (record.kind === 'account') {
        accounts.apply(record)
        dirty.accounts.put(record)
        continue
      }
      if (isCopyRecord(record)) {
        copies.apply(record)
        dirty.copies.put(record)
        continue
      }
      if (record.kind === 'create') {
        const object = new StoredObject(record.oid)
        if (!objects.has(record.oid) && !placeReplayed(record, disks)) placeless.add(object)
        objects.set(record.oid, object)
      }
      const object = find(record.oid)
      object.version = record.version
      dirty.objects.set(object, record.version)
      const stamp = { generation, sequence: header.sequence }
      switch (record.kind) {
        case 'create':
          object.fresh = true
          object.tag = record.tag
          object.begin(record.epoch, record.runs)
          break
        case 'blocks':
        case 'placed':
          for (let i = 0; i < record.count; i++) {
            const block = record.first + i
            const entry = {
              word0: record.words[i * 2]!,
              word1: record.words[i * 2 + 1]!,
              location: record.kind === 'placed' ? PLACED : location++,
              freesOtherSlot: record.kind === 'placed' || object.overlay.get(block)?.freesOtherSlot === true,
              placedSlots: 0, // no older generation is left
              previous: null,
              ...stamp,
            }
            object.overlay.set(block, entry)
          }
          break
        case 'zero':
        case 'inherit':
          for (let block = record.first; block < record.first + record.count; block++) {
            const entry = {
              ...wordsOf(record, object, block),
              location: NO_PAYLOAD,
              freesOtherSlot: true,
              placedSlots: 0,
              previous: null,
              ...stamp,
            }
            object.overlay.set(block, entry)
          }
          break
        case 'remove':
          object.removed = true
          object.removedIn = generation
          objects.delete(record.oid)
          disks.placement.removing(object)
          break
      }
    }
  }
  for (const object of placeless) {
    object.loss = object.removed ? null : disks.placement.lossOf(object.oid)
    if (!object.loss) continue
    objects.delete(object.oid)
  }
  return dirty
}

/** The entry of a block that has no bytes of its own any more. */
function wordsOf(
  record: JournalRecord & { kind: 'zero' | 'inherit' },
  { words }: StoredObject,
  block: number,
): { word0: number; word1: number } {
  if (record.kind === 'inherit') return { word0: record.holderVid, word1: inheritWord1(words, block, record.holderVid) }
  const word1 = zeroWord1(record.epoch)
  return { word0: zeroWord0(words, block, word1), word1 }
}

/** The record says where the file of a new object is that bears a tag; another one has none yet. False when that disk is gone. */
function placeReplayed({ oid, tag, disk }: JournalRecord & { kind: 'create' }, disks: DiskArray): boolean {
  const member = tag === 0 ? null : disks.membership.memberOf(disk)
  if (member === null) disks.placement.place(oid, OBJECT_TAIL_BYTES)
  else if (member) disks.placement.placeOn(oid, member)
  return member !== undefined
}
