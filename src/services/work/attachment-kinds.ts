import assert from 'node:assert/strict'
import * as attachments from '../../db/attachments.ts'
import type { Db } from '../../db/database.ts'
import * as volumes from '../../db/volumes.ts'
import type { ConnectionInfo, Connector } from '../../drivers/driver.ts'
import { ServiceError } from '../../errors.ts'
import { dropAttachment, followAttachments } from '../attached-status.ts'
import type { Parts } from '../parts.ts'
import { qosOfVolume } from '../qos.ts'
import { volumeRef } from '../refs.ts'
import { hostOf } from '../rows.ts'
import { ATTACHMENT_ACTIONS, ATTACHMENT_OUTCOMES } from '../volume-status.ts'
import type { WorkKind, WorkUnit } from './kind.ts'

type KindParts = Pick<Parts, 'db' | 'backends' | 'stamp'>

/**
 * create-export; when that fails or the process dies: remove-export. The caller that waited for the connection is gone
 * then, and a right that nobody knows of must not stay. An attachment that was made together with its export goes too,
 * since its id was never told; another becomes reserved again.
 */
export function attachmentConnect({ db, backends, stamp }: KindParts): WorkKind {
  return {
    resumeAt: () => 'remove-export',
    attempt: async (unit) => {
      const { attachment, volume } = await existing(db, unit.resourceId)
      const driver = backends.driverOf(hostOf(volume))
      if (unit.step === 'remove-export') {
        await driver.removeExport(volumeRef(volume), attachment.id)
        return {
          commit: async (trx) => {
            await volumes.hold(trx, volume.id)
            if (unit.params.created === true) await attachments.remove(trx, attachment.id)
            else await undoConnector(trx, unit, stamp())
            await followAttachments(trx, volume.id, stamp())
          },
        }
      }
      assert(attachment.connector !== null && attachment.attach_mode !== null)
      const connector: Connector = JSON.parse(attachment.connector)
      const mode = attachment.attach_mode
      const { frontEnd, limits } = await qosOfVolume(db, volume)
      const answer = await driver.createExport(volumeRef(volume), { id: attachment.id, mode, connector, limits })
      const info = { ...withCommonKeys(answer, volume, attachment.id, mode, connector), qos_specs: frontEnd }
      return {
        commit: async (trx) => {
          await volumes.hold(trx, volume.id)
          const updatedAt = stamp()
          await attachments.compareAndSet(trx, attachment.id, {
            ...ATTACHMENT_OUTCOMES.connected,
            updatedAt,
            set: { connection_info: JSON.stringify(info), attached_at: updatedAt, status_reason: null },
          })
          await followAttachments(trx, volume.id, updatedAt)
        },
      }
    },
    giveUp: (unit, error) => {
      if (unit.step === 'create-export') return { next: 'remove-export', commit: async () => {} }
      return {
        commit: async (trx) => {
          const row = await attachments.find(trx, unit.resourceId)
          if (row === undefined) return
          await volumes.hold(trx, row.volume_id)
          await attachments.compareAndSet(trx, row.id, {
            ...ATTACHMENT_OUTCOMES.connectFailed,
            updatedAt: stamp(),
            set: { status_reason: error.message },
          })
          await followAttachments(trx, row.volume_id, stamp())
        },
      }
    },
  }
}

/** Cuts the export off, then removes the row; with the parameter `keep` the row stays, without a connection. */
export function attachmentDisconnect({ db, backends, stamp }: KindParts): WorkKind {
  return {
    attempt: async (unit) => {
      const { attachment, volume } = await existing(db, unit.resourceId)
      await backends.driverOf(hostOf(volume)).removeExport(volumeRef(volume), attachment.id)
      return {
        commit: async (trx) => {
          await volumes.hold(trx, volume.id)
          if (unit.params.keep === true) await forgetConnection(trx, attachment.id, stamp())
          else await dropAttachment(trx, attachment, stamp())
        },
      }
    },
    giveUp: (unit, error) => ({
      commit: async (trx) => {
        const row = await attachments.find(trx, unit.resourceId)
        if (row === undefined) return
        await volumes.hold(trx, row.volume_id)
        const set = { status_reason: error.message }
        await attachments.compareAndSet(trx, row.id, {
          ...ATTACHMENT_OUTCOMES.disconnectFailed,
          updatedAt: stamp(),
          set,
        })
        await followAttachments(trx, row.volume_id, stamp())
      },
    }),
  }
}

async function undoConnector(trx: Db, { resourceId, params, lastError }: WorkUnit, updatedAt: string): Promise<void> {
  const set = {
    connector: null,
    attached_host: null,
    mountpoint: null,
    attached_at: null,
    status_reason: lastError,
    ...(params.modeOfConnector === true ? { attach_mode: null } : {}),
  }
  await attachments.compareAndSet(trx, resourceId, { ...ATTACHMENT_OUTCOMES.connectUndone, updatedAt, set })
}

async function forgetConnection(trx: Db, id: string, updatedAt: string): Promise<void> {
  const set = { connector: null, connection_info: null }
  await attachments.compareAndSet(trx, id, { ...ATTACHMENT_ACTIONS.disconnect, updatedAt, set })
}

/** The keys that Cinder adds to what a driver answers; Nova and os-brick look for them. */
function withCommonKeys(
  info: ConnectionInfo,
  { encryption_key_id }: volumes.VolumeRow,
  id: string,
  mode: 'rw' | 'ro',
  connector: Connector,
): ConnectionInfo {
  return {
    access_mode: mode,
    cacheable: false,
    ...info,
    encrypted: encryption_key_id !== null, // of which no driver knows
    attachment_id: id,
    enforce_multipath: connector.enforce_multipath === true,
  }
}

async function existing(db: Db, id: string) {
  const attachment = await attachments.find(db, id)
  if (attachment === undefined) throw new ServiceError('AttachmentNotFound', { attachment_id: id })
  const volume = await volumes.find(db, attachment.volume_id)
  assert(volume !== undefined, 'a foreign key keeps the volume of an attachment')
  return { attachment, volume }
}
