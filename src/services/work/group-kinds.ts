import assert from 'node:assert/strict'
import * as attachments from '../../db/attachments.ts'
import type { Db } from '../../db/database.ts'
import * as groupTypes from '../../db/group-types.ts'
import * as groups from '../../db/groups.ts'
import * as volumes from '../../db/volumes.ts'
import type { SnapshotRef } from '../../drivers/driver.ts'
import { ServiceError } from '../../errors.ts'
import type { Log } from '../../runtime/log.ts'
import { dropGroup, dropVolume } from '../accounting.ts'
import { removeKey } from '../keys/volume-keys.ts'
import type { Parts } from '../parts.ts'
import { newVolumeRef, snapshotRefOf, volumeRef } from '../refs.ts'
import { hostOf, toPairs } from '../rows.ts'
import { extraSpecsOf } from '../type-lookup.ts'
import { GROUP_OUTCOMES, VOLUME_OUTCOMES } from '../volume-status.ts'
import { frozenAs } from './image-transfer.ts'
import type { Outcome, WorkKind, WorkUnit } from './kind.ts'
import { deleteWhole, snapshotRef } from './volume-kinds.ts'

type KindParts = Pick<Parts, 'db' | 'backends' | 'pools' | 'settings' | 'stamp'>

/**
 * A new group is given a place: `place`. A copy is made volume by volume: (freeze, when the source is a group, under the ids of the
 * new volumes) → copy@0 → copy@1 … → thaw, which ends with all of them available. A copy that is given up goes on with `undo`.
 */
export function groupCreate(parts: KindParts): WorkKind {
  const { db, backends, stamp } = parts

  async function copy(group: groups.GroupRow, members: readonly volumes.VolumeRow[], index: number): Promise<Outcome> {
    const member = members[index]
    if (member === undefined) return { next: 'thaw', commit: async () => {} }
    const source = member.snapshot_id === null ? await frozenFor(db, member) : await snapshotRef(db, member.snapshot_id)
    assert(source !== null, 'a volume of a copied group has a source')
    const volume = newVolumeRef(member, await extraSpecsOf(db, member.volume_type_id))
    await backends.driverOf(placeOf(group)).createVolumeFromSnapshot(volume, source)
    return { next: `copy@${index + 1}`, commit: async () => {} }
  }

  return {
    attempt: async (unit) => {
      const group = await existing(db, unit.resourceId)
      if (unit.step === 'place') return choosePlace(parts, group)
      const members = await volumes.ofGroup(db, group.id)
      const driver = backends.driverOf(placeOf(group))
      const frozen = (await Promise.all(members.map((member) => frozenFor(db, member)))).filter((one) => one !== null)
      if (unit.step === 'freeze') {
        await driver.createGroupSnapshot(frozen)
        return { next: 'copy@0', commit: async () => {} }
      }
      if (unit.step.startsWith('copy@')) return copy(group, members, Number(unit.step.slice('copy@'.length)))
      for (const snapshot of frozen) await driver.deleteSnapshot(snapshot) // the copies keep what they share
      return {
        commit: async (trx) => {
          if (unit.step === 'undo') return
          for (const { id } of members) {
            await volumes.compareAndSet(trx, id, { ...VOLUME_OUTCOMES.created, updatedAt: stamp() })
          }
          await groups.compareAndSet(trx, group.id, { ...GROUP_OUTCOMES.created, updatedAt: stamp() })
        },
      }
    },
    giveUp: (unit, error) => {
      if (unit.step === 'undo') return { commit: async () => {} } // who deletes the source deletes what is left
      const change = { updatedAt: stamp(), set: { status_reason: error.message } }
      return {
        ...(unit.step === 'place' ? {} : { next: 'undo' }),
        commit: async (trx) => {
          await groups.lock(trx, unit.resourceId)
          for (const { id } of await volumes.lockOfGroup(trx, unit.resourceId)) {
            await volumes.compareAndSet(trx, id, { ...VOLUME_OUTCOMES.createFailed, ...change })
          }
          await groups.compareAndSet(trx, unit.resourceId, { ...GROUP_OUTCOMES.createFailed, ...change })
        },
      }
    },
  }
}

