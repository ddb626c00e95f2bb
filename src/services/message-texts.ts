/**
 * What a message says: an action and a detail of upstream's cinder/message/message_field.py, by their numbers. Rows from 900
 * on are ours, for work that upstream has no words for.
 */
export const MESSAGE_ACTIONS = {
  scheduleVolume: { id: '001', text: 'schedule allocate volume' },
  attachVolume: { id: '002', text: 'attach volume' },
  copyVolumeToImage: { id: '003', text: 'copy volume to image' },
  updateAttachment: { id: '004', text: 'update attachment' },
  copyImageToVolume: { id: '005', text: 'copy image to volume' },
  unmanageVolume: { id: '006', text: 'unmanage volume' },
  extendVolume: { id: '007', text: 'extend volume' },
  createVolume: { id: '008', text: 'create volume from backend storage' },
  createSnapshot: { id: '009', text: 'create snapshot' },
  deleteSnapshot: { id: '010', text: 'delete snapshot' },
  updateSnapshot: { id: '011', text: 'update snapshot' },
  updateSnapshotMetadata: { id: '012', text: 'update snapshot metadata' },
  createBackup: { id: '013', text: 'create backup' },
  deleteBackup: { id: '014', text: 'delete backup' },
  restoreBackup: { id: '015', text: 'restore backup' },
  reimageVolume: { id: '016', text: 'reimage volume' },
  deleteVolume: { id: '901', text: 'delete volume' },
  retypeVolume: { id: '902', text: 'retype volume' },
  migrateVolume: { id: '903', text: 'migrate volume' },
  createGroup: { id: '910', text: 'create group' },
  deleteGroup: { id: '911', text: 'delete group' },
  createGroupSnapshot: { id: '912', text: 'create group snapshot' },
  deleteGroupSnapshot: { id: '913', text: 'delete group snapshot' },
  manageVolume: { id: '914', text: 'manage volume' },
  manageSnapshot: { id: '915', text: 'manage snapshot' },
  revertVolume: { id: '904', text: 'revert volume to snapshot' },
} as const satisfies Record<string, MessageText>

export const MESSAGE_DETAILS = {
  unknownError: { id: '001', text: 'An unknown error occurred.' },
  driverNotInitialized: { id: '002', text: 'Driver is not initialized at present.' },
  noBackendAvailable: { id: '003', text: 'Could not find any available weighted backend.' },
  uploadFailed: { id: '004', text: 'Failed to upload volume to image at backend.' },
  attachModeInvalid: { id: '005', text: "Volume's attach mode is invalid." },
  quotaExceeded: { id: '006', text: 'Not enough quota resource for operation.' },
  imageTooLarge: { id: '007', text: 'Image used for creating volume exceeds available space.' },
  unmanageEncrypted: { id: '008', text: 'Unmanaging encrypted volumes is not supported.' },
  computeExtendFailed: { id: '009', text: 'Compute service failed to extend volume.' },
  extendFailed: { id: '010', text: 'Volume Driver failed to extend volume.' },
  signatureFailed: { id: '011', text: 'Image signature verification failed.' },
  createFailed: { id: '012', text: 'Driver failed to create the volume.' },
  snapshotCreateFailed: { id: '013', text: 'Snapshot failed to create.' },
  snapshotMetadataFailed: { id: '014', text: 'Volume snapshot update metadata failed.' },
  snapshotBusy: { id: '015', text: 'Snapshot is busy.' },
  snapshotDeleteFailed: { id: '016', text: 'Snapshot failed to delete.' },
  backupStateInvalid: { id: '017', text: 'Backup status is invalid.' },
  backupServiceDown: { id: '018', text: 'Backup service is down.' },
  backupDeviceFailed: { id: '019', text: 'Failed to get backup device from the volume service.' },
  backupCreateFailed: { id: '020', text: 'Backup driver failed to create backup.' },
  attachFailed: { id: '021', text: 'Failed to attach volume.' },
  detachFailed: { id: '022', text: 'Failed to detach volume.' },
  backupCleanupFailed: { id: '023', text: 'Cleanup of temporary volume/snapshot failed.' },
  backupScheduleFailed: { id: '024', text: 'Backup failed to schedule. Service not found for creating backup.' },
  backupDeleteFailed: { id: '025', text: 'Backup driver failed to delete backup.' },
  backupRestoreFailed: { id: '026', text: 'Backup driver failed to restore backup.' },
  volumeStateInvalid: { id: '027', text: 'Volume status is invalid.' },
  computeReimageFailed: { id: '028', text: 'Compute service failed to reimage volume.' },
  imageFormatUnacceptable: {
    id: '029',
    text: 'The image disk format must be the same as the volume format for the volume type you are requesting.',
  },
  backupNotIncremental: { id: '030', text: 'Incremental backup not possible, forcing full backup.' },
  deleteFailed: { id: '901', text: 'Driver failed to delete the volume.' },
  retypeFailed: {
    id: '902',
    text: 'The backend that has the volume does not suit the type, or it could not be moved.',
  },
  migrateFailed: { id: '903', text: 'The volume could not be moved; it is where it was.' },
  reencryptFailed: {
    id: '908',
    text: 'The volume could not be encrypted as the type says, or decrypted; it is as it was.',
  },
  noRoomForHeader: {
    id: '909',
    text:
      'An encrypted volume has 2 MiB less for its content, and the last 2 MiB of this one are not empty (a GPT has its backup there). ' +
      'Extend it by 1 GiB first.',
  },
  imageDownloadFailed: { id: '905', text: 'Image download failed.' },
  imageUnacceptable: {
    id: '906',
    text: 'The image cannot be written to a volume: it is not what it claims to be, or too large.',
  },
  reimageFailed: { id: '907', text: 'Driver failed to reimage the volume.' },
  groupCreateFailed: { id: '910', text: 'Group failed to create.' },
  groupDeleteFailed: { id: '911', text: 'Group failed to delete.' },
  groupSnapshotCreateFailed: { id: '912', text: 'Group snapshot failed to create.' },
  groupSnapshotDeleteFailed: { id: '913', text: 'Group snapshot failed to delete.' },
  manageFailed: { id: '914', text: 'Driver failed to take over what the reference names.' },
  revertFailed: { id: '904', text: 'Driver failed to revert the volume.' },
} as const satisfies Record<string, MessageText>

interface MessageText {
  id: string
  text: string
}

export type MessageAction = keyof typeof MESSAGE_ACTIONS
export type MessageDetail = keyof typeof MESSAGE_DETAILS

const ACTION_TEXTS = textsById(MESSAGE_ACTIONS)
const DETAIL_TEXTS = textsById(MESSAGE_DETAILS)

/** `extend volume:Volume Driver failed to extend volume.`, as upstream puts the two together. */
export function userMessage(actionId: string, detailId: string): string {
  const action = ACTION_TEXTS.get(actionId) ?? 'unknown action'
  return `${action}:${DETAIL_TEXTS.get(detailId) ?? MESSAGE_DETAILS.unknownError.text}`
}

function textsById(table: Record<string, MessageText>): ReadonlyMap<string, string> {
  return new Map(Object.values(table).map(({ id, text }) => [id, text]))
}
