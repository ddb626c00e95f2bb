import { expect, it } from 'vitest'
import { dataOid, formatOid } from '../../../src/protocol/oid.ts'
import { BLOCK_BYTES, blockPosition } from '../../../src/sheep/object-format.ts'
import type { Device } from '../../../src/vdi/device.ts'
import { ClusterBench } from './cluster-bench.ts'

const MIB = 1024 * 1024
const block = (fill: number) => Buffer.alloc(BLOCK_BYTES, fill)

/** Three nodes, of which the first owns a VDI that is open there, and all copies of it are home. */
async function opened(seed: number): Promise<{ bench: ClusterBench; vid: number; device: Device }> {
  const bench = await ClusterBench.open(seed, 3)
  const vid = await bench.run(bench.vdis(0).create('a', 100 * MIB))
  const device = await bench.run(bench.vdis(0).open(vid, { readOnly: false }))
  await bench.run(bench.write(device, 0, block(1)))
  await bench.until(() => bench.isHome())
  return { bench, vid, device }
}

const RUN_BYTES = 32 * 1024

/** Writes all of a range, through the journal. */
async function fill(bench: ClusterBench, device: Device, from: number, to: number): Promise<void> {
  for (let at = from; at < to; at += RUN_BYTES) await bench.run(bench.write(device, at, Buffer.alloc(RUN_BYTES, 2)))
}

const discard = (device: Device, offset: number, length: number) =>
  new Promise<void>((resolve, reject) => device.discard(offset, length, (error) => (error ? reject(error) : resolve())))

it('asks for space again for what was discarded, so that no copy misses a write for want of it', async () => {
  const { bench, device } = await opened(5)
  const { disk } = bench.nodes[2]!
  disk.capacityBytes = disk.usedBytes() + 14 * MIB
  await expect(fill(bench, device, 0, 20 * MIB)).rejects.toMatchObject({ code: 'NoSpace' })
  await bench.run(discard(device, 0, MIB))
  await expect(fill(bench, device, 20 * MIB, 40 * MIB)).rejects.toMatchObject({ code: 'NoSpace' })
  await expect(fill(bench, device, 0, MIB)).rejects.toMatchObject({ code: 'NoSpace' })
  expect(bench.isHome()).toBe(true)
})

it('mends in the same view what a copy turns out to lack', async () => {
  const { bench, vid, device } = await opened(6)
  await fill(bench, device, 0, 5 * MIB) // more than the journal takes, so that the rest is in the object's file
  const { disk } = bench.nodes[0]!
  const path = disk.paths().find((each) => each.includes(formatOid(dataOid(vid, 0))))!
  for (const slot of [0, 1] as const) disk.flipBit(path, blockPosition(1, slot))
  const { epoch } = bench.nodes[0]!.running!.node.sheep.state
  expect(await bench.run(bench.read(device, 0, RUN_BYTES))).toEqual(Buffer.alloc(RUN_BYTES, 2))
  expect(bench.isHome()).toBe(false)
  await bench.until(() => bench.isHome(), 20_000)
  expect(bench.nodes[0]!.running!.node.sheep.state.epoch).toBe(epoch)
})
