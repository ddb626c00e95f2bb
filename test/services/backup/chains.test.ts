import { createHash, randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import type { SnapshotRef, VolumeData, VolumeDriver, VolumeRef } from '../../../src/drivers/driver.ts'
import { createMemoryBackend, createMemoryDriver } from '../../../src/drivers/memory.ts'
import { createSheepdogDriver, sheepdogPool } from '../../../src/drivers/sheepdog/driver.ts'
import { systemClock } from '../../../src/runtime/clock.ts'
import { systemRandom } from '../../../src/runtime/random.ts'
import { createChunkSlots } from '../../../src/services/backup/chunk-slots.ts'
import { backUpSome, pagesOfBackup, restoreSome } from '../../../src/services/backup/copy.ts'
import {
  CHUNK_BYTES,
  type ChunkRecord,
  type Manifest,
  readManifest,
  writeManifest,
} from '../../../src/services/backup/format.ts'
import { pageCount } from '../../../src/services/backup/marked-pages.ts'
import type { BackupTarget } from '../../../src/services/backup/target.ts'
import { VdiClient } from '../../../src/vdi/client.ts'
import { SeededRandom } from '../../sim/random.ts'
import { runSeeds } from '../../sim/seeds.ts'
import { openBackupTarget } from '../../tools/backup-target.ts'
import { LiveSheep } from '../../tools/live-sheep.ts'

const CONTAINER = 'c'
const VOLUME_BYTES = 1024 ** 3
/** Where the action is: chunks of some pages, and both sides of a border. */
const CHUNKS = [0, 31, 32, 100, 255]
/** What of each chunk is written to. */
const WINDOW_BYTES = 128 * 1024

interface Backend {
  driver: VolumeDriver
  stop(): Promise<void>
}

const backends: Record<string, () => Promise<Backend>> = {
  memory: async () => ({ driver: createMemoryDriver(createMemoryBackend(), systemRandom), stop: async () => {} }),
  Sheepdog: async () => {
    const live = await LiveSheep.start()
    const driver = createSheepdogDriver({
      vdis: new VdiClient(live.dial()),
      random: systemRandom,
      pool: sheepdogPool('pool'),
      gateway: async () => ({ scheme: 'nbd', host: '127.0.0.1', port: 10809 }),
      drained: async () => {},
    })
    const stop = async () => {
      await driver.stop()
      await live.stop()
    }
    return { driver, stop }
  },
}

/** A volume and its backups, each based on the one before or on none, as work on backups makes them. */
class Chain {
  readonly #driver: VolumeDriver
  readonly #target: BackupTarget
  readonly #random: SeededRandom
  readonly #slots = createChunkSlots(4, systemClock)
  readonly volume: VolumeRef = { id: randomUUID(), sizeGib: 1 }
  #snapshots: SnapshotRef[] = []
  /** The newest at the end, with what each chunk held. */
  #backups: { id: string; contents: Map<number, Buffer> }[] = []
  readonly counts = { incremental: 0, sharedPages: 0, cuts: 0, reverts: 0 }

  constructor(driver: VolumeDriver, target: BackupTarget, random: SeededRandom) {
    this.#driver = driver
    this.#target = target
    this.#random = random
  }

  async run(steps: number): Promise<void> {
    await this.#driver.createVolume(this.volume)
    for (let step = 0; step < steps; step++) {
      const dice = this.#random.next()
      if (dice < 0.5) await this.#change()
      else if (dice < 0.8) await this.#backUp()
      else if (dice < 0.9) await this.#snapshot()
      else await this.#revert()
    }
    for (const { id, contents } of this.#backups) await this.#checkRestore(id, contents)
  }

  #snapshotRef(): SnapshotRef {
    return { id: randomUUID(), volumeId: this.volume.id, sizeGib: 1 }
  }

  async #change(): Promise<void> {
    const random = this.#random
    const start = random.pick(CHUNKS)! * CHUNK_BYTES
    const data = await this.#driver.openVolume(this.volume)
    const dice = random.next()
    if (dice < 0.2) await data.discard(start, CHUNK_BYTES)
    else if (dice < 0.3) await data.discard(start + 4096 * random.below(20), 4096 * random.below(10))
    else await data.write(start + 512 * random.below(150), random.bytes(512 * (1 + random.below(100))))
    await data.flush()
    await data.close()
  }

  async #snapshot(): Promise<void> {
    const snapshot = this.#snapshotRef()
    await this.#driver.createSnapshot(snapshot)
    this.#snapshots.push(snapshot)
  }

  async #revert(): Promise<void> {
    const snapshot = this.#random.pick(this.#snapshots)
    if (snapshot === undefined) return
    await this.#driver.revertToSnapshot(snapshot)
    this.counts.reverts++
    if (this.#random.chance(0.5)) return
    this.#snapshots = this.#snapshots.filter((other) => other !== snapshot)
    await this.#driver.deleteSnapshot(snapshot)
  }

  async #backUp(): Promise<void> {
    const snapshot = this.#snapshotRef()
    await this.#driver.createSnapshot(snapshot)
    const source = await this.#driver.openSnapshot(snapshot)
    const contents = await readChunks(source)
    await this.#copy(snapshot.id, source)
    await source.close()
    await this.#driver.deleteSnapshot(snapshot)
    this.#backups.push({ id: snapshot.id, contents })
  }

  /** Cut off at any page, and gone on with from one that was begun. */
  async #copy(id: string, source: VolumeData): Promise<void> {
    const random = this.#random
    const target = this.#target
    const location = { container: CONTAINER, id }
    const parentId = random.chance(0.9) ? (this.#backups.at(-1)?.id ?? null) : null
    const before = parentId === null ? null : { container: CONTAINER, id: parentId }
    const parent = before && { location: before, pages: (await readManifest(target, before)).pages }
    const begin = (page: number) =>
      backUpSome({
        ...{ source, target, location, parent, page },
        slots: this.#slots,
        isTimeUp: () => random.chance(0.3),
      })
    for (let page = 0; page < pageCount(VOLUME_BYTES); ) {
      const { nextPage } = await begin(page)
      if (random.chance(0.2)) this.counts.cuts++
      else page = nextPage
    }
    const pages = await pagesOfBackup({ source, target, location }, parent)
    await writeManifest(target, location, manifestOf({ id, parent_id: parentId, pages, volume_id: this.volume.id }))
    if (parent) this.counts.incremental++
    this.counts.sharedPages += pages.filter(({ backup }) => backup !== id).length
  }

  async #checkRestore(id: string, contents: Map<number, Buffer>): Promise<void> {
    const volume = { id: randomUUID(), sizeGib: 1 }
    await this.#driver.createVolume(volume)
    const data = await this.#driver.openVolume(volume)
    await data.write(CHUNKS.at(-1)! * CHUNK_BYTES, Buffer.alloc(WINDOW_BYTES, 0xaa)) // it need not be empty
    const { pages } = await readManifest(this.#target, { container: CONTAINER, id })
    const sizeBytes = VOLUME_BYTES
    for (let page = 0; page < pageCount(sizeBytes); ) {
      page = await restoreSome({
        ...{ volume: data, target: this.#target, container: CONTAINER, pages, sizeBytes, page },
        slots: this.#slots,
        isTimeUp: () => this.#random.chance(0.3),
      })
    }
    const restored = await readChunks(data)
    for (const [chunk, bytes] of contents)
      expect(restored.get(chunk)!.equals(bytes), `chunk ${chunk} of backup ${id}`).toBe(true)
    await data.close()
    await this.#driver.deleteVolume(volume)
  }
}

