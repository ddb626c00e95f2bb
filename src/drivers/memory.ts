import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { ServiceError } from '../errors.ts'
import type { Random } from '../runtime/random.ts'
import type {
  AttachmentRef,
  ConnectionInfo,
  ContentMark,
  DataExtent,
  NewVolume,
  PoolStats,
  SnapshotRef,
  VolumeCopies,
  VolumeData,
  VolumeDriver,
  VolumeLimits,
} from './driver.ts'

/**
 * The reference driver: the contract in as few lines as it takes. The backend is an object of its own, so that a new
 * driver on it goes on where another ended, as after a restart.
 *
 * Content is a sparse map from block number to block. A block is never changed in place, so copying a map copies the
 * volume.
 */
const BLOCK_SIZE_BYTES = 4096
const GIB = 1024 ** 3
const ONE_COPY: VolumeCopies = { copies: 1 }

type Blocks = Map<number, Buffer>

type Content = Pick<MemoryVolume, 'sizeGib' | 'blocks'>

interface MemoryVolume {
  sizeGib: number
  /** There is one all the same, and it only remembers how many there are to be. */
  copies: VolumeCopies
  blocks: Blocks
  /** By attachment: the one right that is in force, and what it allows. */
  /** It is as fast as memory is, and only remembers how fast it is to be. */
  rights: Map<string, { secret: string; mode: 'rw' | 'ro'; limits: VolumeLimits | null }>
}

interface MemorySnapshot {
  volumeId: string
  sizeGib: number
  blocks: Blocks
}

export interface MemoryBackend {
  volumes: Map<string, MemoryVolume>
  snapshots: Map<string, MemorySnapshot>
  capacityGib: number
  /** As if it had so many nodes. */
  copiesMax: number
  /** The database that says what this backend holds. */
  drivenBy: string | null
}

export function createMemoryBackend(capacityGib = 1024, { copiesMax = 1 } = {}): MemoryBackend {
  return { volumes: new Map(), snapshots: new Map(), capacityGib, copiesMax, drivenBy: null }
}

