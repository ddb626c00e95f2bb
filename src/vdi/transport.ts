import type { SheepRequest, SheepResponse } from '../protocol/message.ts'

/**
 * How the VDI client reaches a sheep. In process it is a call into the node's operation table; over a socket it is
 * frames of the Sheepdog protocol. The client cannot tell which.
 */
export interface Transport {
  /**
   * Sends one request; `done` is called exactly once and may be called before this returns. `request.body` must not
   * change until then. A lost connection is answered with the result `NetworkError`.
   */
  submit(request: SheepRequest, done: (response: SheepResponse) => void): void
  close(): void
}
