import { expect, it } from 'vitest'
import { StoreError } from '../../../src/errors.ts'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import { benchWithOwner } from './cluster-bench.ts'

const codeOf = (error: unknown) => (error instanceof StoreError ? error.code : error)

it('who opens a VDI that is just being deleted writes nothing that stays', async () => {
  const { bench, vid } = await benchWithOwner()
  const { sheep } = bench.nodes[0]!.running!.node
  const deleting = bench.vdis(0).remove('a')
  while (!sheep.state.vdis.get(vid)!.deleting && sheep.sessions.size === 0) {
    await bench.pass(0.2)
    const opened = bench.vdis(0).open(vid, { readOnly: false })
    const device = await bench.run(opened.catch(() => null))
    if (!device) break
    await bench.run(deleting)
    const outcome = await bench.run(bench.write(device, 0, Buffer.alloc(BLOCK_BYTES, 1)).then(() => 'written', codeOf))
    expect(outcome).toBe('Fenced')
  }
  await bench.run(deleting)
  await bench.pass(5000)
  expect(sheep.sessions.size).toBe(0)
  expect(bench.objects()).toEqual([])
})
