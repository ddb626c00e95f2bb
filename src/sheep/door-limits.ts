import type { StuckLimits } from '../runtime/stuck-peers.ts'

/** Bounds of one door. The defaults suit a node; tests make them small. */
export interface DoorLimits extends StuckLimits {
  /**
   * Connections, with those that are over and whose requests are still being done. At the limit the oldest that has never
   * sent a whole request gives way to a new one; without such one the new one is refused.
   */
  clientsMax: number
  /** Of one connection: bytes of requests and answers in the making at which it is not read. One request may go beyond. */
  outstandingMaxBytes: number
  /** Of one connection: requests at a time whose answers have a length that nobody knows before. */
  unforeseenMax: number
  /** Bytes that each connection may hold for itself, and those that all together may hold beyond that; see memory-budget.ts. */
  ownBytes: number
  commonBytesMax: number
  /** A process that stands still for so long drops its connections unread; see StallGuard. */
  stallMs: number
}

export const DEFAULT_DOOR_LIMITS: DoorLimits = {
  clientsMax: 4096,
  outstandingMaxBytes: 64 << 20,
  unforeseenMax: 16,
  ownBytes: 64 << 10,
  commonBytesMax: 256 << 20,
  stuckMs: 600_000,
  stuckUnderPressureMs: 10_000,
  stallMs: 4000, // below the time after which clients give a server up and send the same elsewhere
}