async function readChunks(data: VolumeData): Promise<Map<number, Buffer>> {
  const contents = new Map<number, Buffer>()
  for (const chunk of CHUNKS) {
    const bytes = Buffer.alloc(WINDOW_BYTES, 0xee)
    await data.read(chunk * CHUNK_BYTES, bytes)
    contents.set(chunk, bytes)
  }
  return contents
}

function manifestOf(of: Pick<Manifest, 'id' | 'parent_id' | 'pages' | 'volume_id'>): Manifest {
  return {
    ...of,
    snapshot_id: null,
    size_gib: 1,
    object_count: 0,
    name: null,
    description: null,
    metadata: {},
    created_at: '',
    data_timestamp: '',
    volume: null,
    project_id: null,
    user_id: null,
    encryption_key_id: null,
  }
}

/** Backs a volume up, on that one or on none. Answers which of its chunks were read, and what was written. */
async function backUp(driver: VolumeDriver, target: BackupTarget, volume: VolumeRef, parentId: string | null) {
  const snapshot = { id: randomUUID(), volumeId: volume.id, sizeGib: 1 }
  await driver.createSnapshot(snapshot)
  const data = await driver.openSnapshot(snapshot)
  const chunks = new Set<number>()
  let readBytes = 0
  const source: VolumeData = {
    ...data,
    sizeBytes: data.sizeBytes,
    read: (offset, bytes) => {
      chunks.add(Math.floor(offset / CHUNK_BYTES))
      readBytes += bytes.length
      return data.read(offset, bytes)
    },
  }
  const location = { container: CONTAINER, id: snapshot.id }
  const before = parentId === null ? null : { container: CONTAINER, id: parentId }
  const parent = before && { location: before, pages: (await readManifest(target, before)).pages }
  const slots = createChunkSlots(4, systemClock)
  await backUpSome({ source, target, location, parent, slots, page: 0, isTimeUp: () => false })
  const pages = await pagesOfBackup({ source, target, location }, parent)
  await writeManifest(
    target,
    location,
    manifestOf({ id: location.id, parent_id: parentId, pages, volume_id: volume.id }),
  )
  await data.close()
  await driver.deleteSnapshot(snapshot)
  const written = await target.list(`${CONTAINER}/${location.id}`)
  return { id: location.id, read: [...chunks].sort((a, b) => a - b), readBytes, written: written.sort() }
}

