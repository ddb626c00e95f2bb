import { expect, it } from 'vitest'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT } from '../../../src/sheep/object-format.ts'
import { CopiesBench, OID, view } from './copies-bench.ts'

it('the tail of a whole object is put into the other copies piece by piece, before anybody reads', async () => {
  const copies = new CopiesBench()
  const one = view(1, 'ABC')
  const owner = copies.owner(one)
  await copies.run(copies.write(owner, { first: 0 }, 'before', false))
  copies.isLost = (node, { type }) => type === 'write' && node !== 'A'
  const all = { first: 0, bytes: Buffer.alloc(BLOCKS_PER_OBJECT * BLOCK_BYTES, 'after') }
  void owner.write(OID, { blocks: [all], zeros: [] }, { exists: true }).catch(() => {})
  await copies.run(Promise.resolve())

  const filled: number[] = []
  copies.isLost = (_node, request) => {
    if (request.type === 'fill') filled.push(request.contents.blocks.reduce((sum, { bytes }) => sum + bytes.length, 0))
    return false
  }
  expect(await copies.read(copies.owner(one, view(2, 'ABC')), { first: 1000, count: 1 })).toContain('after')
  expect(filled.reduce((sum, bytes) => sum + bytes, 0)).toBe(2 * BLOCKS_PER_OBJECT * BLOCK_BYTES)
  expect(Math.max(...filled)).toBe(1 << 20)
})
