import type { Device } from '../vdi/device.ts'
import type { ExportLimits } from '../vdi/export-limits.ts'

/** The right of one attachment to one volume. */
export interface ExportRight {
  /** The attachment's id: what logs and `cutOff` name the right by. */
  readonly id: string
  readonly readOnly: boolean
  /** How fast all connections under it may go together; nothing says that they may go as fast as they can. */
  readonly limits?: ExportLimits | null
  /** Opens a session of its own on the volume. Rejects with a StoreError. */
  open(): Promise<Device>
}

/**
 * The rights that hold now, by export name; the composition root provides it. A name is a secret: a server logs it
 * nowhere and tells a client no other name than the one it came with.
 */
export interface ExportDirectory {
  lookup(name: string): Promise<ExportRight | undefined>
}