export function createMemoryDriver(backend: MemoryBackend, random: Random): VolumeDriver {
  const { volumes, snapshots } = backend

  const provision = ({ id, sizeGib, copies }: NewVolume, blocks: () => Blocks) => {
    if (volumes.has(id)) return // a repeat
    volumes.set(id, { sizeGib, copies: checkedCopies(copies ?? null), blocks: blocks(), rights: new Map() })
  }
  const checkedCopies = (wanted: VolumeCopies | null): VolumeCopies => {
    const { copies, copiesMin } = wanted ?? ONE_COPY
    if (copies <= backend.copiesMax) return { copies, ...(copiesMin !== undefined && { copiesMin }) }
    throw new ServiceError('BackendFailure', {
      reason: `${copies} copies, where there are ${backend.copiesMax} at most`,
    })
  }

  return {
    capabilities: { storageProtocol: 'memory', thinProvisioning: true, multiattach: true, extendInUse: true },
    start: async () => {},
    stop: async () => {},
    stats: async () => [poolStats(backend)],

    createVolume: async (volume) => provision(volume, () => new Map()),
    createVolumeFromSnapshot: async (volume, snapshot) =>
      provision(volume, () => new Map(snapshotOf(backend, snapshot.id).blocks)),
    createClonedVolume: async (volume, source) => provision(volume, () => new Map(volumeOf(backend, source.id).blocks)),
    deleteVolume: async ({ id }) => {
      for (const snapshot of snapshots.values()) {
        if (snapshot.volumeId === id) {
          throw new ServiceError('InvalidVolume', { reason: `Volume ${id} still has snapshots.` })
        }
      }
      volumes.delete(id)
    },
    extendVolume: async ({ id }, newSizeGib) => {
      const volume = volumeOf(backend, id)
      volume.sizeGib = Math.max(volume.sizeGib, newSizeGib)
    },
    alterCopies: async ({ id }, copies) => {
      volumeOf(backend, id).copies = checkedCopies(copies)
    },

    createSnapshot: async ({ id, volumeId, sizeGib }: SnapshotRef) => {
      const blocks = new Map(volumeOf(backend, volumeId).blocks)
      if (!snapshots.has(id)) snapshots.set(id, { volumeId, sizeGib, blocks })
    },
    createGroupSnapshot: async (together) => {
      const taken = together.map(
        (snapshot) => [snapshot, new Map(volumeOf(backend, snapshot.volumeId).blocks)] as const,
      )
      for (const [{ id, volumeId, sizeGib }, blocks] of taken) {
        if (!snapshots.has(id)) snapshots.set(id, { volumeId, sizeGib, blocks })
      }
    },
    deleteSnapshot: async ({ id }) => {
      snapshots.delete(id)
    },
    revertToSnapshot: async ({ id, volumeId }) => {
      const { blocks } = snapshotOf(backend, id)
      volumeOf(backend, volumeId).blocks = new Map(blocks)
    },

    createExport: async ({ id }, attachment: AttachmentRef) => {
      const right = { secret: random.uuid(), mode: attachment.mode, limits: attachment.limits ?? null }
      volumeOf(backend, id).rights.set(attachment.id, right)
      return {
        driver_volume_type: 'memory',
        volume_id: id,
        export_of: attachment.id,
        secret: right.secret,
        access_mode: attachment.mode,
      }
    },
    removeExport: async ({ id }, attachmentId) => {
      volumes.get(id)?.rights.delete(attachmentId)
    },
    limitVolume: async ({ id }, limits) => {
      const { rights } = volumeOf(backend, id)
      for (const [attachmentId, right] of rights) rights.set(attachmentId, { ...right, limits })
    },

    drive: async (databaseId, { replace }) => {
      if (replace) backend.drivenBy = databaseId
      backend.drivenBy ??= databaseId
      return backend.drivenBy
    },
    discover: async () => ({
      volumes: [...volumes].map(([id, { sizeGib }]) => ({ id, sizeGib })),
      snapshots: [...snapshots].map(([id, { volumeId, sizeGib }]) => ({ id, volumeId, sizeGib })),
      exports: [...volumes].flatMap(([volumeId, { rights }]) =>
        [...rights.keys()].map((attachmentId) => ({ attachmentId, volumeId })),
      ),
      foreign: [],
    }),

    listManageable: async () => ({
      volumes: [...volumes].map(([id, { sizeGib, rights }]) => ({
        name: id,
        volumeId: id,
        sizeGib,
        reason: rights.size > 0 ? 'exported' : null,
      })),
      snapshots: [...snapshots].map(([id, { volumeId, sizeGib }]) => ({
        name: id,
        snapshotId: id,
        volumeName: volumeId,
        volumeId,
        sizeGib,
        reason: null,
      })),
    }),
    manageVolume: async ({ id }, name) => {
      if (!volumes.has(id)) {
        const volume = volumeOf(backend, name)
        if (volume.rights.size > 0) throw new ServiceError('InvalidVolume', { reason: `Volume ${name} is exported.` })
        volumes.set(id, volume)
        volumes.delete(name)
        for (const snapshot of snapshots.values()) if (snapshot.volumeId === name) snapshot.volumeId = id
      }
      return { sizeGib: volumeOf(backend, id).sizeGib }
    },
    manageSnapshot: async ({ id }, name) => {
      if (snapshots.has(id)) return
      snapshots.set(id, snapshotOf(backend, name))
      snapshots.delete(name)
    },

    openVolume: async ({ id }) => {
      const volume = volumeOf(backend, id)
      if (volume.rights.size > 0) throw new ServiceError('InvalidVolume', { reason: `Volume ${id} is exported.` })
      return memoryData(volume)
    },
    openSnapshot: async ({ id }) => memoryData(snapshotOf(backend, id)),
  }
}

function poolStats({ volumes, capacityGib, copiesMax }: MemoryBackend): PoolStats {
  let provisionedCapacityGib = 0
  let allocatedBlocks = 0
  for (const { sizeGib, blocks, copies } of volumes.values()) {
    provisionedCapacityGib += sizeGib * copies.copies
    allocatedBlocks += blocks.size * copies.copies
  }
  return {
    poolName: 'memory',
    totalCapacityGib: capacityGib,
    freeCapacityGib: capacityGib - (allocatedBlocks * BLOCK_SIZE_BYTES) / GIB,
    provisionedCapacityGib,
    sizeFactors: Array.from({ length: copiesMax }, (_, index) => index + 1),
    reservedPercentage: 0,
    maxOverSubscriptionRatio: 20,
  }
}

/** What an initiator does with connection information: looks its right up at every access, so a revoked one is dead. */
export function openMemoryExport(backend: MemoryBackend, info: ConnectionInfo) {
  const { volume_id: id, export_of: attachmentId, secret } = info
  assert(typeof id === 'string' && typeof attachmentId === 'string' && typeof secret === 'string')
  const rightful = (writing: boolean): MemoryVolume => {
    const volume = backend.volumes.get(id)
    const right = volume?.rights.get(attachmentId)
    if (volume === undefined || right?.secret !== secret || (writing && right.mode === 'ro')) {
      throw new Error('the right was refused')
    }
    return volume
  }
  return {
    read: async (offset: number, lengthBytes: number): Promise<Buffer> =>
      readBlocks(rightful(false), offset, lengthBytes),
    write: async (offset: number, data: Buffer): Promise<void> => writeBlocks(rightful(true), offset, data),
  }
}

