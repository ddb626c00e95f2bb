import * as attachments from '../db/attachments.ts'
import type { Db } from '../db/database.ts'
import * as volumes from '../db/volumes.ts'
import * as workRows from '../db/work.ts'
import { badRequest, invalidInput, ServiceError } from '../errors.ts'
import type { RequestContext } from './context.ts'
import { IMAGE_FORMATS } from './images/formats.ts'
import type { Image } from './images/image-service.ts'
import { findImage, noImages, requireImages } from './images/images.ts'
import {
  bootSnapshotOf,
  checkedSource,
  IMAGE_KEY,
  KEY_DELETION,
  unacceptable,
  uploadedProperties,
} from './images/rules.ts'
import {
  changedMeanwhile,
  copyKey,
  headerAgain,
  type KeyCopy,
  removalParams,
  takeCopy,
  withKey,
} from './keys/volume-keys.ts'
import type { StartedUpload, VolumeCreate, VolumeUpload } from './model.ts'
import { refuseMoving } from './moving.ts'
import type { Parts } from './parts.ts'
import { toPairs, toVolume } from './rows.ts'
import { visibleVolume } from './visibility.ts'
import { VOLUME_ACTIONS } from './volume-status.ts'
import { fillParams, uploadParams } from './work/image-transfer.ts'
import type { WorkUnit } from './work/kind.ts'

export const FROM_IMAGES = 'Volumes cannot be created from images'

/** What a request for a volume from an image comes to: the image, or the snapshot that stands behind it. */
export async function resolveImage(
  { images }: Parts,
  context: RequestContext,
  request: VolumeCreate & { imageRef: string },
): Promise<{ image: Image | null; snapshotId: string | null }> {
  const image = await findImage(requireImages(images, FROM_IMAGES), context.token, request.imageRef)
  const bootSnapshot = request.takesBootSnapshots ? bootSnapshotOf(image) : null
  if (bootSnapshot !== null) return { image: null, snapshotId: bootSnapshot.id }
  context.authorize('volume:create_from_image', { projectId: context.projectId })
  return { image, snapshotId: request.snapshotId }
}

/** Writes an image over a volume. The compute service hears of it when it is done with one that is reserved for a server. */
export async function reimageVolume(
  parts: Parts,
  context: RequestContext,
  id: string,
  { imageId, reserved }: { imageId: string; reserved: boolean },
): Promise<void> {
  const { db, images, stamp, work } = parts
  const before = visibleVolume(context, id, await volumes.find(db, id))
  const image = images && (await images.service.show(context.token, imageId))
  const header = await headerAgain(parts, context, before)
  const unit = await db.transaction(async (trx) => {
    const row = visibleVolume(context, id, await volumes.lock(trx, id))
    const rule = row.status === 'reserved' ? 'volume:reimage_reserved' : 'volume:reimage'
    context.authorize(rule, { projectId: row.project_id })
    if ((await attachments.ofVolume(trx, id)).length > 1) {
      const reason = 'Cannot re-image a volume which is attached to more than one server.'
      throw new ServiceError('ResourceConflict', { reason })
    }
    refuseMoving(row)
    const { from, to } = VOLUME_ACTIONS[reserved ? 'reimageReserved' : 'reimage']
    if (!(await volumes.compareAndSet(trx, id, { from, to, updatedAt: stamp(), set: { status_reason: null } }))) {
      const reason = `Volume ${id} status must be ${from.join(' or ')}, but current status is ${row.status}.`
      throw new ServiceError('InvalidVolume', { reason })
    }
    if (images === null || image === null) throw noImages('Volumes cannot be re-imaged')
    if (bootSnapshotOf(image) !== null) {
      throw unacceptable(imageId, 'it stands for a snapshot of a volume; make a new volume of that')
    }
    if (row.encryption_key_id !== before.encryption_key_id) throw changedMeanwhile()
    if (row.encryption_key_id !== null && image.properties[IMAGE_KEY] !== undefined) {
      throw unacceptable(imageId, 'it opens with another encryption key than the volume; make a new volume of it')
    }
    const source = checkedSource(image, row.size_gib)
    return work.enqueue(trx, {
      kind: 'volume-reimage',
      resourceId: id,
      lane: id,
      step: 'clear',
      params: { ...header, ...fillParams(images, source, context.token), previousStatus: row.status },
      requestId: context.requestId,
    })
  })
  work.launch(unit)
}

