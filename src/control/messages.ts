import { z } from 'zod'

/** Name of the socket in the data directory by which commands find the running node. */
export const CONTROL_SOCKET = 'control.sock'

/** The three messages of the control channel, the same over every carrier; plain JSON values. */
export const messageSchema = z.union([
  z.strictObject({ id: z.int(), method: z.string(), params: z.unknown() }),
  z.strictObject({ id: z.int(), result: z.unknown() }),
  z.strictObject({ id: z.int(), error: z.strictObject({ code: z.string(), message: z.string() }) }),
  z.strictObject({ event: z.string(), data: z.unknown() }),
])

export type Message = z.output<typeof messageSchema>

/**
 * A call that did not end well. `code` is the symbol of a failure on the other side (a StoreError's, a ServiceError's),
 * or one of ours: `Disconnected` (the other side is gone; whether the call took effect is unknown), `UnknownMethod`,
 * `InvalidMessage`, `Internal`.
 */
export class ControlError extends Error {
  override readonly name = 'ControlError'
  readonly code: string

  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

/** Carries messages, whole and in order, to one other side. */
export interface Carrier {
  send(message: Message): void
  /** Messages as they arrive, not yet checked. Those that arrive before this is called wait. */
  onMessage(receive: (message: unknown) => void): void
  /** Called once when the other side is gone, with what is known about why. */
  onClose(closed: (reason: string) => void): void
  close(): void
}