function memoryData(content: Content): VolumeData {
  return {
    get sizeBytes() {
      return content.sizeGib * GIB
    },
    extents: async (offset, lengthBytes) => {
      checkRange(content, offset, lengthBytes)
      return extentsOf(content, offset, offset + lengthBytes)
    },
    marks: async (offset, lengthBytes) => {
      checkRange(content, offset, lengthBytes)
      return marksOf(content, offset, offset + lengthBytes)
    },
    read: async (offset, target) => void readBlocks(content, offset, target.length).copy(target),
    write: async (offset, source) => writeBlocks(content, offset, source),
    discard: async (offset, lengthBytes) => {
      checkRange(content, offset, lengthBytes)
      forEachBlock(offset, lengthBytes, (block, start, end) => {
        if (end - start === BLOCK_SIZE_BYTES) content.blocks.delete(block)
        else if (content.blocks.has(block)) content.blocks.set(block, zeroed(content.blocks.get(block)!, start, end))
      })
    },
    flush: async () => {},
    close: async () => {},
  }
}

/** What memory holds has no better name than its checksum. */
function marksOf(content: Content, start: number, end: number): ContentMark[] {
  const marks: ContentMark[] = []
  let offset = start
  for (const { kind, lengthBytes } of extentsOf(content, start, end)) {
    if (kind === 'hole') marks.push({ lengthBytes, mark: 'zeros' })
    for (let at = offset; kind === 'data' && at < offset + lengthBytes; at += BLOCK_SIZE_BYTES) {
      const block = content.blocks.get(at / BLOCK_SIZE_BYTES)!
      marks.push({ lengthBytes: BLOCK_SIZE_BYTES, mark: createHash('sha256').update(block).digest('hex') })
    }
    offset += lengthBytes
  }
  return marks
}

/** By the blocks that there are: a volume may be large and hold little. */
function extentsOf({ blocks }: Content, start: number, end: number): DataExtent[] {
  const extents: DataExtent[] = []
  let offset = start
  const add = (kind: DataExtent['kind'], until: number) => {
    if (until <= offset) return
    const last = extents.at(-1)
    if (last?.kind === kind) last.lengthBytes += until - offset
    else extents.push({ lengthBytes: until - offset, kind })
    offset = until
  }
  const first = Math.floor(start / BLOCK_SIZE_BYTES)
  const held = [...blocks.keys()].filter((block) => block >= first && block * BLOCK_SIZE_BYTES < end)
  for (const block of held.sort((a, b) => a - b)) {
    add('hole', block * BLOCK_SIZE_BYTES)
    add('data', Math.min(end, (block + 1) * BLOCK_SIZE_BYTES))
  }
  add('hole', end)
  return extents
}

/** A block is never changed in place. */
function zeroed(block: Buffer, start: number, end: number): Buffer {
  return Buffer.from(block).fill(0, start, end)
}

function readBlocks(volume: Content, offset: number, lengthBytes: number): Buffer {
  checkRange(volume, offset, lengthBytes)
  const target = Buffer.alloc(lengthBytes)
  forEachBlock(offset, lengthBytes, (block, start, end, position) => {
    volume.blocks.get(block)?.copy(target, position, start, end)
  })
  return target
}

function writeBlocks(volume: Content, offset: number, data: Buffer): void {
  checkRange(volume, offset, data.length)
  forEachBlock(offset, data.length, (block, start, end, position) => {
    const bytes = Buffer.alloc(BLOCK_SIZE_BYTES)
    volume.blocks.get(block)?.copy(bytes)
    data.copy(bytes, start, position, position + end - start)
    volume.blocks.set(block, bytes)
  })
}

function checkRange(volume: Content, offset: number, lengthBytes: number): void {
  if (offset < 0 || offset + lengthBytes > volume.sizeGib * GIB) throw new RangeError('beyond the end of the volume')
}

function forEachBlock(
  offset: number,
  lengthBytes: number,
  visit: (block: number, start: number, end: number, position: number) => void,
): void {
  for (let position = 0; position < lengthBytes; ) {
    const block = Math.floor((offset + position) / BLOCK_SIZE_BYTES)
    const start = (offset + position) % BLOCK_SIZE_BYTES
    const end = Math.min(BLOCK_SIZE_BYTES, start + lengthBytes - position)
    visit(block, start, end, position)
    position += end - start
  }
}

function volumeOf(backend: MemoryBackend, id: string): MemoryVolume {
  const volume = backend.volumes.get(id)
  if (volume === undefined) throw new ServiceError('VolumeNotFound', { volume_id: id })
  return volume
}

function snapshotOf(backend: MemoryBackend, id: string): MemorySnapshot {
  const snapshot = backend.snapshots.get(id)
  if (snapshot === undefined) throw new ServiceError('SnapshotNotFound', { snapshot_id: id })
  return snapshot
}