async function writeChunks(driver: VolumeDriver, volume: VolumeRef, ...chunks: number[]): Promise<void> {
  await writePieces(driver, volume, ...chunks.map((chunk): [number, number] => [chunk * CHUNK_BYTES, 65536]))
}

async function writePieces(driver: VolumeDriver, volume: VolumeRef, ...pieces: [number, number][]): Promise<void> {
  const data = await driver.openVolume(volume)
  for (const [offset, lengthBytes] of pieces) await data.write(offset, systemRandom.bytes(lengthBytes))
  await data.close()
}

type Told = Record<string, unknown>

/** Writes what an object says anew, with its checksum. */
async function rewrite(target: BackupTarget, name: string, change: (told: Told) => object): Promise<void> {
  const { sha256: _, ...told } = JSON.parse((await target.get(name))!.toString())
  const text = JSON.stringify(change(told))
  const sha256 = createHash('sha256').update(text).digest('hex')
  await target.put(name, Buffer.from(`${text.slice(0, -1)},"sha256":"${sha256}"}`))
}

async function rewritePages(target: BackupTarget, id: string, change: (told: Told) => object): Promise<void> {
  const directory = `${CONTAINER}/${id}`
  for (const name of await target.list(directory, 'page-')) await rewrite(target, `${directory}/${name}`, change)
}

/** As it was when all checksums were of one kind. */
async function withSha256(target: BackupTarget, id: string): Promise<void> {
  const digests = new Map<number, string>()
  for (const name of await target.list(`${CONTAINER}/${id}`, 'chunk-')) {
    const stored = (await target.get(`${CONTAINER}/${id}/${name}`))!
    digests.set(Number(name.slice('chunk-'.length)), createHash('sha256').update(stored).digest('hex'))
  }
  await rewritePages(target, id, ({ chunks }) => ({
    format: 4,
    chunks: (chunks as ChunkRecord[]).map(({ checksum: _, ...record }) => {
      expect(record.encoding).toBe('none')
      return { ...record, sha256: digests.get(record.index) }
    }),
  }))
}

/** As it was before chunks had pieces; all of its chunks are whole. */
async function withoutPieces(target: BackupTarget, id: string): Promise<void> {
  await withSha256(target, id)
  await rewritePages(target, id, ({ chunks }) => ({
    format: 3,
    chunks: (chunks as Told[]).map(({ pieces: _, ...record }) => record),
  }))
}

/** As it was before there were marks. */
async function withoutMarks(target: BackupTarget, id: string): Promise<void> {
  await withoutPieces(target, id)
  await rewritePages(target, id, ({ chunks }) => ({
    format: 2,
    chunks: (chunks as ChunkRecord[]).map(({ mark: _, ...record }) => record),
  }))
  await rewrite(target, `${CONTAINER}/${id}/manifest`, ({ page_backups: _, ...told }) => ({
    ...told,
    format: 3,
    pages: (told.pages as [number][]).map(([page]) => page),
  }))
}

