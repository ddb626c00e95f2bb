import { FLAG, VDI_NAME_SIZE_BYTES, VDI_TAG_SIZE_BYTES } from '../../../src/protocol/constants.ts'
import type { SheepRequest } from '../../../src/protocol/message.ts'
import { OP } from '../../../src/protocol/opcodes.ts'
import { QEMU_PROTO_VER } from '../../../src/sheep/locks.ts'
import type { Reply } from '../../../src/sheep/server.ts'
import type { BenchNode } from './cluster-bench.ts'

export interface ForeignConnection {
  /** Never resolves when the connection ends before. */
  ask(request: SheepRequest): Promise<Reply>
  /** The node has dropped the connection, or its process has ended. */
  readonly isOver: boolean
  close(): void
}

let ports = 1000

/** A client of the original protocol, as QEMU is one, on a node that runs. */
export function connectForeign(node: BenchNode, host = '127.0.0.1'): ForeignConnection {
  const { running } = node
  if (!running) throw new Error(`${node.name} does not run`)
  const sheep = running.node
  let isOver = false
  const end = () => {
    if (isOver) return
    isOver = true
    if (node.running === running) sheep.clientClosed(client)
  }
  const client = { id: ++ports, peer: `${host}:${ports}`, cut: end }
  sheep.clientOpened(client)
  return {
    get isOver() {
      return isOver || node.running !== running
    },
    ask: (request) =>
      new Promise((resolve) =>
        sheep.handle({ protoVer: QEMU_PROTO_VER, ...request }, client, (reply) => {
          if (!isOver && node.running === running) resolve(reply)
        }),
      ),
    close: end,
  }
}

export function lockRequest(name: string): SheepRequest {
  const body = Buffer.alloc(VDI_NAME_SIZE_BYTES + VDI_TAG_SIZE_BYTES)
  body.write(name)
  return { opcode: OP.LOCK_VDI, flags: FLAG.WRITE, body }
}

/** As QEMU opens a VDI: a connection for its I/O, and one that sends LOCK_VDI and closes. */
export function openAsQemu(node: BenchNode, name: string): { io: ForeignConnection; locked: Promise<Reply> } {
  const io = connectForeign(node)
  const control = connectForeign(node)
  const locked = control.ask(lockRequest(name))
  void locked.then(() => control.close())
  return { io, locked }
}
