import type { StuckLimits } from '../../runtime/stuck-peers.ts'

/** Bounds of one server. The defaults suit a gateway; tests make them small. */
export interface NbdLimits extends StuckLimits {
  /**
   * Connections in all, those of one right, and those in the handshake. Further ones are refused at once; one more
   * handshake takes the place of the oldest that has not shown a right.
   */
  connectionsMax: number
  exportConnectionsMax: number
  handshakesMax: number
  /** A handshake that takes longer (opening the volume included), or has more options, is cut. */
  handshakeMs: number
  optionsMax: number
  /**
   * Requests of one connection that are in the device, and bytes that they and their unsent replies hold. At the
   * limit the connection is not read; a single request may go beyond it, as long as it is the only one.
   */
  requestsMax: number
  requestBytesMax: number
  /**
   * Bytes that each connection may hold for itself, and those that all together may hold beyond that; see
   * runtime/memory-budget.ts.
   */
  ownBytes: number
  commonBytesMax: number
  /** A process that did not run for longer drops its connections unread: their clients may have gone elsewhere. */
  stallMs: number
  /** How long a client may take to read its last replies when its session ends. */
  closeMs: number
}

export const DEFAULT_LIMITS: NbdLimits = {
  connectionsMax: 1024,
  exportConnectionsMax: 128,
  handshakesMax: 128,
  handshakeMs: 30_000,
  optionsMax: 64,
  requestsMax: 256,
  requestBytesMax: 32 * 1024 * 1024,
  ownBytes: 128 * 1024,
  commonBytesMax: 256 * 1024 * 1024,
  stuckMs: 600_000,
  stuckUnderPressureMs: 10_000,
  stallMs: 4000,
  closeMs: 5000,
}