/** Brings a backup back to a new volume. */
async function restore(driver: VolumeDriver, target: BackupTarget, id: string): Promise<VolumeData> {
  const ref = { id: randomUUID(), sizeGib: 1 }
  await driver.createVolume(ref)
  const volume = await driver.openVolume(ref)
  const { pages } = await readManifest(target, { container: CONTAINER, id })
  const slots = createChunkSlots(4, systemClock)
  const sizeBytes = VOLUME_BYTES
  const isTimeUp = () => false
  await restoreSome({ volume, target, container: CONTAINER, pages, sizeBytes, page: 0, slots, isTimeUp })
  return volume
}

describe('a chain of incremental backups', () => {
  it.each(Object.keys(backends))(
    'of a volume of the %s driver is what the volume was at each of them, however often they are cut off',
    {
      timeout: 120_000,
    },
    async (name) => {
      const totals = { incremental: 0, sharedPages: 0, cuts: 0, reverts: 0 }
      await runSeeds('test/services/backup/chains.test.ts', 3, async (seed) => {
        const { driver, stop } = await backends[name]!()
        const chain = new Chain(driver, await openBackupTarget(), new SeededRandom(seed))
        try {
          await chain.run(30)
        } finally {
          await stop()
        }
        for (const key of Object.keys(totals) as (keyof typeof totals)[]) totals[key] += chain.counts[key]
      })
      console.info(totals)
      expect(Math.min(totals.sharedPages, totals.incremental, totals.cuts, totals.reverts)).toBeGreaterThan(2)
    },
  )

  it.each(Object.keys(backends))('of the %s driver reads no more than the chunks that changed', async (name) => {
    const { driver, stop } = await backends[name]!()
    const target = await openBackupTarget()
    const volume = { id: randomUUID(), sizeGib: 1 }
    await driver.createVolume(volume)
    try {
      await writeChunks(driver, volume, 0, 1, 40, 100, 255)
      const whole = await backUp(driver, target, volume, null)
      expect(whole.read).toEqual([0, 1, 40, 100, 255])
      await writeChunks(driver, volume, 1, 70)
      const second = await backUp(driver, target, volume, whole.id)
      expect(second.read).toEqual([1, 70])
      expect(second.written).toEqual(['chunk-1', 'chunk-70', 'manifest', 'page-0', 'page-2'])
      const third = await backUp(driver, target, volume, second.id)
      expect(third).toMatchObject({ read: [], written: ['manifest'] })
    } finally {
      await stop()
    }
  })

  it('goes on from one of an earlier version, for which everything has to be read', async () => {
    const driver = createMemoryDriver(createMemoryBackend(), systemRandom)
    const target = await openBackupTarget()
    const volume = { id: randomUUID(), sizeGib: 1 }
    await driver.createVolume(volume)
    await writePieces(driver, volume, [0, 2 * CHUNK_BYTES], [40 * CHUNK_BYTES, CHUNK_BYTES])
    const earlier = await backUp(driver, target, volume, null)
    await withoutMarks(target, earlier.id)
    await writeChunks(driver, volume, 1)
    const next = await backUp(driver, target, volume, earlier.id)
    expect(next).toMatchObject({ read: [0, 1, 40], written: ['chunk-1', 'manifest', 'page-0', 'page-1'] })
    expect((await backUp(driver, target, volume, next.id)).read).toEqual([])
  })

  it('goes on from one whose chunks are all whole', async () => {
    const driver = createMemoryDriver(createMemoryBackend(), systemRandom)
    const target = await openBackupTarget()
    const volume = { id: randomUUID(), sizeGib: 1 }
    await driver.createVolume(volume)
    await writePieces(driver, volume, [0, 2 * CHUNK_BYTES], [255 * CHUNK_BYTES, CHUNK_BYTES])
    const earlier = await backUp(driver, target, volume, null)
    await withoutPieces(target, earlier.id)
    await writeChunks(driver, volume, 1, 3)
    const next = await backUp(driver, target, volume, earlier.id)
    expect(next).toMatchObject({ read: [1, 3], written: ['chunk-1', 'chunk-3', 'manifest', 'page-0'] })
    const restored = await restore(driver, target, next.id)
    const expected = await driver.openVolume(volume)
    expect(await contentOf(restored, 4 * CHUNK_BYTES)).toBe(await contentOf(expected, 4 * CHUNK_BYTES))
    expect(await restored.extents(0, VOLUME_BYTES)).toEqual(await expected.extents(0, VOLUME_BYTES))
  })

  it.each([
    ['as it is now', async () => {}],
    ['of when all checksums were of one kind', withSha256],
  ])('is refused when a byte of it has changed: %s', async (_, age: typeof withSha256) => {
    const driver = createMemoryDriver(createMemoryBackend(), systemRandom)
    const target = await openBackupTarget()
    const volume = { id: randomUUID(), sizeGib: 1 }
    await driver.createVolume(volume)
    await writeChunks(driver, volume, 0)
    const { id } = await backUp(driver, target, volume, null)
    await age(target, id)
    await (await restore(driver, target, id)).close()
    const name = `${CONTAINER}/${id}/chunk-0`
    const bytes = (await target.get(name))!
    for (const at of [0, 4095, bytes.length - 1]) {
      const changed = Buffer.from(bytes)
      changed[at]! ^= 1 << (at % 8)
      await target.put(name, changed)
      await expect(restore(driver, target, id)).rejects.toThrow('chunk-0 on the backup target is damaged')
    }
  })
})

