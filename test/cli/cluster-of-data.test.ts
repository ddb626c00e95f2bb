import { existsSync } from 'node:fs'
import path from 'node:path'
import { expect, it } from 'vitest'
import { EXIT } from '../../src/cli/command.ts'
import { FOUND_FILE } from '../../src/sheep/cluster/cluster-secret.ts'
import { LiveNode } from './live-node.ts'

it('a store with VDIs is refused as the first of several nodes, before anything is written', async () => {
  const node = await LiveNode.start()
  try {
    expect((await node.run(['vdi', 'create', 'disk', '1M'])).code).toBe(EXIT.OK)
    const { code, err } = await node.run(['cluster', 'init', '--address', '192.0.2.1'])
    expect(code).toBe(EXIT.CANNOT_CREATE)
    expect(err).toMatch(/has 1 VDIs; .*another data directory.*`collie vdi export`/s)
    expect(existsSync(path.join(node.dataDir, FOUND_FILE))).toBe(false)
  } finally {
    await node.stop()
  }
})