/** Makes an image of a volume. The image comes first: one without content harms nobody, should the process end in between. */
export async function uploadVolume(
  parts: Parts,
  context: RequestContext,
  id: string,
  request: VolumeUpload,
): Promise<StartedUpload> {
  const { db, keys, stamp, work } = parts
  const before = visibleVolume(context, id, await volumes.find(db, id))
  context.authorize('volume_extension:volume_actions:upload_image', { projectId: before.project_id })
  if (request.visibility === 'public') {
    context.authorize('volume_extension:volume_actions:upload_public', { projectId: before.project_id })
  }
  const images = requireImages(parts.images, 'Volumes cannot be uploaded')
  const { service } = images
  const { from, to } = VOLUME_ACTIONS[request.force ? 'uploadForced' : 'upload']
  const refuse = () => {
    throw new ServiceError('InvalidVolume', { reason: `Volume ${id} status must be ${from.join(' or ')}` })
  }
  if (!(from as readonly string[]).includes(before.status)) refuse()
  const format = IMAGE_FORMATS.find((known) => known === request.diskFormat)
  if (format === undefined) {
    throw invalidInput(`Volumes are uploaded as ${IMAGE_FORMATS.join(', ')}, and not as ${request.diskFormat}.`)
  }
  if (request.containerFormat === 'compressed') {
    throw invalidInput('Image compression upload disallowed, but container_format is compressed')
  }
  const { encryption_key_id: keyId } = before
  if (keyId !== null && (format !== 'raw' || request.containerFormat !== 'bare')) {
    throw badRequest(
      "An encrypted volume uploaded as an image must use 'raw' disk_format and 'bare' container_format, which are the " +
        'defaults for these options.',
    )
  }
  const copy = await copyKey(keys, context, keyId)
  return withKey(copy, async (key) => {
    const image = await service
      .create(context.token, {
        name: request.imageName,
        diskFormat: format,
        containerFormat: request.containerFormat,
        visibility: request.visibility,
        isProtected: request.isProtected,
        properties: { ...uploadedProperties(toPairs(before.image_metadata)), ...keyProperties(key) },
      })
      .catch((error: unknown) => {
        throw error instanceof ServiceError ? invalidInput(error.message) : error
      })
    try {
      const { volume, unit } = await db.transaction(async (trx) => {
        const row = visibleVolume(context, id, await volumes.lock(trx, id))
        const updatedAt = stamp()
        const set = { status_reason: null, upload_image_id: image.id }
        if (!(await volumes.compareAndSet(trx, id, { from, to, updatedAt, set, where: volumes.notMigrating }))) refuse()
        await takeCopy(trx, key, row.encryption_key_id)
        const unit = await work.enqueue(trx, {
          kind: 'volume-upload',
          resourceId: image.id,
          lane: image.id, // it takes long, and reads a snapshot: whoever detaches the volume has not to wait for it
          step: 'freeze',
          params: {
            ...uploadParams(images, id, format, context.token),
            ...(key === null ? {} : { keyId: key.id, ...removalParams(keys, context) }),
          },
          requestId: context.requestId,
        })
        return { volume: toVolume({ ...row, status: to, updated_at: updatedAt }, []), unit }
      })
      work.launch(unit)
      return { volume, image }
    } catch (error) {
      await service.remove(context.token, image.id).catch(() => {}) // what went wrong is said already
      throw error
    }
  })
}

/** With them whoever makes a volume of the image finds its key, and the image service deletes that together with the image. */
function keyProperties(key: KeyCopy | null): Record<string, string> {
  return key === null ? {} : { [IMAGE_KEY]: key.id, [KEY_DELETION]: 'on_image_deletion' }
}

/** Breaks off the upload of a volume; the unit that it answers removes what it made, and is to be launched. */
export async function breakOffUpload(
  trx: Db,
  { work }: Pick<Parts, 'work'>,
  context: RequestContext,
  { upload_image_id: imageId }: volumes.VolumeRow,
): Promise<WorkUnit | null> {
  const upload = imageId === null ? undefined : await workRows.findByResource(trx, imageId)
  if (upload === undefined) return null
  const { resource_id: resourceId, lane, params, next_step } = upload
  const step = next_step === 'finish' || next_step === 'remove-image' ? next_step : 'undo'
  const order = { resourceId, lane, step, params: JSON.parse(params), requestId: context.requestId }
  return work.enqueue(trx, { kind: 'volume-upload', ...order })
}
