import type { Db } from '../../db/database.ts'
import * as encryptionKeys from '../../db/encryption-keys.ts'
import * as volumes from '../../db/volumes.ts'
import { ServiceError } from '../../errors.ts'
import type { Log } from '../../runtime/log.ts'
import { followAttachments } from '../attached-status.ts'
import type { ImageFormat } from '../images/formats.ts'
import { type Images, requireImages } from '../images/images.ts'
import { removeKey } from '../keys/volume-keys.ts'
import type { Parts } from '../parts.ts'
import { volumeRef } from '../refs.ts'
import { hostOf } from '../rows.ts'
import { VOLUME_ACTIONS, VOLUME_OUTCOMES } from '../volume-status.ts'
import { needsHeader, opener, writeHeader } from './encrypted-volume.ts'
import { resumeTransfer } from './image-steps.ts'
import {
  FILL,
  failFill,
  filledColumns,
  fillSome,
  frozenAs,
  isFilling,
  resumeFill,
  tokenOf,
  transferSome,
} from './image-transfer.ts'
import type { Outcome, WorkKind, WorkUnit } from './kind.ts'
import { isNotice, noticeStep, notifyServers } from './server-notice.ts'
import { existing } from './volume-kinds.ts'

type KindParts = Pick<Parts, 'db' | 'backends' | 'images' | 'compute' | 'keys' | 'random' | 'stamp'> & { log: Log }

/** So much is discarded at a time; a repeat does the same. */
const CLEAR_RANGE_BYTES = 16 * 1024 ** 3
const GIB = 1024 ** 3

/**
 * clear, range by range, then a new header when it is encrypted → download → (convert) → notify, when it is reserved for servers. The volume gets back the status that it had,
 * or what its attachments say.
 */
export function volumeReimage(parts: KindParts): WorkKind {
  const { db, backends, images, stamp } = parts
  return {
    resumeAt: resumeFill,
    attempt: async (unit): Promise<Outcome> => {
      const row = await existing(db, unit.resourceId)
      if (isNotice(unit)) return notifyServers(parts, unit, { name: 'volume-reimaged', volumeId: row.id })
      const open = () => backends.driverOf(hostOf(row)).openVolume(volumeRef(row))
      if (!isFilling(unit.step)) {
        const offset = Number(unit.step.split('@')[1] ?? 0) * GIB
        const data = await open()
        const lengthBytes = Math.min(CLEAR_RANGE_BYTES, data.sizeBytes - offset)
        try {
          await data.discard(offset, lengthBytes)
        } finally {
          await data.close()
        }
        const end = offset + lengthBytes
        if (end < data.sizeBytes) return { next: `clear@${end / GIB}`, commit: async () => {} }
        if (needsHeader(unit)) await writeHeader(parts, unit, open)
        return { next: FILL, commit: async () => {} }
      }
      const outcome = await fillSome(images, unit, { sizeGib: row.size_gib, open: opener(parts, unit, open) })
      if (outcome !== null) return outcome
      return {
        ...(unit.params.previousStatus === 'reserved' ? await noticeStep(parts, row.id) : {}),
        commit: async (trx) => {
          await volumes.lock(trx, row.id)
          await volumes.update(trx, row.id, { ...filledColumns(unit), updated_at: stamp() })
          const wasInError = unit.params.previousStatus === 'error'
          if (wasInError)
            await volumes.compareAndSet(trx, row.id, { ...VOLUME_OUTCOMES.reimagedInError, updatedAt: stamp() })
          else await followAttachments(trx, row.id, stamp(), { from: [VOLUME_ACTIONS.reimage.to] })
        },
      }
    },
    giveUp: (unit, error) => ({
      commit: async (trx) => {
        if (!isNotice(unit)) await failFill(trx, unit, error, stamp())
      },
    }),
  }
}

const volumeOf = ({ params }: WorkUnit): string => String(params.volumeId)

/**
 * freeze → (convert) → upload → finish; when one of the first two is given up: undo → remove-image.
 *
 * The image is made of a snapshot, so that a volume in use may be written to meanwhile, and a repeat sends the same bytes.
 */
