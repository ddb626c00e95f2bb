import type { Done, Extent } from '../../vdi/device.ts'
import type { Slab } from './slab.ts'

/** Carries one request through the device. A record is filled again for another request once it was answered. */
export class InFlight {
  busy = false
  type = 0
  cookieHigh = 0
  cookieLow = 0
  offset = 0
  lengthBytes = 0
  /** Bytes of data that the request holds in memory. */
  heldBytes = 0
  /** On the clock that never goes back. */
  startedMs = 0
  /** Of a write: the pool's buffer with the payload, if it has one. */
  storage: Buffer | null = null
  /** Of a read: where the reply is being built. */
  slab: Slab | null = null
  start = 0
  /** Of a block status: the answer. */
  extents: readonly Extent[] = []
  readonly done: Done

  constructor(complete: (record: InFlight, error: Parameters<Done>[0]) => void) {
    this.done = (error) => complete(this, error)
  }
}