const contentOf = async (data: VolumeData, lengthBytes: number): Promise<string> => {
  const bytes = Buffer.alloc(lengthBytes, 0xee)
  await data.read(0, bytes)
  return createHash('sha256').update(bytes).digest('hex')
}

describe('a backup of a chunk that is data in places', () => {
  const KIB = 1024
  /** In one chunk and at the borders of the next: [offset, length]. */
  const PIECES: [number, number][] = [
    [8 * KIB, 4 * KIB],
    [40 * KIB, 4 * KIB], // so near that what is between them is read too
    [1024 * KIB, 64 * KIB],
    [CHUNK_BYTES - 4 * KIB, 8 * KIB],
    [2 * CHUNK_BYTES - 64 * KIB, 64 * KIB],
  ]
  const KEPT_BYTES = { 'chunk-0': 36 * KIB + 64 * KIB + 4 * KIB, 'chunk-1': 4 * KIB + 64 * KIB }

  it.each(Object.keys(backends))(
    'of the %s driver is read and kept where it is, and the volume that it comes back to has no more either',
    async (name) => {
      const { driver, stop } = await backends[name]!()
      try {
        const target = await openBackupTarget()
        const volume = { id: randomUUID(), sizeGib: 1 }
        await driver.createVolume(volume)
        await writePieces(driver, volume, ...PIECES)
        const { id, readBytes } = await backUp(driver, target, volume, null)
        for (const [object, keptBytes] of Object.entries(KEPT_BYTES))
          expect((await target.get(`${CONTAINER}/${id}/${object}`))!.length, object).toBeLessThanOrEqual(keptBytes)
        expect(readBytes).toBe(KEPT_BYTES['chunk-0'] + KEPT_BYTES['chunk-1'])

        const restored = await restore(driver, target, id)
        const expected = await driver.openVolume(volume)
        expect(await contentOf(restored, 2 * CHUNK_BYTES)).toBe(await contentOf(expected, 2 * CHUNK_BYTES))
        const dataBytes = (await restored.extents(0, VOLUME_BYTES)).reduce(
          (sum, { kind, lengthBytes }) => sum + (kind === 'data' ? lengthBytes : 0),
          0,
        )
        expect(dataBytes).toBe(readBytes)
        await Promise.all([restored.close(), expected.close()])
      } finally {
        await stop()
      }
    },
  )

  it('is refused when its list says what no list can say', async () => {
    const driver = createMemoryDriver(createMemoryBackend(), systemRandom)
    const target = await openBackupTarget()
    const volume = { id: randomUUID(), sizeGib: 1 }
    await driver.createVolume(volume)
    await writePieces(driver, volume, ...PIECES)
    const { id } = await backUp(driver, target, volume, null)
    const overlapping = [
      [0, 8 * KIB],
      [4 * KIB, 8 * KIB],
    ]
    for (const pieces of [overlapping, [[CHUNK_BYTES - 4 * KIB, 8 * KIB]]]) {
      await rewritePages(target, id, (told) => ({
        ...told,
        chunks: (told.chunks as ChunkRecord[]).map((record) => ({ ...record, pieces })),
      }))
      await expect(restore(driver, target, id)).rejects.toThrow('page-0 on the backup target is damaged')
    }
  })
})