export function volumeUpload(parts: KindParts): WorkKind {
  const { db, backends, images: configured, stamp, log } = parts
  /** The volume knows nothing of it any more, and is again what its attachments say. */
  async function release(trx: Db, unit: WorkUnit, reason: string | null): Promise<void> {
    const row = await volumes.lock(trx, volumeOf(unit))
    if (row?.upload_image_id !== unit.resourceId) return
    await volumes.update(trx, row.id, { upload_image_id: null, updated_at: stamp() })
    const set = reason === null ? {} : { status_reason: reason }
    await followAttachments(trx, row.id, stamp(), { from: [VOLUME_ACTIONS.upload.to], set })
  }

  return {
    resumeAt: (step) => resumeTransfer(step, 'upload'),
    attempt: async (unit): Promise<Outcome> => {
      const images = requireImages(configured, 'Volumes cannot be uploaded')
      const imageId = unit.resourceId
      if (unit.step === 'remove-image') {
        await removeImage(images, tokenOf(images, unit), imageId, log)
        if (unit.params.keyId !== undefined) await removeKey(parts, unit, String(unit.params.keyId))
        return { commit: (trx) => dropKey(trx, unit) }
      }
      const row = await existing(db, volumeOf(unit))
      const driver = backends.driverOf(hostOf(row))
      const snapshot = frozenAs(imageId, row)
      if (unit.step === 'freeze') {
        await driver.createSnapshot(snapshot)
        return { next: 'upload', commit: async () => {} }
      }
      if (unit.step === 'undo' || unit.step === 'finish') {
        await driver.deleteSnapshot(snapshot)
        const isUndone = unit.step === 'undo'
        return {
          ...(isUndone ? { next: 'remove-image' } : {}),
          commit: (trx) => release(trx, unit, isUndone ? unit.lastError : null),
        }
      }
      const outcome = await transferSome(unit, 'upload', {
        transfers: images.sends,
        open: () => driver.openSnapshot(snapshot),
        begin: async (source) => {
          const { status } = await images.service.show(tokenOf(images, unit), imageId)
          if (status === 'active') throw new AllThere()
          if (status !== 'queued') {
            const reason = `the image is ${status}: an earlier upload of it has not ended`
            throw new ServiceError('GlanceConnectionFailed', { reason })
          }
          const order = { token: tokenOf(images, unit), imageId, format: unit.params.format as ImageFormat }
          return images.beginSend(order, source)
        },
        advance: (send, source) => send.advance(source, images.timer()),
        progress: (send) => send.progress(),
        broken: (reason) => new ServiceError('ImageUploadFailed', { image_id: imageId, reason }),
      }).catch((error: unknown) => {
        if (error instanceof AllThere) return null
        throw error
      })
      return outcome ?? { next: 'finish', commit: async () => {} }
    },
    giveUp: (unit, error) => {
      if (unit.step === 'remove-image') return { commit: (trx) => dropKey(trx, unit) }
      if (unit.step === 'undo') {
        return { next: 'remove-image', commit: (trx) => release(trx, unit, unit.lastError) }
      }
      // The image is whole, but for its snapshot; `collie db check` finds that.
      if (unit.step === 'finish') return { commit: (trx) => release(trx, unit, error.message) }
      return { next: 'undo', commit: async () => {} }
    },
  }
}

/** The image has come to nothing, and so has its key. */
async function dropKey(trx: Db, { params }: WorkUnit): Promise<void> {
  if (params.keyId !== undefined) await encryptionKeys.remove(trx, String(params.keyId))
}

/** The process ended between the last byte and writing it down: the image service took all of it, or it would not say so. */
class AllThere extends Error {}

/** One that the user has protected or taken away is left as it is. */
async function removeImage({ service }: Images, token: string, imageId: string, log: Log): Promise<void> {
  try {
    await service.remove(token, imageId)
  } catch (error) {
    if (!(error instanceof ServiceError) || error.code === 'GlanceConnectionFailed') throw error
    log.warn({ err: error, imageId }, 'an image that was not uploaded as a whole could not be removed')
  }
}
