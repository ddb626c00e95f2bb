import type { Clock } from '../../runtime/clock.ts'
import type { Log } from '../../runtime/log.ts'
import type { Parts } from '../parts.ts'
import type { VolumeCopies } from '../volume-copies.ts'
import { attachmentConnect, attachmentDisconnect } from './attachment-kinds.ts'
import { backupCreate, backupDelete, backupRestore } from './backup-kinds.ts'
import { groupCreate, groupDelete } from './group-kinds.ts'
import { groupSnapshotCreate, groupSnapshotDelete } from './group-snapshot-kinds.ts'
import { volumeReimage, volumeUpload } from './image-kinds.ts'
import type { WorkKind, WorkKindName } from './kind.ts'
import { snapshotManage, volumeManage } from './manage-kinds.ts'
import { volumeMigrate } from './migrate-kind.ts'
import { volumeReencrypt } from './reencrypt-kind.ts'
import { snapshotCreate, snapshotDelete } from './snapshot-kinds.ts'
import { volumeSwap } from './swap-kind.ts'
import { volumeRetype, volumeRevert } from './volume-change-kinds.ts'
import { volumeCreate, volumeDelete, volumeExtend } from './volume-kinds.ts'

export function createWorkKinds(
  parts: Pick<
    Parts,
    'db' | 'backends' | 'pools' | 'settings' | 'stamp' | 'backupTarget' | 'images' | 'compute' | 'keys' | 'random'
  > & {
    log: Log
    clock: Clock
    copies: VolumeCopies
  },
): Readonly<Record<WorkKindName, WorkKind>> {
  return {
    'volume-create': volumeCreate(parts),
    'volume-delete': volumeDelete(parts),
    'volume-extend': volumeExtend(parts),
    'volume-retype': volumeRetype(parts),
    'volume-revert': volumeRevert(parts),
    'volume-migrate': volumeMigrate(parts),
    'volume-swap': volumeSwap(parts),
    'volume-reencrypt': volumeReencrypt(parts),
    'snapshot-create': snapshotCreate(parts),
    'snapshot-delete': snapshotDelete(parts),
    'attachment-connect': attachmentConnect(parts),
    'attachment-disconnect': attachmentDisconnect(parts),
    'backup-create': backupCreate(parts),
    'backup-delete': backupDelete(parts),
    'backup-restore': backupRestore(parts),
    'volume-reimage': volumeReimage(parts),
    'volume-upload': volumeUpload(parts),
    'volume-manage': volumeManage(parts),
    'snapshot-manage': snapshotManage(parts),
    'group-create': groupCreate(parts),
    'group-delete': groupDelete(parts),
    'group-snapshot-create': groupSnapshotCreate(parts),
    'group-snapshot-delete': groupSnapshotDelete(parts),
  }
}
