import { FLAG } from '../../protocol/constants.ts'
import type { SheepRequest } from '../../protocol/message.ts'
import { OP } from '../../protocol/opcodes.ts'
import { sdStat } from '../../protocol/structs.ts'

/** Counts object requests and flushes since the start of the node, for STAT. */
export class Traffic {
  #active = 0
  #total = 0
  #receivedBytes = 0
  #sentBytes = 0
  readonly #byKind = { read: 0, write: 0, remove: 0, flush: 0 }

  begin({ opcode, flags = 0, dataLength = 0, body }: SheepRequest): void {
    this.#active++
    this.#total++
    if (flags & FLAG.WRITE) this.#receivedBytes += body?.length ?? 0
    else this.#sentBytes += dataLength
    this.#byKind[KIND_OF[opcode] ?? 'write']++
  }

  end(): void {
    this.#active--
  }

  encode(): Buffer {
    return sdStat.encode({
      gatewayActive: this.#active,
      gatewayTotal: this.#total,
      gatewayReceivedBytes: this.#receivedBytes,
      gatewaySentBytes: this.#sentBytes,
      gatewayRemoves: this.#byKind.remove,
      gatewayReads: this.#byKind.read,
      gatewayWrites: this.#byKind.write,
      gatewayFlushes: this.#byKind.flush,
    })
  }
}

const KIND_OF: Readonly<Record<number, 'read' | 'remove' | 'flush'>> = {
  [OP.READ_OBJ]: 'read',
  [OP.DISCARD_OBJ]: 'remove',
  [OP.FLUSH_VDI]: 'flush',
}
