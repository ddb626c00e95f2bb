import type { Direction } from '../qos/rate-limiter.ts'
import { COMMAND, COMMAND_FLAG, NBD_ERROR, PAYLOAD_BYTES_MAX } from './protocol.ts'
import type { NbdRequest } from './request-reader.ts'

/** Block status is told in at most this many extents at a time, which take about as much memory; the client asks on. */
export const STATUS_EXTENTS_MAX = 4096
const STATUS_HELD_BYTES = 512 * 1024
/** A hint to cache reads this much at a time, and of a long range only the beginning: what a READ could have asked for. */
export const CACHE_PIECE_BYTES = 256 * 1024
export const CACHE_BYTES_MAX = PAYLOAD_BYTES_MAX

/** A reply without data, or an error with its message, is not longer; else a client could pile up those of requests that hold nothing. */
const REPLY_BYTES = 128

/** Commands whose length is one of bytes that a client reads or changes. */
export function movesBytes(type: number): boolean {
  return type !== COMMAND.BLOCK_STATUS && type !== COMMAND.CACHE && type !== COMMAND.FLUSH
}

/** Under which limits a command is; null for those that move nothing. */
export function directionOf(type: number): Direction | null {
  switch (type) {
    case COMMAND.READ:
    case COMMAND.CACHE:
      return 'read'
    case COMMAND.WRITE:
    case COMMAND.WRITE_ZEROES:
    case COMMAND.TRIM:
      return 'write'
    default:
      return null
  }
}

/** What a command counts under limits of bytes: a hole that is made is one operation and no bytes. */
export function countedBytes({ type, flags, lengthBytes }: NbdRequest): number {
  if (type === COMMAND.TRIM) return 0
  if (type === COMMAND.WRITE_ZEROES) return (flags & COMMAND_FLAG.NO_HOLE) === 0 ? 0 : lengthBytes
  return type === COMMAND.CACHE ? Math.min(lengthBytes, CACHE_BYTES_MAX) : lengthBytes
}

/** Memory that a request keeps until it is answered, and its reply until that is taken. */
export function heldBytes({ type, lengthBytes, error }: NbdRequest): number {
  if (type === COMMAND.DISC) return 0 // not answered
  return error === NBD_ERROR.NONE ? Math.max(dataBytes(type, lengthBytes), REPLY_BYTES) : REPLY_BYTES
}

function dataBytes(type: number, lengthBytes: number): number {
  switch (type) {
    case COMMAND.READ:
    case COMMAND.WRITE:
      return lengthBytes
    case COMMAND.CACHE:
      return CACHE_PIECE_BYTES
    case COMMAND.BLOCK_STATUS:
      return STATUS_HELD_BYTES
    default:
      return 0
  }
}
