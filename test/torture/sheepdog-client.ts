import assert from 'node:assert'
import { writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import path from 'node:path'
import { encodeRequestHeader } from '../../src/protocol/header.ts'
import { OP } from '../../src/protocol/opcodes.ts'
import { type Host, PORTS } from './host.ts'

const PATIENCE_MS = 10_000
const DOG_PROTO_VER = 2
const NAME = 'by-sheepdog'
const TEXT = 'written through the Sheepdog protocol\n'

/** Clients of the Sheepdog protocol are served on their node's own host only: what one writes at one node, others read at theirs. */
export async function throughSheepdog(hosts: readonly Host[], directory: string): Promise<void> {
  const input = path.join(directory, 'text')
  writeFileSync(input, TEXT)
  const [first] = hosts
  await first!.collie('vdi', 'create', NAME, '8M')
  await first!.collie('vdi', 'write', NAME, '4M', '--input', input)
  for (const host of hosts.slice(-2)) {
    const read = await host.collie('vdi', 'read', NAME, '4M', String(TEXT.length))
    assert.equal(read, TEXT.trimEnd(), `read at ${host.address}`)
    const { vdis } = await host.ask('vdi_list', {})
    assert.equal(vdis.find(({ name }) => name === NAME)?.copies, Math.min(3, hosts.length))
  }
  await hosts.at(-1)!.collie('vdi', 'delete', NAME)
  for (const { address } of hosts) assert.equal((await answerOf(address)).length, 0, `${address} serves another host`)
}

/** What this host, which is none of the nodes, is told there before the connection ends. */
async function answerOf(address: string): Promise<Buffer> {
  const socket = connect(PORTS.sheep, address)
  socket.setTimeout(PATIENCE_MS, () => socket.destroy(new Error(`${address} neither answers nor ends the connection`)))
  socket.write(encodeRequestHeader({ opcode: OP.STAT_CLUSTER, dataLength: 4096, protoVer: DOG_PROTO_VER }))
  const chunks: Buffer[] = []
  try {
    for await (const chunk of socket) chunks.push(chunk as Buffer)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ECONNRESET') throw error
  }
  return Buffer.concat(chunks)
}
