/** Bounds of one server. The defaults suit a gateway; tests make them small. */
export interface NbdLimits {
  /** Connections in all, and those of them still in the handshake; further ones are closed at once. */
  connectionsMax: number
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
  /** A process that did not run for longer drops its connections unread: their clients may have gone elsewhere. */
  stallMs: number
  /** How long a client may take to read its last replies when the server stops. */
  closeMs: number
}

export const DEFAULT_LIMITS: NbdLimits = {
  connectionsMax: 1024,
  handshakesMax: 128,
  handshakeMs: 30_000,
  optionsMax: 64,
  requestsMax: 256,
  requestBytesMax: 32 * 1024 * 1024,
  stallMs: 4000,
  closeMs: 5000,
}
