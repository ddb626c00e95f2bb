import { DEVICE_BLOCK_BYTES } from '../../vdi/device.ts'
import {
  BASE_ALLOCATION,
  BLOCK_BYTES_MIN,
  INFO,
  OPTION_REPLY,
  OPTION_REPLY_MAGIC_HIGH,
  OPTION_REPLY_MAGIC_LOW,
  PAYLOAD_BYTES_MAX,
  STRING_BYTES_MAX,
  TRANSMISSION_FLAG,
} from './protocol.ts'

/** The id under which base:allocation is selected; a list has no ids, so there it is 0. */
export const BASE_ALLOCATION_ID = 1
const RESERVED_ZEROES_BYTES = 124

export interface InfoRequest {
  name: string
  wanted: ReadonlySet<number>
}

export interface MetaContextRequest {
  name: string
  queries: readonly string[]
}

/** What a client is told about its export. */
export interface ExportInfo {
  /** For people. */
  description: string
  sizeBytes: number
  transmissionFlags: number
}

/** INFO and GO. Data: 32 bits name length, name, 16 bits count, `count` times 16 bits. Undefined when malformed. */
export function parseInfoRequest(data: Buffer): InfoRequest | undefined {
  const name = readString(data, 0)
  if (name === undefined || data.length < name.end + 2) return undefined
  const count = data.readUInt16BE(name.end)
  if (data.length !== name.end + 2 + 2 * count) return undefined
  const wanted = new Set<number>()
  for (let index = 0; index < count; index++) wanted.add(data.readUInt16BE(name.end + 2 + 2 * index))
  return { name: name.text, wanted }
}

/**
 * LIST_META_CONTEXT and SET_META_CONTEXT. Data: 32 bits name length, name, 32 bits count, `count` times (32 bits
 * length, query). Undefined when malformed.
 */
export function parseMetaContextRequest(data: Buffer): MetaContextRequest | undefined {
  const name = readString(data, 0)
  if (name === undefined || data.length < name.end + 4) return undefined
  const count = data.readUInt32BE(name.end)
  const queries: string[] = []
  let position = name.end + 4
  for (let index = 0; index < count; index++) {
    const query = readString(data, position) // fails at the end of the data, which bounds the loop
    if (query === undefined) return undefined
    queries.push(query.text)
    position = query.end
  }
  return position === data.length ? { name: name.text, queries } : undefined
}

/** EXPORT_NAME. Data: the name alone. Undefined when it cannot be one. */
export function parseExportName(data: Buffer): string | undefined {
  return data.length <= STRING_BYTES_MAX ? data.toString('utf8') : undefined
}

/** A list without queries is a list of everything; `base:` is the wildcard of a list and selects nothing. */
export function listsBaseAllocation(queries: readonly string[]): boolean {
  return queries.length === 0 || queries.includes('base:') || queries.includes(BASE_ALLOCATION)
}

export function selectsBaseAllocation(queries: readonly string[]): boolean {
  return queries.includes(BASE_ALLOCATION)
}

/**
 * What the export can do, and no more. SEND_FAST_ZERO promises only that a request which would not be fast fails fast.
 * CAN_MULTI_CONN holds because a flush of a Device covers what was written through all.
 */
export function transmissionFlags(readOnly: boolean, structuredReplies: boolean): number {
  let flags =
    TRANSMISSION_FLAG.HAS_FLAGS |
    TRANSMISSION_FLAG.SEND_FLUSH |
    TRANSMISSION_FLAG.SEND_FUA |
    TRANSMISSION_FLAG.SEND_TRIM |
    TRANSMISSION_FLAG.SEND_WRITE_ZEROES |
    TRANSMISSION_FLAG.CAN_MULTI_CONN |
    TRANSMISSION_FLAG.SEND_CACHE |
    TRANSMISSION_FLAG.SEND_FAST_ZERO
  if (readOnly) flags |= TRANSMISSION_FLAG.READ_ONLY
  if (structuredReplies) flags |= TRANSMISSION_FLAG.SEND_DF
  return flags
}

