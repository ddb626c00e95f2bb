import { expect } from 'vitest'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../../src/sheep/object-format.ts'
import type { Device } from '../../../src/vdi/device.ts'
import type { BenchNode, ClusterBench } from './cluster-bench.ts'

export const block = (fill: number) => Buffer.alloc(BLOCK_BYTES, fill)
export const OBJECTS = 12
/** The machine may have other things to do. */
export const TIMEOUT = { timeout: 600_000 }

export const at = (index: number) => index * OBJECT_BYTES

/** A VDI with a few blocks in each of its objects, open for writing at the first node. */
export async function filled(bench: ClusterBench, blocks = 4): Promise<{ vid: number; device: Device }> {
  const vid = await bench.run(bench.vdis(0).create('a', OBJECTS * OBJECT_BYTES))
  await bench.run(bench.vdis(0).putExport({ attachmentId: 'one', nameHash: HASH, vid, readOnly: false }))
  const device = await bench.run(bench.vdis(0).openExport(HASH, false))
  for (let index = 0; index < OBJECTS; index++)
    await bench.run(bench.write(device, at(index), Buffer.alloc(blocks * BLOCK_BYTES, index + 1)))
  return { vid, device }
}

const HASH = 'ab'.repeat(32)

export const copied = (bench: ClusterBench) =>
  bench.nodes.reduce((sum, { running }) => sum + (running?.node.store.recovery.progress.bytesCopied ?? 0), 0)

export const view = (bench: ClusterBench) => bench.nodes[0]!.running!.node.sheep.state.view

export const hasLeft = (bench: ClusterBench, { name }: BenchNode) =>
  view(bench).members.every(({ address }) => address !== `${name}:7000`)

/** Of the VDI's data objects, by how many nodes there are copies of each. */
export function copiesOf(bench: ClusterBench): number[] {
  const counts = new Map<string, number>()
  for (const text of bench.objects()) {
    const [oid] = text.split(' ')
    counts.set(oid!, (counts.get(oid!) ?? 0) + 1)
  }
  return [...counts.values()]
}

export async function holdsAll(bench: ClusterBench, device: Device): Promise<void> {
  for (let index = 0; index < OBJECTS; index++)
    expect(await bench.run(bench.read(device, at(index), BLOCK_BYTES))).toEqual(block(index + 1))
}
