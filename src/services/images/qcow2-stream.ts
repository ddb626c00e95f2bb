import assert from 'node:assert/strict'

/**
 * A qcow2 image of a disk, written from front to back: where the disk holds data is known before its first byte, so that all
 * tables can come first and nothing has to be kept or looked up again. Version 3, not compressed:
 *
 *   header, refcount table, refcount blocks, L1 table, L2 tables, the clusters with data in the order of the disk
 *
 * QEMU's docs/interop/qcow2.txt describes the format.
 */
export interface Qcow2Layout {
  /** Of the whole image. */
  sizeBytes: number
  /** All that comes before the data, a piece at a time. */
  metadata(): Generator<Buffer>
}

/** Clusters of the disk that lie together. */
export interface ClusterRun {
  first: number
  count: number
}

export const CLUSTER_BYTES = 65_536
const CLUSTER_BITS = 16
const ENTRY_BYTES = 8
const ENTRIES_PER_CLUSTER = CLUSTER_BYTES / ENTRY_BYTES
const REFCOUNT_BYTES = 2
const REFCOUNTS_PER_CLUSTER = CLUSTER_BYTES / REFCOUNT_BYTES
const REFCOUNT_ORDER = 4
const HEADER_BYTES = 104
/** Of an entry that names a cluster which nothing else uses. */
const COPIED = 1n << 63n

/** `runs` are the clusters with data, ascending and apart; the rest of the disk reads as zeros. */
export function layOutQcow2(diskBytes: number, runs: readonly ClusterRun[]): Qcow2Layout {
  const diskClusters = Math.ceil(diskBytes / CLUSTER_BYTES)
  const tables = tablesOf(runs)
  const dataClusters = runs.reduce((sum, { count }) => sum + count, 0)
  const l1Entries = Math.max(1, Math.ceil(diskClusters / ENTRIES_PER_CLUSTER))
  const l1Clusters = Math.ceil(l1Entries / ENTRIES_PER_CLUSTER)
  const { refcountBlocks, refcountTableClusters } = countRefcounts(1 + l1Clusters + tables.length + dataClusters)
  assert(tables.every((table) => table < l1Entries))

  const blocksAt = 1 + refcountTableClusters
  const l1At = blocksAt + refcountBlocks
  const l2At = l1At + l1Clusters
  const dataAt = l2At + tables.length
  const total = dataAt + dataClusters

  function* metadata(): Generator<Buffer> {
    yield header({ diskBytes, l1Entries, l1At, refcountTableClusters })
    yield* entries(refcountTableClusters, refcountBlocks, (index) => BigInt(blocksAt + index) << BigInt(CLUSTER_BITS))
    for (let block = 0; block < refcountBlocks; block++) {
      const counts = Buffer.alloc(CLUSTER_BYTES)
      const used = Math.min(REFCOUNTS_PER_CLUSTER, total - block * REFCOUNTS_PER_CLUSTER)
      for (let index = 0; index < used; index++) counts.writeUInt16BE(1, index * REFCOUNT_BYTES)
      yield counts
    }
    const tableAt = new Map(tables.map((table, index) => [table, l2At + index]))
    yield* entries(l1Clusters, l1Entries, (index) => reference(tableAt.get(index)))
    yield* l2Tables(runs, dataAt)
  }

  return { sizeBytes: total * CLUSTER_BYTES, metadata }
}

const tableOf = (cluster: number): number => Math.floor(cluster / ENTRIES_PER_CLUSTER)

/** The L2 tables that are needed, by what they are of. */
function tablesOf(runs: readonly ClusterRun[]): number[] {
  const tables: number[] = []
  for (const { first, count } of runs) {
    for (let table = tableOf(first); table <= tableOf(first + count - 1); table++) {
      if (tables.at(-1) !== table) tables.push(table)
    }
  }
  return tables
}

function* l2Tables(runs: readonly ClusterRun[], dataAt: number): Generator<Buffer> {
  let [table, content] = [-1, Buffer.alloc(0)]
  let at = dataAt
  for (const { first, count } of runs) {
    for (let cluster = first; cluster < first + count; cluster++, at++) {
      if (tableOf(cluster) !== table) {
        if (table >= 0) yield content
        ;[table, content] = [tableOf(cluster), Buffer.alloc(CLUSTER_BYTES)]
      }
      content.writeBigUInt64BE(reference(at), (cluster % ENTRIES_PER_CLUSTER) * ENTRY_BYTES)
    }
  }
  if (table >= 0) yield content
}

/** Each cluster of the image is counted, those with counts as well: so it takes a few rounds to know how many there are. */
function countRefcounts(others: number): { refcountBlocks: number; refcountTableClusters: number } {
  let [refcountBlocks, refcountTableClusters] = [1, 1]
  for (;;) {
    const total = others + refcountBlocks + refcountTableClusters
    const blocks = Math.ceil(total / REFCOUNTS_PER_CLUSTER)
    const tableClusters = Math.ceil(blocks / ENTRIES_PER_CLUSTER)
    if (blocks === refcountBlocks && tableClusters === refcountTableClusters)
      return { refcountBlocks, refcountTableClusters }
    ;[refcountBlocks, refcountTableClusters] = [blocks, tableClusters]
  }
}

function header(of: { diskBytes: number; l1Entries: number; l1At: number; refcountTableClusters: number }): Buffer {
  const bytes = Buffer.alloc(CLUSTER_BYTES)
  bytes.write('QFI\xfb', 0, 'latin1')
  bytes.writeUInt32BE(3, 4)
  bytes.writeUInt32BE(CLUSTER_BITS, 20)
  bytes.writeBigUInt64BE(BigInt(of.diskBytes), 24)
  bytes.writeUInt32BE(of.l1Entries, 36)
  bytes.writeBigUInt64BE(BigInt(of.l1At * CLUSTER_BYTES), 40)
  bytes.writeBigUInt64BE(BigInt(CLUSTER_BYTES), 48) // the refcount table follows the header
  bytes.writeUInt32BE(of.refcountTableClusters, 56)
  bytes.writeUInt32BE(REFCOUNT_ORDER, 96)
  bytes.writeUInt32BE(HEADER_BYTES, 100)
  return bytes
}

/** A table of 64-bit entries, in whole clusters. */
function* entries(clusters: number, count: number, entryAt: (index: number) => bigint): Generator<Buffer> {
  for (let cluster = 0; cluster < clusters; cluster++) {
    const bytes = Buffer.alloc(CLUSTER_BYTES)
    const first = cluster * ENTRIES_PER_CLUSTER
    for (let index = first; index < Math.min(count, first + ENTRIES_PER_CLUSTER); index++) {
      bytes.writeBigUInt64BE(entryAt(index), (index - first) * ENTRY_BYTES)
    }
    yield bytes
  }
}

function reference(cluster: number | undefined): bigint {
  return cluster === undefined ? 0n : (BigInt(cluster) << BigInt(CLUSTER_BITS)) | COPIED
}
