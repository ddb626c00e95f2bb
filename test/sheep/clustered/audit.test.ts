import { describe, expect, it } from 'vitest'
import { dataOid } from '../../../src/protocol/oid.ts'
import { BLOCK_BYTES, blockPosition, OBJECT_BYTES, objectPath } from '../../../src/sheep/object-format.ts'
import type { Device } from '../../../src/vdi/device.ts'
import { type BenchNode, ClusterBench } from './cluster-bench.ts'

const BLOCKS = 64
const large = (fill: number) => Buffer.alloc(BLOCKS * BLOCK_BYTES, fill)

/** Three nodes; a VDI of the first with a snapshot, and one of the second. */
async function open(seed: number) {
  const bench = await ClusterBench.open(seed, 3)
  const vid = await bench.run(bench.vdis(0).create('a', 4 * OBJECT_BYTES))
  const device = await bench.run(bench.vdis(0).open(vid, { readOnly: false }))
  await bench.run(bench.write(device, 0, large(1)))
  await bench.run(bench.write(device, OBJECT_BYTES, large(2)))
  const current = await bench.run(bench.vdis(0).snapshot(vid, 's'))
  await bench.run(bench.write(device, BLOCK_BYTES, large(3)))
  const other = await bench.run(bench.vdis(1).create('b', 2 * OBJECT_BYTES))
  const second = await bench.run(bench.vdis(1).open(other, { readOnly: false }))
  await bench.run(bench.write(second, OBJECT_BYTES, large(4)))
  return { bench, vid, current, device }
}

const discard = (device: Device, offset: number, length: number) =>
  new Promise<void>((resolve, reject) => device.discard(offset, length, (error) => (error ? reject(error) : resolve())))

/** What was written is in object files on each node: more has come since than the journal takes. */
async function written(bench: ClusterBench, device: Device): Promise<void> {
  const checkpoints = () =>
    bench.run(Promise.all(bench.nodes.map(async ({ running }) => (await running!.node.sheep.stats()).checkpoints)))
  const before = await checkpoints()
  const small = Buffer.alloc(8 * BLOCK_BYTES, 9)
  for (let count = 0; count < 160; count++) await bench.run(bench.write(device, 3 * OBJECT_BYTES, small))
  await bench.pass(1000)
  const after = await checkpoints()
  for (const [at, count] of after.entries()) expect(count).toBeGreaterThan(before[at]!)
}

/** In whichever slot the block is. Several bits: one alone may be flipped back where the cache and the disk have the same page. */
function rot({ disk }: BenchNode, oid: bigint, block: number): void {
  for (const slot of [0, 1] as const) {
    for (let byte = 0; byte < 8; byte++) disk.flipBit(objectPath(oid), blockPosition(block, slot) + byte)
  }
}

const sheepOf = (bench: ClusterBench, at: number) => bench.nodes[at]!.running!.node.sheep
const audit = (bench: ClusterBench, at: number, repair = false) => bench.run(sheepOf(bench, at).audit({ repair }))

describe('the audit of a store of three nodes', () => {
  it('looks at all copies of everything, whichever node is asked, beside those who write', async () => {
    const { bench, device } = await open(1)
    const report = await audit(bench, 1)
    expect(report).toMatchObject({ sound: true, problemsTotal: 0, busy: 0, vdis: 2, snapshots: 1, accounts: 3 })
    expect(report.objects).toBe(3 + 3 + 1) // maps, those that the snapshot has and what came after it, that of the other
    expect(report.blocksChecked).toBe(report.objects * 1024 * 3)
    let goesOn = true
    const clock = bench.clock.node().mount()
    const write = async () => {
      while (goesOn) {
        await bench.write(device, 0, Buffer.alloc(BLOCK_BYTES, 7))
        await clock.sleep(5)
      }
    }
    const writing = write()
    expect(await audit(bench, 2)).toMatchObject({ sound: true, problemsTotal: 0 })
    goesOn = false
    await bench.run(writing)
  })

  it('counts what each VDI takes again, beside those who write', async () => {
    const { bench, device } = await open(5)
    const clock = bench.clock.node().mount()
    let goesOn = true
    const writing = (async () => {
      for (let block = 0; goesOn; block = (block + 7) % 2000) {
        await bench.write(device, block * BLOCK_BYTES, Buffer.alloc(3 * BLOCK_BYTES, 5))
        await discard(device, ((block * 3) % 2000) * BLOCK_BYTES, 2 * BLOCK_BYTES)
        await clock.sleep(3)
      }
    })()
    for (let round = 0; round < 3; round++)
      expect(await audit(bench, round)).toMatchObject({ sound: true, problems: [], accounts: 3 })
    goesOn = false
    await bench.run(writing)
  })

  it('says which node cannot read what, and brings it there again', async () => {
    const { bench, vid, device } = await open(2)
    const oid = dataOid(vid, 1)
    await written(bench, device)
    rot(bench.nodes[2]!, oid, 10)
    const found = await audit(bench, 1)
    expect(found).toMatchObject({ sound: false, problemsTotal: 1 })
    expect(found.problems[0]).toMatchObject({ kind: 'missing_copy', isRepaired: false })
    expect(found.problems[0]!.detail).toMatch(/^1 blocks of .* on 10\.0\.0\.3:7000$/)
    const repaired = await audit(bench, 1, true)
    expect(repaired.sound).toBe(true)
    // Its owner, which has learnt of it, may have brought it home by itself.
    expect(repaired.problems.filter(({ isRepaired }) => !isRepaired)).toEqual([])
    expect(await audit(bench, 0)).toMatchObject({ sound: true, problemsTotal: 0 })
    for (const other of [0, 1]) rot(bench.nodes[other]!, oid, 10)
    expect(await audit(bench, 1, true)).toMatchObject({ sound: true, problemsTotal: 2 })
  })

  it('says which bytes of which VDIs nobody can read any more', async () => {
    const { bench, vid, device } = await open(3)
    await written(bench, device)
    for (const node of bench.nodes) rot(node, dataOid(vid, 1), 5)
    const { sound, problems } = await audit(bench, 0, true)
    expect(sound).toBe(false)
    const where = { offsetBytes: OBJECT_BYTES + 5 * BLOCK_BYTES, lengthBytes: BLOCK_BYTES }
    expect(problems.map((problem) => [problem.kind, problem.where])).toEqual([
      ['corrupt_block', { vdi: 'a', snapshot: 's', ...where }],
      ['corrupt_block', { vdi: 'a', snapshot: '', ...where }],
    ])
  })
})

describe('the objects of a VDI of a store of three nodes', () => {
  it('are listed by any node, with the nodes that have them', async () => {
    const { bench, vid, current } = await open(4)
    for (const at of [0, 2]) {
      const listed = await bench.run(sheepOf(bench, at).listObjects(current, 0, 10))
      expect(listed.map(({ index, vid }) => [index, vid])).toEqual([
        [0, current],
        [1, vid],
      ])
      expect(listed[0]).toMatchObject({ allocatedBytes: BLOCKS * BLOCK_BYTES, inheritedBytes: BLOCK_BYTES })
      expect([...listed[0]!.nodes!].sort()).toEqual(bench.nodes.map(({ name }) => `${name}:7000`))
    }
  })
})
