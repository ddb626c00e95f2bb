import { execFileSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync, truncateSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import { expect, it, onTestFinished } from 'vitest'
import { CLUSTER_BYTES, type ClusterRun, layOutQcow2 } from '../../../src/services/images/qcow2-stream.ts'
import { requireCommand } from '../../tools/require-command.ts'

const withQemu = requireCommand('qemu-img', 'qemu-utils')

const GIB = 1024 ** 3

/** Clusters by number, with data of their own. */
const bytesOf = (cluster: number) => Buffer.alloc(CLUSTER_BYTES, `cluster ${cluster}.`)

function write(directory: string, diskBytes: number, runs: readonly ClusterRun[]) {
  const [image, raw] = [path.join(directory, 'image'), path.join(directory, 'raw')]
  const { sizeBytes, metadata } = layOutQcow2(diskBytes, runs)
  const [imageFile, rawFile] = [openSync(image, 'w'), openSync(raw, 'w')]
  let written = 0
  for (const bytes of metadata()) written += writeSync(imageFile, bytes)
  for (const { first, count } of runs) {
    for (let cluster = first; cluster < first + count; cluster++) {
      written += writeSync(imageFile, bytesOf(cluster))
      writeSync(rawFile, bytesOf(cluster), 0, CLUSTER_BYTES, cluster * CLUSTER_BYTES)
    }
  }
  closeSync(imageFile)
  closeSync(rawFile)
  truncateSync(raw, diskBytes)
  expect(written).toBe(sizeBytes)
  return { image, raw }
}

function temporary(): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'collie-qcow2-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  return directory
}

/** Rejects with what it complains of. */
const qemuImg = (...words: string[]) => execFileSync('qemu-img', words, { stdio: 'pipe' })

function check(diskBytes: number, runs: readonly ClusterRun[]): void {
  const { image, raw } = write(temporary(), diskBytes, runs)
  qemuImg('check', '-f', 'qcow2', image)
  qemuImg('compare', '-f', 'qcow2', '-F', 'raw', image, raw)
}

/** Runs that do not touch, within a disk. */
const runsWithin = (clusters: number) =>
  fc
    .uniqueArray(fc.nat({ max: clusters - 4 }), { maxLength: 5 })
    .chain((starts) =>
      fc.tuple(
        ...starts.map((first) => fc.record({ first: fc.constant(first), count: fc.integer({ min: 1, max: 3 }) })),
      ),
    )
    .map((runs) =>
      [...runs]
        .sort((a, b) => a.first - b.first)
        .filter(({ first }, index, all) => index === 0 || first > all[index - 1]!.first + 3),
    )

withQemu('QEMU finds nothing wrong, and the disk that was meant, wherever its data lies', () => {
  fc.assert(
    fc.property(runsWithin((3 * GIB) / CLUSTER_BYTES), (runs) => check(3 * GIB, runs)),
    { numRuns: 12, seed: 7 },
  )
})

withQemu('a disk without data, and one with data in its first and last cluster', () => {
  check(GIB, [])
  check(GIB, [
    { first: 0, count: 1 },
    { first: GIB / CLUSTER_BYTES - 1, count: 1 },
  ])
})

it('counts clusters that it takes more than one block of counts to count', () => {
  const count = (4 * GIB) / CLUSTER_BYTES
  const { sizeBytes, metadata } = layOutQcow2(4 * GIB, [{ first: 0, count }])
  const pieces = [...metadata()]
  // header, refcount table, 3 blocks of counts for 65,550 clusters, L1 and 8 L2 tables
  expect(pieces.length).toBe(1 + 1 + 3 + 1 + 8)
  expect(sizeBytes).toBe((pieces.length + count) * CLUSTER_BYTES)
  const counted = pieces.slice(2, 5).reduce((sum, block) => sum + block.filter((byte) => byte === 1).length, 0)
  expect(counted * CLUSTER_BYTES).toBe(sizeBytes)
})
