import { existsSync } from 'node:fs'
import path from 'node:path'
import { expect, it } from 'vitest'
import { EXIT } from '../../src/cli/command.ts'
import { FOUND_FILE } from '../../src/sheep/cluster/cluster-secret.ts'
import { LiveNode } from './live-node.ts'

const INIT = ['cluster', 'init', '--address', '192.0.2.1']

it('a store with VDIs comes along as the first of several nodes, and it is said what that takes', async () => {
  const node = await LiveNode.start()
  try {
    expect((await node.run(['vdi', 'create', 'disk', '1M'])).code).toBe(EXIT.OK)
    expect((await node.run(['vdi', 'snapshot', '--tag', 'one', 'disk'])).code).toBe(EXIT.OK)
    const { code, out } = await node.run([...INIT, '--corosync-dir', path.join(node.dataDir, 'corosync'), '--json'])
    expect(code).toBe(EXIT.OK)
    const { held, next } = JSON.parse(out)
    expect(held).toMatchObject({ vdis: 1, snapshots: 1, obstacles: [] })
    expect(held.bytes_to_write).toBeGreaterThan(0)
    expect(next[0]).toMatch(/^collie node stop /)
    expect(existsSync(path.join(node.dataDir, FOUND_FILE))).toBe(true)
  } finally {
    await node.stop()
  }
})

it('a store with more than several nodes keep is refused, before anything is written', async () => {
  const node = await LiveNode.start()
  try {
    expect((await node.run(['vdi', 'create', 'disk', '1M'])).code).toBe(EXIT.OK)
    // Sixteen megabytes, as the log has them.
    for (let i = 0; i < 193; i++) await node.vdis.setAttribute('disk', `key ${i}`, Buffer.alloc(64 << 10))
    const { code, err } = await node.run(INIT)
    expect(code).toBe(EXIT.CANNOT_CREATE)
    expect(err).toMatch(
      /cannot become the first of several nodes yet:\n {2}the attributes of its VDIs hold \d+ bytes, more than/,
    )
    expect(existsSync(path.join(node.dataDir, FOUND_FILE))).toBe(false)
  } finally {
    await node.stop()
  }
})
