import { crc32 } from '@node-rs/crc32'
import { type JournalRecord, readRecord, recordBytes, writeRecord } from './journal-format.ts'

/**
 * Records at rest outside of the journal: what a checkpoint appends to a file that only grows.
 *
 *   batch   = header (40 bytes), records
 *   header  = magic u32, format u32, store id 16 bytes, generation u48 and 2 bytes of nothing, bytes of records u32, CRC u32
 *             of it all
 */
export interface BatchKind {
  magic: number
  format: number
  storeId: Buffer
}

export const BATCH_HEADER_BYTES = 40
const CRC_OFFSET = BATCH_HEADER_BYTES - 4

export function encodeBatch(kind: BatchKind, generation: number, records: readonly JournalRecord[]): Buffer {
  const length = records.reduce((sum, record) => sum + recordBytes(record), 0)
  const batch = Buffer.alloc(BATCH_HEADER_BYTES + length)
  batch.writeUInt32LE(kind.magic, 0)
  batch.writeUInt32LE(kind.format, 4)
  kind.storeId.copy(batch, 8)
  batch.writeUIntLE(generation, 24, 6)
  batch.writeUInt32LE(length, 32)
  let at = BATCH_HEADER_BYTES
  for (const record of records) at = writeRecord(batch, at, record)
  batch.writeUInt32LE(batchCrc(batch), CRC_OFFSET)
  return batch
}

/** The length of the batch that this header begins; null when it is none of the kind. Proves nothing yet. */
export function batchLength(kind: BatchKind, header: Buffer): number | null {
  const isHeader =
    header.length === BATCH_HEADER_BYTES &&
    header.readUInt32LE(0) === kind.magic &&
    header.readUInt32LE(4) === kind.format &&
    header.subarray(8, 24).equals(kind.storeId)
  return isHeader ? BATCH_HEADER_BYTES + header.readUInt32LE(32) : null
}

/** What a whole batch says; null when it does not match its CRC. */
export function decodeBatch(batch: Buffer): { generation: number; records: JournalRecord[] } | null {
  if (batchCrc(batch) !== batch.readUInt32LE(CRC_OFFSET)) return null
  const records: JournalRecord[] = []
  for (let at = BATCH_HEADER_BYTES; at < batch.length; ) {
    const record = readRecord(batch, at)
    records.push(record)
    at += recordBytes(record)
  }
  return { generation: batch.readUIntLE(24, 6), records }
}

/** CRC-32 of all but the field that holds it. */
function batchCrc(batch: Buffer): number {
  return crc32(batch.subarray(BATCH_HEADER_BYTES), crc32(batch.subarray(0, CRC_OFFSET)))
}