/** The snapshot that a copy is made from: under the id of the new volume, so that whoever goes on finds it. */
async function frozenFor(db: Db, row: volumes.VolumeRow): Promise<SnapshotRef | null> {
  const source = row.source_volid === null ? undefined : await volumes.find(db, row.source_volid)
  return source === undefined ? null : snapshotRefOf(row, source)
}

const CONSISTENCY = 'consistent_group_snapshot_enabled'

/** Any pool that would take volumes of all the types, and whose backend can do what the type of the group asks for. */
async function choosePlace({ db, pools, settings, stamp }: KindParts, group: groups.GroupRow): Promise<Outcome> {
  const typeIds = (await groups.typesOf(db, [group.id])).get(group.id) ?? []
  const { [CONSISTENCY]: consistency = '', ...specs } = toPairs(
    (await groupTypes.find(db, group.group_type_id))?.group_specs ?? '{}',
  )
  // Who does not need snapshots of one moment gets them all the same.
  if (!/^<is> false$/i.test(consistency) && consistency !== '') specs[CONSISTENCY] = consistency
  const wishes = [specs, ...(await Promise.all(typeIds.map((id) => extraSpecsOf(db, id))))]
  const zone = group.availability_zone ?? settings.availabilityZone
  const pool = await pools.chooseForAll(wishes, [zone])
  return {
    commit: async (trx) => {
      const set = { host: pool.name, availability_zone: pool.availabilityZone }
      await groups.compareAndSet(trx, group.id, { ...GROUP_OUTCOMES.created, updatedAt: stamp(), set })
    },
  }
}

/** delete-volumes, one by one, those that the request took; then the group goes. */
export function groupDelete(parts: KindParts & Pick<Parts, 'keys'> & { log: Log }): WorkKind {
  const { db, backends, stamp } = parts
  return {
    attempt: async (unit) => {
      const group = await existing(db, unit.resourceId)
      const members = await volumes.ofGroup(db, group.id)
      const volume = members.find(({ status }) => status === 'deleting')
      if (volume === undefined) {
        if (members.length === 0) return { commit: (trx) => dropGroup(trx, group.id) }
        throw new ServiceError('InvalidGroup', { reason: `Group ${group.id} still contains volumes.` })
      }
      if (volume.host !== null) {
        const driver = backends.driverOf(hostOf(volume))
        for (const { id } of await attachments.ofVolume(db, volume.id)) await driver.removeExport(volumeRef(volume), id)
        if (volume.upload_image_id !== null) await driver.deleteSnapshot(frozenAs(volume.upload_image_id, volume))
        const frozen = await frozenFor(db, volume) // by a copy that was broken off
        if (frozen !== null) await driver.deleteSnapshot(frozen)
        await deleteWhole(db, driver, volume)
        await removeKey(parts, unit, volume.encryption_key_id)
      }
      return {
        next: 'delete-volumes',
        commit: async (trx) => {
          const row = await volumes.lock(trx, volume.id)
          if (row?.status !== 'deleting') return // an administrator has written another status
          await attachments.removeOfVolume(trx, volume.id)
          await dropVolume(trx, volume.id)
        },
      }
    },
    giveUp: (unit, error) => ({
      commit: async (trx) => {
        const change = { updatedAt: stamp(), set: { status_reason: error.message } }
        await groups.lock(trx, unit.resourceId)
        for (const { id } of await volumes.lockOfGroup(trx, unit.resourceId)) {
          await volumes.compareAndSet(trx, id, { ...VOLUME_OUTCOMES.deleteFailed, ...change })
        }
        await groups.compareAndSet(trx, unit.resourceId, { ...GROUP_OUTCOMES.deleteFailed, ...change })
      },
    }),
  }
}

async function existing(db: Db, id: WorkUnit['resourceId']): Promise<groups.GroupRow> {
  const row = await groups.find(db, id)
  if (row === undefined) throw new ServiceError('GroupNotFound', { group_id: id })
  return row
}

function placeOf({ id, host }: groups.GroupRow): string {
  if (host === null) throw new ServiceError('InvalidGroup', { reason: `Group ${id} was never given a place.` })
  return host
}
