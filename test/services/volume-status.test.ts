import { describe, expect, it } from 'vitest'
import type { AttachmentStatus, SnapshotStatus, VolumeStatus } from '../../src/services/model.ts'
import {
  ATTACHMENT_ACTIONS,
  ATTACHMENT_OUTCOMES,
  canResetTo,
  SNAPSHOT_ACTIONS,
  SNAPSHOT_OUTCOMES,
  statusOfAttachments,
  type Transition,
  VOLUME_ACTIONS,
  VOLUME_OUTCOMES,
} from '../../src/services/volume-status.ts'

const VOLUME_STATUSES: readonly VolumeStatus[] = [
  'creating',
  'available',
  'reserved',
  'attaching',
  'in-use',
  'detaching',
  'maintenance',
  'deleting',
  'extending',
  'error',
  'error_deleting',
  'error_extending',
  'backing-up',
  'restoring-backup',
  'error_restoring',
]

const SNAPSHOT_STATUSES: readonly SnapshotStatus[] = [
  'creating',
  'available',
  'deleting',
  'error',
  'error_deleting',
  'backing-up',
]

const ATTACHMENT_STATUSES: readonly AttachmentStatus[] = [
  'reserved',
  'attaching',
  'attached',
  'detached',
  'error_attaching',
  'error_detaching',
]

/** Every status against every transition: where it leads, or nothing. */
function matrix<Status extends string>(
  statuses: readonly Status[],
  transitions: Readonly<Record<string, Transition<Status>>>,
): string[] {
  return Object.entries(transitions).flatMap(([name, { from, to }]) =>
    statuses.filter((status) => from.includes(status)).map((status) => `${name}: ${status} -> ${to}`),
  )
}

describe('the status tables', () => {
  it('allow a volume exactly these transitions', () => {
    expect(matrix(VOLUME_STATUSES, VOLUME_ACTIONS)).toEqual([
      'delete: available -> deleting',
      'delete: error -> deleting',
      'delete: error_extending -> deleting',
      'delete: error_restoring -> deleting',
      'extend: available -> extending',
      'extendAttached: in-use -> extending',
      'reserve: available -> reserved',
      'reserveShared: available -> reserved',
      'reserveShared: in-use -> reserved',
      'beginDetaching: in-use -> detaching',
      'rollDetaching: detaching -> in-use',
      'backUp: available -> backing-up',
      'backUpForced: available -> backing-up',
      'backUpForced: in-use -> backing-up',
      'restoreBackup: available -> restoring-backup',
    ])
    expect(matrix(VOLUME_STATUSES, VOLUME_OUTCOMES)).toEqual([
      'created: creating -> available',
      'createFailed: creating -> error',
      'extendFailed: extending -> error_extending',
      'deleteFailed: deleting -> error_deleting',
      'deleteRefused: deleting -> available',
      'restored: restoring-backup -> available',
      'restoreFailed: restoring-backup -> error_restoring',
    ])
  })

  it('allow a snapshot exactly these transitions', () => {
    expect(matrix(SNAPSHOT_STATUSES, SNAPSHOT_ACTIONS)).toEqual([
      'delete: available -> deleting',
      'delete: error -> deleting',
      'backUp: available -> backing-up',
      'deleteWithVolume: available -> deleting',
      'deleteWithVolume: deleting -> deleting',
      'deleteWithVolume: error -> deleting',
    ])
    expect(matrix(SNAPSHOT_STATUSES, SNAPSHOT_OUTCOMES)).toEqual([
      'created: creating -> available',
      'createFailed: creating -> error',
      'backedUp: backing-up -> available',
      'deleteFailed: deleting -> error_deleting',
      'deleteRefused: deleting -> available',
    ])
  })

  it('allow an attachment exactly these transitions', () => {
    expect(matrix(ATTACHMENT_STATUSES, ATTACHMENT_ACTIONS)).toEqual([
      'connect: reserved -> attaching',
      'connect: attaching -> attaching',
      'connect: error_attaching -> attaching',
      'complete: attaching -> attached',
      'complete: attached -> attached',
    ])
    expect(matrix(ATTACHMENT_STATUSES, ATTACHMENT_OUTCOMES)).toEqual([
      'connected: attaching -> attaching',
      'connectUndone: attaching -> reserved',
      'connectFailed: attaching -> error_attaching',
      'disconnectFailed: reserved -> error_detaching',
      'disconnectFailed: attaching -> error_detaching',
      'disconnectFailed: attached -> error_detaching',
      'disconnectFailed: error_attaching -> error_detaching',
      'disconnectFailed: error_detaching -> error_detaching',
    ])
  })

  it('leave every status in which work stands behind a volume both ways: done and given up', () => {
    const left = new Set<string>(Object.values(VOLUME_OUTCOMES).flatMap(({ from }) => from))
    expect([...left].sort()).toEqual(['creating', 'deleting', 'extending', 'restoring-backup'])
  })
})

describe('the status that attachments give their volume', () => {
  it.each<[AttachmentStatus[], VolumeStatus]>([
    [[], 'available'],
    [['error_attaching'], 'available'],
    [['detached'], 'available'],
    [['reserved', 'error_attaching'], 'reserved'],
    [['reserved', 'attaching'], 'attaching'],
    [['reserved', 'attaching', 'attached'], 'in-use'],
    [['error_detaching'], 'in-use'],
  ])('%j: %s', (statuses, expected) => {
    expect(statusOfAttachments(statuses)).toBe(expected)
    expect(statusOfAttachments(statuses.toReversed())).toBe(expected)
  })
})

describe('an administrator may reset a volume', () => {
  it('to any status but those of deleting and detaching, and to in-use only with attachments', () => {
    const refused = VOLUME_STATUSES.filter((status) => !canResetTo(status, false))
    expect(refused).toEqual(['in-use', 'detaching', 'deleting', 'error_deleting'])
    expect(canResetTo('in-use', true)).toBe(true)
    expect(canResetTo('no such status', true)).toBe(false)
  })
})
