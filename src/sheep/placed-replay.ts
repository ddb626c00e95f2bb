import { StoreError } from '../errors.ts'
import type { DiskFile } from '../runtime/disk.ts'
import { isCopyRecord } from './copies/copy-records.ts'
import type { DiskArray } from './disks/disk-array.ts'
import { innerFile, type Member } from './disks/member.ts'
import { LOCATION_SEGMENT } from './journal.ts'
import { encodeMeta, type JournalRecord } from './journal-format.ts'
import type { ScannedFrame } from './journal-scan.ts'
import { BLOCK_BYTES, blockCrc, blockPosition, objectDirectory, objectPath, oidWords, slotOf } from './object-format.ts'
import { PLACED, type StoredObject } from './stored-object.ts'

/** Stands among the blocks for the file of a new object, whose name may be lost though nothing in it is wanted any more. */
const NAME = -1

/**
 * What unproven frames did to one block, in order, and whether the disk holds it. What the journal has, it holds. What was lost with
 * its disk counts as held: the object answers DiskFailed, and what other disks have of the same frames, and of those that follow,
 * may have been acknowledged as durable.
 */
type BlockHistory = BlockChange[]

interface BlockChange {
  frame: number
  isHeld: boolean
  /** Of what was placed: the record, the index in it, and where the object's file is. */
  placed: { record: PlacedRecord; i: number; life: ObjectLife } | null
}

/**
 * The frames that may be replayed after loss of power: the longest row of them, from the first on, that leaves no block placed
 * which is not what the frame says. A frame beyond it was in the page cache when the power went, and reached the disk before
 * the object file did; it was acknowledged to nobody as durable, and neither was what follows it. Frames below
 * `provenSynced` are not looked at: their blocks were durable, and may have been replaced in the meantime by the checkpoint
 * that the crash interrupted.
 */
export async function cutUnprovenFrames(
  disks: DiskArray,
  frames: readonly ScannedFrame[],
  provenSynced: number,
): Promise<readonly ScannedFrame[]> {
  const histories = await historiesOf(disks, frames, provenSynced)
  let end = frames.length
  for (let before = -1; before !== end; ) {
    before = end
    for (const history of histories) {
      const last = history.findLast(({ frame }) => frame < end)
      if (last && !last.isHeld) end = last.frame
    }
  }
  return frames.slice(0, end)
}

/**
 * After the end of a process alone, all its frames are there, and so is what they placed, but for a rewrite that was under way:
 * the block is one write, or the other, or a mix of the two, and nobody was told that the second was done. The journal gets the
 * checksum of what there is; it is not synced. A disk that has lost its page cache by itself has lost more than that.
 */
export async function acceptRewrites(
  disks: DiskArray,
  segments: readonly DiskFile[],
  frames: readonly ScannedFrame[],
  provenSynced: number,
): Promise<void> {
  const changed = new Set<ScannedFrame>()
  for (const history of await historiesOf(disks, frames, provenSynced)) {
    const [before, last] = history.slice(-2)
    if (!last?.placed || last.isHeld || !before?.placed || slotOfChange(before) !== slotOfChange(last)) continue
    const { record, i, life } = last.placed
    if (!life.member?.isSameCache) continue
    record.words[i * 2] = await checksumOnDisk(life.member, record, i, life.tag)
    changed.add(frames[last.frame]!)
  }
  for (const { header, records, page, payload } of changed) {
    await segments[Math.floor(payload / LOCATION_SEGMENT)]!.write(encodeMeta(header, records), page * BLOCK_BYTES)
  }
}

const slotOfChange = ({ placed }: BlockChange) => placed && slotOf(placed.record.words[placed.i * 2 + 1]!)

async function checksumOnDisk(member: Member, record: PlacedRecord, i: number, tag: number): Promise<number> {
  const file = await openPlaced(member, record.oid, tag)
  if (!file) throw new StoreError('CorruptBlock', `${objectPath(record.oid)} is missing`)
  const bytes = Buffer.alloc(BLOCK_BYTES)
  const word1 = record.words[i * 2 + 1]!
  try {
    await file.read(bytes, blockPosition(record.first + i, slotOf(word1)!))
  } finally {
    await file.close()
  }
  return blockCrc(oidWords(record.oid), record.first + i, word1, bytes)
}

/** One object from its creation to its removal, or what unproven frames tell of it. */
interface ObjectLife {
  /** Of its file's name. */
  tag: number
  /** The disk that its file is on, or should be; null when that is lost. */
  member: Member | null
  blocks: Map<number, BlockHistory>
}

async function historiesOf(
  disks: DiskArray,
  frames: readonly ScannedFrame[],
  provenSynced: number,
): Promise<readonly BlockHistory[]> {
  const lives = new Map<bigint, ObjectLife>()
  const histories: BlockHistory[] = []
  const note = ({ blocks }: ObjectLife, block: number, change: BlockChange) => {
    let history = blocks.get(block)
    if (!history) {
      history = []
      blocks.set(block, history)
      histories.push(history)
    }
    history.push(change)
  }
  for (const [frame, { header, records }] of frames.entries()) {
    for (const record of records) {
      if (record.kind === 'entry' || record.kind === 'account' || isCopyRecord(record)) continue
      if (record.kind === 'create') {
        const member = disks.membership.memberOf(record.disk) ?? null
        lives.set(record.oid, { tag: record.tag, member, blocks: new Map() })
      }
      const life = lives.get(record.oid) ?? (await earlierLife(disks, record.oid))
      lives.set(record.oid, life)
      if (header.sequence < provenSynced) continue
      if (record.kind === 'create' && record.tag !== 0) {
        const isHeld = !life.member || (await isThere(life.member, objectPath(record.oid, record.tag)))
        note(life, NAME, { frame, isHeld, placed: null })
      } else if (record.kind === 'remove') {
        for (const history of life.blocks.values()) history.push({ frame, isHeld: true, placed: null })
      } else if (record.kind === 'placed') {
        const held = await heldBlocks(record, life)
        for (const [i, isHeld] of held.entries())
          note(life, record.first + i, { frame, isHeld, placed: { record, i, life } })
      } else if (record.kind !== 'create') {
        const change = { frame, isHeld: true, placed: null }
        for (let i = 0; i < record.count; i++) note(life, record.first + i, change)
      }
    }
  }
  return histories
}