/** S: 64 bits magic, 32 bits option it answers, 32 bits reply type, 32 bits length, data (a message for people in errors). */
export function encodeOptionReply(option: number, reply: number, data: Buffer | string = ''): Buffer {
  const body = typeof data === 'string' ? Buffer.from(data) : data
  const message = Buffer.alloc(20 + body.length)
  message.writeUInt32BE(OPTION_REPLY_MAGIC_HIGH, 0)
  message.writeUInt32BE(OPTION_REPLY_MAGIC_LOW, 4)
  message.writeUInt32BE(option, 8)
  message.writeUInt32BE(reply, 12)
  message.writeUInt32BE(body.length, 16)
  body.copy(message, 20)
  return message
}

/** EXPORT is always told; NAME (only ever the one asked for), DESCRIPTION and BLOCK_SIZE when wanted; then ACK. */
export function encodeInfoReplies(option: number, request: InfoRequest, info: ExportInfo): Buffer {
  const replies = [encodeOptionReply(option, OPTION_REPLY.INFO, encodeExportInfo(info))]
  const texts = [
    [INFO.NAME, request.name],
    [INFO.DESCRIPTION, info.description],
  ] as const
  for (const [type, text] of texts) {
    if (!request.wanted.has(type)) continue
    const data = Buffer.from(`\0\0${text}`)
    data.writeUInt16BE(type)
    replies.push(encodeOptionReply(option, OPTION_REPLY.INFO, data))
  }
  if (request.wanted.has(INFO.BLOCK_SIZE)) {
    const blockSize = Buffer.alloc(14)
    blockSize.writeUInt16BE(INFO.BLOCK_SIZE)
    blockSize.writeUInt32BE(BLOCK_BYTES_MIN, 2)
    blockSize.writeUInt32BE(DEVICE_BLOCK_BYTES, 6)
    blockSize.writeUInt32BE(PAYLOAD_BYTES_MAX, 10)
    replies.push(encodeOptionReply(option, OPTION_REPLY.INFO, blockSize))
  }
  replies.push(encodeOptionReply(option, OPTION_REPLY.ACK))
  return Buffer.concat(replies)
}

/** S: one META_CONTEXT (32 bits id, name) when base:allocation matched, then ACK. */
export function encodeMetaContextReplies(option: number, matched: boolean, id: number): Buffer {
  const ack = encodeOptionReply(option, OPTION_REPLY.ACK)
  if (!matched) return ack
  const context = Buffer.from(`\0\0\0\0${BASE_ALLOCATION}`)
  context.writeUInt32BE(id)
  return Buffer.concat([encodeOptionReply(option, OPTION_REPLY.META_CONTEXT, context), ack])
}

/** The answer to EXPORT_NAME. S: 64 bits size, 16 bits transmission flags, 124 zero bytes unless agreed otherwise. */
export function encodeExportNameReply(info: ExportInfo, noZeroes: boolean): Buffer {
  const reply = Buffer.alloc(10 + (noZeroes ? 0 : RESERVED_ZEROES_BYTES))
  reply.writeBigUInt64BE(BigInt(info.sizeBytes), 0)
  reply.writeUInt16BE(info.transmissionFlags, 8)
  return reply
}

function encodeExportInfo(info: ExportInfo): Buffer {
  const data = Buffer.alloc(12)
  data.writeUInt16BE(INFO.EXPORT)
  data.writeBigUInt64BE(BigInt(info.sizeBytes), 2)
  data.writeUInt16BE(info.transmissionFlags, 10)
  return data
}

function readString(data: Buffer, position: number): { text: string; end: number } | undefined {
  if (data.length < position + 4) return undefined
  const lengthBytes = data.readUInt32BE(position)
  const end = position + 4 + lengthBytes
  if (lengthBytes > STRING_BYTES_MAX || data.length < end) return undefined
  return { text: data.toString('utf8', position + 4, end), end }
}
