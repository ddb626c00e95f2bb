import assert from 'node:assert'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import type { Host } from './host.ts'

const NAME = 'by-sheepdog'
const TEXT = 'written through the Sheepdog protocol\n'

/** Clients of the Sheepdog protocol are served on their node's own host: what one writes at one node, others read at theirs. */
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
}
