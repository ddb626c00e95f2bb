import type { Db } from '../../db/database.ts'
import * as volumes from '../../db/volumes.ts'
import type { VolumeData, VolumeDriver, VolumeRef } from '../../drivers/driver.ts'
import { ServiceError } from '../../errors.ts'
import { explainDropped, NO_WISHES, place } from '../../scheduler/scheduler.ts'
import { endRetype } from '../accounting.ts'
import { followAttachments } from '../attached-status.ts'
import type { Parts } from '../parts.ts'
import type { Pools } from '../pools.ts'
import { newVolumeRef, volumeRef } from '../refs.ts'
import { extraSpecsOf } from '../type-lookup.ts'
import type { Outcome, WorkKind, WorkUnit } from './kind.ts'
import { deleteWhole, existing } from './volume-kinds.ts'

type KindParts = Pick<Parts, 'db' | 'backends' | 'pools' | 'stamp'>

const GIB = 1024 ** 3
const BUFFER_BYTES = 4 * 1024 ** 2
/** What one step copies at most, so that it ends well before an attempt has to, and a crash repeats little. */
const STEP_DATA_BYTES = 64 * 1024 ** 2
const STEP_RANGE_BYTES = 64 * GIB

/**
 * check → copy@offset, as often as it takes → delete-source. When copying is given up: delete-copy.
 *
 * The copy has the id of the volume, on another backend. `check` fails when that has such a volume already: it might be the
 * very same one, in a store that two backends share, and the last step would delete it.
 */
export function volumeMigrate({ db, backends, pools, stamp }: KindParts): WorkKind {
  const locked = { from: ['maintenance', 'retyping'] } as const

  /** The end of a migration: what it says, and the volume is for everybody again. */
  function finish(id: string, migrationStatus: 'success' | 'error', reason: string | null): Outcome {
    return {
      commit: async (trx) => {
        const row = await volumes.lock(trx, id)
        if (row === undefined) return
        await endRetype(trx, row, stamp(), { isDone: migrationStatus === 'success' })
        const set = { migration_status: migrationStatus, status_reason: reason }
        await followAttachments(trx, id, stamp(), { ...locked, set })
      },
    }
  }

  return {
    attempt: async (unit) => {
      const { source, destination } = placesOf(unit)
      const row = await existing(db, unit.resourceId)
      const volume = volumeRef(row)
      const target = backends.driverOf(destination)
      if (unit.step === 'delete-copy') {
        await target.deleteVolume(volume)
        return finish(row.id, 'error', unit.lastError)
      }
      const origin = backends.driverOf(source)
      if (unit.step === 'delete-source') {
        await deleteWhole(db, origin, row)
        return finish(row.id, 'success', null)
      }
      if (unit.step === 'check') {
        await requireDestination(db, pools, row, destination)
        if (await has(target, volume)) {
          throw new ServiceError('InvalidVolume', { reason: `${destination} has a volume ${row.id} already.` })
        }
        return {
          next: 'copy@0',
          commit: (trx) => volumes.update(trx, row.id, { migration_status: 'migrating', updated_at: stamp() }),
        }
      }
      const offset = Number(unit.step.slice('copy@'.length))
      if (offset === 0) {
        const extraSpecs = await extraSpecsOf(db, row.pending_volume_type_id ?? row.volume_type_id)
        await target.createVolume(newVolumeRef(row, extraSpecs))
      }
      const reached = await copyStep(origin, target, volume, offset)
      if (reached < volume.sizeGib * GIB) return { next: `copy@${reached}`, commit: async () => {} }
      return {
        next: 'delete-source',
        commit: (trx) =>
          volumes.update(trx, row.id, {
            host: destination,
            availability_zone: backends.backendOf(destination).availabilityZone,
            migration_status: 'completing',
            updated_at: stamp(),
          }),
      }
    },
    giveUp: (unit, error) => {
      if (unit.step.startsWith('copy@')) return { next: 'delete-copy', commit: async () => {} }
      if (unit.step === 'check') return finish(unit.resourceId, 'error', error.message)
      if (unit.step === 'delete-copy') return finish(unit.resourceId, 'error', unit.lastError ?? error.message)
      const { source } = placesOf(unit)
      return finish(unit.resourceId, 'success', `What ${source} had of the volume is still there: ${error.message}`)
    },
  }
}

/** Throws NoValidBackend unless the destination has room for the volume, and suits the type that it has or gets. */
export async function requireDestination(
  db: Db,
  pools: Pools,
  row: volumes.VolumeRow,
  destination: string,
): Promise<void> {
  await pools.refresh()
  const there = (await pools.current()).filter(({ name }) => name === destination)
  const extraSpecs = await extraSpecsOf(db, row.pending_volume_type_id ?? row.volume_type_id)
  const { candidates, dropped } = place(there, { ...NO_WISHES, sizeGib: row.size_gib, extraSpecs })
  if (candidates.length === 0) throw new ServiceError('NoValidBackend', { reason: explainDropped(dropped) })
}

function placesOf({ params }: WorkUnit): { source: string; destination: string } {
  return { source: String(params.source), destination: String(params.destination) }
}

async function has(driver: VolumeDriver, volume: VolumeRef): Promise<boolean> {
  try {
    await (await driver.openVolume(volume)).close()
    return true
  } catch (error) {
    if (error instanceof ServiceError && error.code === 'VolumeNotFound') return false
    throw error
  }
}

/** Copies on from `offset` and answers how far it came. What it copied is durable then. */
async function copyStep(
  origin: VolumeDriver,
  target: VolumeDriver,
  volume: VolumeRef,
  offset: number,
): Promise<number> {
  const source = await origin.openVolume(volume)
  try {
    const copy = await target.openVolume(volume)
    try {
      const reached = await copyData(source, copy, offset)
      await copy.flush()
      return reached
    } finally {
      await copy.close()
    }
  } finally {
    await source.close()
  }
}

async function copyData(source: VolumeData, copy: VolumeData, start: number): Promise<number> {
  const end = Math.min(source.sizeBytes, start + STEP_RANGE_BYTES)
  const buffer = Buffer.allocUnsafe(BUFFER_BYTES)
  let offset = start
  let leftBytes = STEP_DATA_BYTES
  while (offset < end) {
    for (const { lengthBytes, kind } of await source.extents(offset, Math.min(GIB, end - offset))) {
      const extentEnd = offset + lengthBytes
      if (kind === 'hole') offset = extentEnd // a new volume reads as zeros there
      while (offset < extentEnd) {
        if (leftBytes <= 0) return offset
        const part = buffer.subarray(0, Math.min(BUFFER_BYTES, extentEnd - offset))
        await source.read(offset, part)
        await copy.write(offset, part)
        offset += part.length
        leftBytes -= part.length
      }
    }
  }
  return offset
}
