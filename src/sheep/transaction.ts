import type { CopyRecord } from './copies/copy-records.ts'
import type { LoggedEntry } from './entry-log.ts'
import type { AccountImage, JournalRecord } from './journal-format.ts'
import type { OverlayEntry, StoredObject } from './stored-object.ts'

/** What one transaction has changed in memory and appends to the journal. */
export class Transaction {
  readonly records: JournalRecord[] = []
  readonly payload: Buffer[] = []
  readonly objects: StoredObject[] = []
  readonly removed: StoredObject[] = []
  readonly entries: LoggedEntry[] = []
  readonly accounts: AccountImage[] = []
  /** Null for none, as always in a store of one node. */
  copies: CopyRecord[] | null = null
  /** Blocks whose bytes are in `payload`, in that order. */
  readonly journaled: OverlayEntry[] = []
  /** Blocks without bytes in the journal. */
  readonly inPlace: OverlayEntry[] = []
  /** Blocks that are in object files already. */
  placedBlocks = 0
  /** New files that those are in; they are open until a checkpoint has named them. */
  placedFiles = 0

  add(object: StoredObject, record: JournalRecord): void {
    this.objects.push(object)
    this.records.push(record)
  }

  /** The journal has written the frame; the payload begins at `location`. */
  stamp(location: number, generation: number, sequence: number): void {
    for (const entry of this.journaled) {
      entry.location = location++
      stampEntry(entry, generation, sequence)
    }
    for (const entry of this.inPlace) stampEntry(entry, generation, sequence)
    for (const object of this.removed) object.removedIn = generation
  }
}

/** Of the entries that one generation leaves of a block, only the last is wanted. */
function stampEntry(entry: OverlayEntry, generation: number, sequence: number): void {
  entry.generation = generation
  entry.sequence = sequence
  const { previous } = entry
  if (previous?.generation !== generation) return
  entry.placedSlots |= previous.placedSlots
  entry.previous = previous.previous
}
