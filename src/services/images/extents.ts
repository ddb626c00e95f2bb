import type { VolumeData } from '../../drivers/driver.ts'
import { CLUSTER_BYTES, type ClusterRun } from './qcow2-stream.ts'

/** Where a disk holds data, without reading it. */

/** Which clusters of a disk hold data. */
export async function clusterRuns(snapshot: VolumeData): Promise<ClusterRun[]> {
  const runs: ClusterRun[] = []
  for await (const { offset, lengthBytes, kind } of extentsOf(snapshot.sizeBytes, () => snapshot)) {
    if (kind === 'hole') continue
    const [first, last] = [offset, offset + lengthBytes - 1].map((at) => Math.floor(at / CLUSTER_BYTES)) as [
      number,
      number,
    ]
    const before = runs.at(-1)
    const end = before === undefined ? -1 : before.first + before.count
    if (before !== undefined && first <= end) before.count = Math.max(before.count, last + 1 - before.first)
    else runs.push({ first, count: last + 1 - first })
  }
  return runs
}

/** A sparse disk of terabytes has long lists of extents: they are asked for a part at a time. */
const EXTENTS_RANGE_BYTES = 1024 ** 3

export async function* extentsOf(sizeBytes: number, source: () => VolumeData) {
  for (let start = 0; start < sizeBytes; start += EXTENTS_RANGE_BYTES) {
    let offset = start
    for (const extent of await source().extents(start, Math.min(EXTENTS_RANGE_BYTES, sizeBytes - start))) {
      yield { offset, ...extent }
      offset += extent.lengthBytes
    }
  }
}

/** The last cluster of a disk may reach beyond its end. */
export async function readPiece(source: VolumeData, offset: number, lengthBytes: number): Promise<Buffer> {
  const bytes = Buffer.alloc(lengthBytes)
  await source.read(offset, bytes.subarray(0, Math.min(lengthBytes, source.sizeBytes - offset)))
  return bytes
}
