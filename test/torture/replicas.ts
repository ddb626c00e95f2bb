import { createHash } from 'node:crypto'
import path from 'node:path'
import { pino } from 'pino'
import { formatOid } from '../../src/protocol/oid.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { openDiskDirectory, openSystemDisk } from '../../src/runtime/system-disk.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT } from '../../src/sheep/object-format.ts'
import { ObjectStore } from '../../src/sheep/object-store.ts'

export interface Comparison {
  objects: number
  /** What is wrong, for people: copies that differ, are missing, or do not match their checksums. */
  findings: string[]
}

const SEGMENT_BYTES = 8 * 1024 * 1024
const ZEROS = Buffer.alloc(BLOCK_BYTES)

/** Reads every block of every object in the stores of nodes that have ended, and holds the copies against each other. */
export async function compareReplicas(
  stores: readonly { address: string; dataDir: string; secondDir: string }[],
  copies: number,
): Promise<Comparison> {
  const byObject = new Map<string, Map<string, string>>()
  for (const { address, dataDir, secondDir } of stores) {
    for (const [oid, digest] of await digestsIn(dataDir, secondDir)) {
      const digests = byObject.get(oid) ?? new Map<string, string>()
      byObject.set(oid, digests.set(address, digest))
    }
  }
  const findings: string[] = []
  for (const [oid, digests] of byObject) {
    const found = [...digests].map(([address, digest]) => `${address}: ${digest}`).join(', ')
    if (new Set(digests.values()).size > 1) findings.push(`copies of ${oid} differ: ${found}`)
    else if (digests.size !== copies) findings.push(`${oid} has ${digests.size} copies instead of ${copies}: ${found}`)
  }
  return { objects: byObject.size, findings }
}

async function digestsIn(dataDir: string, secondDir: string): Promise<Map<string, string>> {
  const disk = openSystemDisk(path.join(dataDir, 'sheep'))
  const home = await openDiskDirectory(path.join(dataDir, 'sheep'))
  const failures: Error[] = []
  const { store } = await ObjectStore.open({
    disk,
    clock: systemClock,
    random: systemRandom,
    log: pino({ level: 'silent' }),
    segmentBytes: SEGMENT_BYTES,
    durability: 'flush',
    reserveBytes: 0,
    disks: {
      open: openDiskDirectory,
      homePath: home.path,
      homeDevice: home.device,
      configured: [secondDir],
      without: [],
    },
    onFailed: (error) => failures.push(error),
  })
  try {
    const digests = new Map<string, string>()
    for (const oid of [...store.oids()]) digests.set(formatOid(oid), await digestOf(store, oid))
    if (failures[0]) throw failures[0]
    return digests
  } finally {
    await store.close()
    await Promise.all([disk.close(), home.close()])
  }
}

/** Of all that reads can tell: the bytes, and where they are inherited from. */
async function digestOf(store: ObjectStore, oid: bigint): Promise<string> {
  const hash = createHash('sha256')
  const bytes = Buffer.alloc(BLOCK_BYTES)
  const object = await store.hold(oid)
  try {
    for (let block = 0; block < BLOCKS_PER_OBJECT; block++) {
      const found = store.blockState(object, block)
      if (found?.state === 'inherit') hash.update(`inherits from ${found.holderVid}`)
      else if (found?.state === 'zero') hash.update('zeros')
      else {
        await store.readBlocks(object, block, bytes)
        hash.update(bytes.equals(ZEROS) ? 'zeros' : bytes)
      }
    }
    return hash.digest('hex').slice(0, 16)
  } catch (error) {
    return (error as Error).message
  } finally {
    store.release(object)
  }
}
