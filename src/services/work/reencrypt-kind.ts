import assert from 'node:assert/strict'
import * as volumes from '../../db/volumes.ts'
import { ServiceError } from '../../errors.ts'
import { PAYLOAD_OFFSET_BYTES } from '../../luks/luks1.ts'
import type { Log } from '../../runtime/log.ts'
import { placeOf } from '../../scheduler/place.ts'
import { NO_HINTS, type PlacementRequest } from '../../scheduler/scheduler.ts'
import type { Parts } from '../parts.ts'
import { retypeRequest } from '../placement.ts'
import { newVolumeRef, volumeRef } from '../refs.ts'
import { hostOf } from '../rows.ts'
import { exchange } from '../swapped-volumes.ts'
import { extraSpecsOf } from '../type-lookup.ts'
import { VOLUME_OUTCOMES } from '../volume-status.ts'
import { needsHeader, passphraseOf, writeHeader } from './encrypted-volume.ts'
import { fitsBehindHeader, type GuestCopies, type GuestVolume } from './guest-copies.ts'
import type { Outcome, WorkKind, WorkUnit } from './kind.ts'
import { giveUpTarget, idsOf, isRemoval, leaveRemoval, removeTarget, whenClosed } from './swap-target.ts'
import { existing, ROOM_RETRY_MS } from './volume-kinds.ts'

type KindParts = Pick<Parts, 'db' | 'backends' | 'pools' | 'keys' | 'random' | 'stamp'> & {
  log: Log
  copies: GuestCopies
}

const MIB = 1024 ** 2

/**
 * Gives a volume that is attached nowhere a type that is encrypted in another way: check → create-target → copy@offset, as often as it
 * takes → remove-source. When it is given up: remove-target.
 *
 * The request has made the target, with its key, as a row; `check` finds a pool for it. The volume is only read, until the two are
 * exchanged in one transaction: before it, it is what it was, and after it what it is to be. What opens either goes with the unit,
 * sealed, so that nobody's token is needed to go on.
 */
export function volumeReencrypt(parts: KindParts): WorkKind {
  const { db, backends, pools, keys, stamp, copies } = parts

  async function check(row: volumes.VolumeRow, target: volumes.VolumeRow, unit: WorkUnit): Promise<Outcome> {
    const headerBytes = needsHeader(unit) ? PAYLOAD_OFFSET_BYTES : 0
    if (!(await fitsBehindHeader(backends, sourceOf(row, unit), headerBytes)))
      throw new ServiceError('NoRoomForHeader', { volume_id: row.id, header_mib: headerBytes / MIB })
    const request = await placementOf(row, target, unit)
    await pools.requireRoom(target.id, request)
    return {
      commit: async () => {},
      decide: async (trx) => {
        await volumes.lock(trx, row.id)
        await volumes.lock(trx, target.id)
        const pool = await pools.reserve(trx, target.id, request)
        if (pool === null) return { next: 'check', afterMs: ROOM_RETRY_MS } // others took the room meanwhile
        const { name: host, availabilityZone } = pool
        await volumes.update(trx, target.id, { host, availability_zone: availabilityZone, updated_at: stamp() })
        await volumes.update(trx, row.id, { migration_status: 'migrating', updated_at: stamp() })
        return { next: 'create-target' }
      },
    }
  }

  /** In the pool where the volume is, if that has the room and suits its new type. */
  async function placementOf(
    row: volumes.VolumeRow,
    target: volumes.VolumeRow,
    unit: WorkUnit,
  ): Promise<PlacementRequest> {
    await pools.refresh()
    const wanted = retypeRequest(row, await extraSpecsOf(db, target.volume_type_id))
    const anywhere = { ...wanted, isFilled: needsHeader(unit) && !isEncrypted(unit) }
    const here = { ...anywhere, hints: { ...NO_HINTS, sameAs: [placeOf(hostOf(row))] } }
    return (await pools.find(target.id, here)) === null ? anywhere : here
  }

  async function create(target: volumes.VolumeRow, unit: WorkUnit): Promise<Outcome> {
    const driver = backends.driverOf(hostOf(target))
    const volume = newVolumeRef(target, await extraSpecsOf(db, target.volume_type_id))
    // An attempt that was given up may still be about to write its header: never to the target that this one makes, whose copy opens
    // with one header alone.
    await whenClosed(driver.deleteVolume(volume))
    await driver.createVolume(volume)
    if (needsHeader(unit)) await writeHeader(parts, unit, () => driver.openVolume(volume))
    return {
      next: 'copy@0',
      commit: async (trx) => {
        await volumes.compareAndSet(trx, target.id, { ...VOLUME_OUTCOMES.copying, updatedAt: stamp() })
      },
    }
  }

  async function copyOn(row: volumes.VolumeRow, target: volumes.VolumeRow, unit: WorkUnit): Promise<Outcome> {
    const { reached, isDone } = await copies.copyGuest({
      source: sourceOf(row, unit),
      copy: { host: hostOf(target), volume: volumeRef(target), passphrase: passphraseOf(keys, unit) },
      offset: Number(unit.step.slice('copy@'.length)),
    })
    if (!isDone) return { next: `copy@${reached}`, commit: async () => {} }
    return {
      next: 'remove-source',
      commit: async (trx) => {
        const [locked, copied] = [await volumes.lock(trx, row.id), await volumes.lock(trx, target.id)]
        if (locked === undefined || copied === undefined) {
          throw new ServiceError('VolumeNotFound', { volume_id: locked === undefined ? row.id : target.id })
        }
        await exchange(trx, locked, copied, stamp())
      },
    }
  }

  /** The volume as it is so far. */
  function sourceOf(row: volumes.VolumeRow, unit: WorkUnit): GuestVolume {
    return { host: hostOf(row), volume: volumeRef(row), passphrase: isEncrypted(unit) ? sealedPassphrase(unit) : null }
  }

  function sealedPassphrase({ params }: WorkUnit): string {
    assert(keys !== null, 'what was sealed here was sealed with a seal')
    return keys.seal.open(String(params.sealedPassphrase))
  }

  return {
    attempt: async (unit) => {
      if (isRemoval(unit)) return removeTarget(parts, unit)
      const { id, targetId } = idsOf(unit)
      const [row, target] = [await existing(db, id), await existing(db, targetId)]
      if (unit.step === 'check') return check(row, target, unit)
      return unit.step === 'create-target' ? create(target, unit) : copyOn(row, target, unit)
    },
    giveUp: (unit, error) => (isRemoval(unit) ? leaveRemoval(parts, unit, error) : giveUpTarget(parts, unit, error)),
  }
}

/** Whether the volume is encrypted so far. */
const isEncrypted = ({ params }: WorkUnit): boolean => params.sealedPassphrase !== undefined