/** Of an object that was there before these frames: its name was durable, so that without a file it is lost with its disk. */
async function earlierLife(disks: DiskArray, oid: bigint): Promise<ObjectLife> {
  const member = disks.placement.placeOf(oid)
  const isLost = disks.membership.isMissingDisks && !(await isThere(member, objectPath(oid)))
  return { tag: 0, member: isLost ? null : member, blocks: new Map() }
}

/** Of each block of a record, whether the slot holds what the record says. */
async function heldBlocks(record: PlacedRecord, { member, tag }: ObjectLife): Promise<boolean[]> {
  if (!member) return new Array<boolean>(record.count).fill(true)
  const file = await openPlaced(member, record.oid, tag)
  if (!file) return new Array<boolean>(record.count).fill(false)
  const object = oidWords(record.oid)
  const held: boolean[] = []
  try {
    for (const { first, position, words1 } of runsOf(placedBlocks(record))) {
      const bytes = Buffer.alloc(words1.length * BLOCK_BYTES)
      const length = await file.read(bytes, position)
      for (const [i, word1] of words1.entries()) {
        const end = (i + 1) * BLOCK_BYTES
        const crc = blockCrc(object, first + i, word1, bytes.subarray(end - BLOCK_BYTES, end))
        held.push(end <= length && crc === record.words[(first + i - record.first) * 2])
      }
    }
  } finally {
    await file.close()
  }
  return held
}

type PlacedRecord = JournalRecord & { kind: 'placed' | 'blocks' }

/** Blocks that lie one after the other in the file of an object. */
interface SlotRun {
  first: number
  position: number
  /** The second word of each. */
  words1: number[]
}

/** Blocks in order, in as few runs as can be: there may be some hundred thousand to look at before the store is there. */
function* runsOf(blocks: Iterable<readonly [block: number, word1: number]>): Generator<SlotRun> {
  let run: SlotRun | null = null
  for (const [block, word1] of blocks) {
    const position = blockPosition(block, slotOf(word1)!)
    if (run && position === run.position + run.words1.length * BLOCK_BYTES) run.words1.push(word1)
    else {
      if (run) yield run
      run = { first: block, position, words1: [word1] }
    }
  }
  if (run) yield run
}

function* placedBlocks({ first, count, words }: PlacedRecord): Generator<[number, number]> {
  for (let i = 0; i < count; i++) yield [first + i, words[i * 2 + 1]!]
}

/** Files that are open together, to be synced together. */
const SYNCED_TOGETHER = 128

/**
 * Writes what the unproven frames have placed once more, and syncs it and the names of new files: the process before may have
 * left it in the page cache only, where a failed sync could even have marked it clean.
 */
export async function rewritePlaced(
  disks: DiskArray,
  objects: Iterable<StoredObject>,
  provenSynced: number,
): Promise<void> {
  const concerned = new Map<Member, { object: StoredObject; placed: [number, number][] }[]>()
  for (const object of objects) {
    const placed: [number, number][] = []
    for (const [block, { location, sequence, word1 }] of object.overlay)
      if (location === PLACED && sequence >= provenSynced) placed.push([block, word1])
    if (object.removed || object.lost || (placed.length === 0 && object.tag === 0)) continue
    const member = disks.placement.placeOf(object.oid)
    const there = concerned.get(member) ?? []
    there.push({ object, placed: placed.sort(([a], [b]) => a - b) })
    concerned.set(member, there)
  }
  for (const [member, there] of concerned) {
    for (let i = 0; i < there.length; i += SYNCED_TOGETHER) await rewriteOn(member, there.slice(i, i + SYNCED_TOGETHER))
  }
}

async function rewriteOn(
  member: Member,
  concerned: readonly { object: StoredObject; placed: readonly [number, number][] }[],
): Promise<void> {
  const files: DiskFile[] = []
  try {
    for (const { object, placed } of concerned) {
      const file = await openPlaced(member, object.oid, object.tag)
      if (!file) throw new StoreError('CorruptBlock', `${objectPath(object.oid)} is missing`)
      files.push(file)
      for (const { position, words1 } of runsOf(placed)) {
        const bytes = Buffer.alloc(words1.length * BLOCK_BYTES)
        await file.read(bytes, position)
        await file.write(bytes, position)
      }
    }
    const directories = [...new Set(concerned.map(({ object }) => objectDirectory(object.oid)))]
    await member.guard('syncing', () => member.disk.syncMany(files.map(innerFile), directories))
  } finally {
    for (const file of files) await file.close()
  }
}

/** The file under its name with the tag, or under its own, which an interrupted checkpoint may have given it already. */
async function openPlaced(member: Member, oid: bigint, tag: number): Promise<DiskFile | null> {
  const tagged = tag === 0 ? null : await openIfThere(member, objectPath(oid, tag))
  return tagged ?? openIfThere(member, objectPath(oid))
}

async function isThere(member: Member, path: string): Promise<boolean> {
  const file = await openIfThere(member, path)
  await file?.close()
  return file !== null
}

async function openIfThere(member: Member, path: string): Promise<DiskFile | null> {
  try {
    return await member.open(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}
