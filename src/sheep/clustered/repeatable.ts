import { INODE_MAP_ENTRY_SIZE_BYTES, INODE_MAP_OFFSET_BYTES } from '../../protocol/inode.ts'
import type { SheepRequest } from '../../protocol/message.ts'
import { oidIndex, oidKind } from '../../protocol/oid.ts'
import { OP } from '../../protocol/opcodes.ts'
import { OBJECT_BYTES } from '../object-format.ts'
import type { OrderedChange } from './change-order.ts'

/**
 * Whether a request of the original protocol may be done twice, the second time when the first one is over, as long as nothing else was
 * done to the same bytes in between: the I/O of machines. Not the header of an inode, nor machine state, which are written past sessions.
 */
export function isRepeatable({ opcode, oid = 0n, offset = 0 }: SheepRequest): boolean {
  if (OBJECT_READS.has(opcode)) return true
  if (!OBJECT_WRITES.has(opcode)) return false
  return oidKind(oid) === 'data' || (oidKind(oid) === 'inode' && offset >= INODE_MAP_OFFSET_BYTES)
}

export const OBJECT_READS: ReadonlySet<number> = new Set([OP.READ_OBJ, OP.EXIST, OP.GET_HASH, OP.FLUSH_VDI])
export const OBJECT_WRITES: ReadonlySet<number> = new Set([OP.WRITE_OBJ, OP.CREATE_AND_WRITE_OBJ, OP.DISCARD_OBJ])

/** One of those that change something, among all that its client has asked for. */
export class RepeatableChange implements OrderedChange {
  /** Of the VDI. */
  readonly start: number
  readonly end: number
  isHeld = false
  /** Resolves when nothing stands before it any more, if something did. */
  readonly isFree: Promise<void>
  #free = () => {}

  private constructor(start: number, lengthBytes: number) {
    this.start = start
    this.end = start + lengthBytes
    this.isFree = new Promise((resolve) => {
      this.#free = resolve
    })
  }

  go(): void {
    this.#free()
  }

  /** Null for one that changes nothing. */
  static of({ opcode, oid = 0n, offset = 0, body }: SheepRequest): RepeatableChange | null {
    if (OBJECT_READS.has(opcode)) return null
    const lengthBytes = body?.length ?? 0
    const isMap = oidKind(oid) === 'inode' // of which zeros are discards
    const index = isMap ? (offset - INODE_MAP_OFFSET_BYTES) / INODE_MAP_ENTRY_SIZE_BYTES : oidIndex(oid)
    if (isMap)
      return new RepeatableChange(index * OBJECT_BYTES, (lengthBytes / INODE_MAP_ENTRY_SIZE_BYTES) * OBJECT_BYTES)
    if (opcode === OP.DISCARD_OBJ) return new RepeatableChange(index * OBJECT_BYTES, OBJECT_BYTES)
    return new RepeatableChange(index * OBJECT_BYTES + offset, lengthBytes)
  }
}
