import type { ServiceError, ServiceErrorCode } from '../../errors.ts'
import type { MessageAction, MessageDetail } from '../message-texts.ts'
import type { MessageResource } from '../messages.ts'
import { isFilling } from './image-transfer.ts'
import type { WorkKindName, WorkUnit } from './kind.ts'
import { isNotice } from './server-notice.ts'

/** What users are told when work was given up. */
export interface Failure {
  resourceType: MessageResource
  resourceId: string
  action: MessageAction
  detail: MessageDetail
}

/** By step, of those that are not for copying. */
const BACKUP_DETAILS: Readonly<Partial<Record<string, MessageDetail>>> = {
  schedule: 'backupScheduleFailed',
  undo: 'backupCleanupFailed',
}

/** By kind, so that a kind without words does not compile. */
const FAILURES: Record<WorkKindName, (unit: WorkUnit, error: ServiceError) => Failure> = {
  'volume-create': (unit, { code }) =>
    unit.step === 'schedule'
      ? volume(unit, 'scheduleVolume', code === 'NoValidBackend' ? 'noBackendAvailable' : 'unknownError')
      : isFilling(unit.step)
        ? volume(unit, 'copyImageToVolume', IMAGE_FAILURES[code] ?? 'createFailed')
        : volume(unit, 'createVolume', 'createFailed'),
  'volume-delete': (unit, { code }) =>
    volume(unit, 'deleteVolume', code === 'InvalidVolume' ? 'volumeStateInvalid' : 'deleteFailed'),
  'volume-extend': (unit, { code }) =>
    isNotice(unit)
      ? volume(unit, 'extendVolume', 'computeExtendFailed')
      : volume(unit, 'extendVolume', code === 'NoValidBackend' ? 'noBackendAvailable' : 'extendFailed'),
  'volume-retype': (unit) => volume(unit, 'retypeVolume', 'retypeFailed'),
  'volume-migrate': (unit) =>
    volume(unit, 'migrateVolume', unit.step === 'delete-source' ? 'deleteFailed' : 'migrateFailed'),
  'volume-swap': (unit) =>
    volume(unit, 'migrateVolume', unit.step.startsWith('remove-') ? 'deleteFailed' : 'migrateFailed'),
  'volume-reencrypt': (unit, { code }) =>
    volume(
      unit,
      'retypeVolume',
      unit.step.startsWith('remove-') ? 'deleteFailed' : (REENCRYPTION_FAILURES[code] ?? 'reencryptFailed'),
    ),
  'volume-revert': (unit) => volume(unit, 'revertVolume', 'revertFailed'),
  'backup-create': (unit) => backup(unit, 'createBackup', BACKUP_DETAILS[unit.step] ?? 'backupCreateFailed'),
  'backup-delete': (unit) => backup(unit, 'deleteBackup', 'backupDeleteFailed'),
  'backup-restore': (unit) => backup(unit, 'restoreBackup', 'backupRestoreFailed'),
  'volume-reimage': (unit, { code }) =>
    volume(unit, 'reimageVolume', isNotice(unit) ? 'computeReimageFailed' : (IMAGE_FAILURES[code] ?? 'reimageFailed')),
  'volume-upload': (unit) => ({
    ...volume(unit, 'copyVolumeToImage', 'uploadFailed'),
    resourceId: String(unit.params.volumeId),
  }),
  'snapshot-create': (unit) => snapshot(unit, 'createSnapshot', 'snapshotCreateFailed'),
  'snapshot-delete': (unit, { code }) =>
    snapshot(unit, 'deleteSnapshot', code === 'InvalidSnapshot' ? 'snapshotBusy' : 'snapshotDeleteFailed'),
  'attachment-connect': (unit) =>
    unit.step === 'remove-export'
      ? volume(unit, 'updateAttachment', 'detachFailed')
      : volume(unit, unit.params.created === true ? 'attachVolume' : 'updateAttachment', 'attachFailed'),
  'volume-manage': (unit) => volume(unit, 'manageVolume', 'manageFailed'),
  'snapshot-manage': (unit) => snapshot(unit, 'manageSnapshot', 'manageFailed'),
  'group-create': (unit, { code }) =>
    ofGroup(
      'VOLUME_GROUP',
      unit,
      'createGroup',
      code === 'NoValidBackend' ? 'noBackendAvailable' : 'groupCreateFailed',
    ),
  'group-delete': (unit) => ofGroup('VOLUME_GROUP', unit, 'deleteGroup', 'groupDeleteFailed'),
  'group-snapshot-create': (unit) =>
    ofGroup('VOLUME_GROUP_SNAPSHOT', unit, 'createGroupSnapshot', 'groupSnapshotCreateFailed'),
  'group-snapshot-delete': (unit) =>
    ofGroup('VOLUME_GROUP_SNAPSHOT', unit, 'deleteGroupSnapshot', 'groupSnapshotDeleteFailed'),
  'attachment-disconnect': (unit) => volume(unit, 'updateAttachment', 'detachFailed'),
}

/** What kept an image from getting into a volume, when it was not the backend. */
const IMAGE_FAILURES: Partial<Record<ServiceErrorCode, MessageDetail>> = {
  ImageNotFound: 'imageDownloadFailed',
  ImageNotAuthorized: 'imageDownloadFailed',
  ImageDownloadFailed: 'imageDownloadFailed',
  ImageCopyFailure: 'imageDownloadFailed',
  ImageRefused: 'imageDownloadFailed',
  GlanceConnectionFailed: 'imageDownloadFailed',
  ImageUnacceptable: 'imageUnacceptable',
  ImageTooBig: 'imageTooLarge',
}

const REENCRYPTION_FAILURES: Partial<Record<ServiceErrorCode, MessageDetail>> = {
  NoRoomForHeader: 'noRoomForHeader',
  NoValidBackend: 'noBackendAvailable',
}

export function failureOf(unit: WorkUnit, error: ServiceError): Failure {
  return FAILURES[unit.kind](unit, error)
}

/** The lane of work on a volume, or on an attachment of it, is the id of the volume. */
function volume(unit: WorkUnit, action: MessageAction, detail: MessageDetail): Failure {
  return { resourceType: 'VOLUME', resourceId: unit.lane, action, detail }
}

function backup(unit: WorkUnit, action: MessageAction, detail: MessageDetail): Failure {
  return { resourceType: 'VOLUME_BACKUP', resourceId: unit.resourceId, action, detail }
}

function snapshot(unit: WorkUnit, action: MessageAction, detail: MessageDetail): Failure {
  return { resourceType: 'VOLUME_SNAPSHOT', resourceId: unit.resourceId, action, detail }
}

function ofGroup(resourceType: MessageResource, unit: WorkUnit, action: MessageAction, detail: MessageDetail): Failure {
  return { resourceType, resourceId: unit.resourceId, action, detail }
}
