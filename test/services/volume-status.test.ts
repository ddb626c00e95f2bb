import { describe, expect, it } from 'vitest'
import {
  ATTACHMENT_STATUSES,
  type AttachmentStatus,
  GROUP_SNAPSHOT_STATUSES,
  GROUP_STATUSES,
  NAMED_VOLUME_STATUSES,
  SNAPSHOT_STATUSES,
  VOLUME_STATUSES,
  type VolumeStatus,
} from '../../src/services/statuses.ts'
import {
  ATTACHMENT_ACTIONS,
  ATTACHMENT_OUTCOMES,
  canResetTo,
  GROUP_ACTIONS,
  GROUP_OUTCOMES,
  GROUP_SNAPSHOT_ACTIONS,
  GROUP_SNAPSHOT_OUTCOMES,
  mayIn,
  SNAPSHOT_ACTIONS,
  SNAPSHOT_OUTCOMES,
  SNAPSHOT_REPORTS,
  statusOfAttachments,
  type Transition,
  VOLUME_ACTIONS,
  VOLUME_OUTCOMES,
  VOLUME_PERMISSIONS,
  type VolumePermission,
} from '../../src/services/volume-status.ts'

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
  it('name the 22 statuses of upstream, and two that a volume passes through', () => {
    const upstream =
      'creating available reserved attaching in-use detaching deleting error error_deleting managing error_managing ' +
      'maintenance backing-up error_backing-up restoring-backup error_restoring downloading uploading retyping extending ' +
      'error_extending awaiting-transfer'
    expect([...NAMED_VOLUME_STATUSES].sort()).toEqual(upstream.split(' ').sort())
    expect(VOLUME_STATUSES.slice(NAMED_VOLUME_STATUSES.length)).toEqual(['reverting', 'unmanaging'])
  })

  it('allow a volume exactly these transitions', () => {
    const { forceDelete, ...others } = VOLUME_ACTIONS
    expect(forceDelete).toEqual({ from: VOLUME_STATUSES, to: 'deleting' })
    expect(matrix(VOLUME_STATUSES, others)).toEqual([
      'delete: available -> deleting',
      'delete: error -> deleting',
      'delete: error_managing -> deleting',
      'delete: error_restoring -> deleting',
      'delete: error_extending -> deleting',
      'unmanage: available -> unmanaging',
      'unmanage: error -> unmanaging',
      'unmanage: error_managing -> unmanaging',
      'unmanage: error_restoring -> unmanaging',
      'unmanage: error_extending -> unmanaging',
      'extend: available -> extending',
      'extendAttached: in-use -> extending',
      'revert: available -> reverting',
      'retype: available -> retyping',
      'retype: in-use -> retyping',
      'migrate: available -> maintenance',
      'migrateAttached: in-use -> in-use',
      'reimage: available -> downloading',
      'reimage: error -> downloading',
      'reimageReserved: available -> downloading',
      'reimageReserved: error -> downloading',
      'reimageReserved: reserved -> downloading',
      'reserve: available -> reserved',
      'reserveShared: available -> reserved',
      'reserveShared: in-use -> reserved',
      'claim: available -> attaching',
      'claimShared: available -> attaching',
      'claimShared: in-use -> attaching',
      'beginDetaching: in-use -> detaching',
      'rollDetaching: detaching -> in-use',
      'offer: available -> awaiting-transfer',
      'callOffOffer: awaiting-transfer -> available',
      'acceptOffer: awaiting-transfer -> available',
      'backUp: available -> backing-up',
      'backUpForced: available -> backing-up',
      'backUpForced: in-use -> backing-up',
      'restoreBackup: available -> restoring-backup',
      'upload: available -> uploading',
      'uploadForced: available -> uploading',
      'uploadForced: in-use -> uploading',
    ])
    expect(matrix(VOLUME_STATUSES, VOLUME_OUTCOMES)).toEqual([
      'created: creating -> available',
      'createFailed: creating -> error',
      'copying: creating -> maintenance',
      'managed: managing -> available',
      'manageFailed: managing -> error_managing',
      'filling: creating -> downloading',
      'fillFailed: downloading -> error',
      'reimagedInError: downloading -> error',
      'extendFailed: extending -> error_extending',
      'reverted: reverting -> available',
      'revertFailed: reverting -> error',
      'deleteFailed: deleting -> error_deleting',
      'deleteFailed: unmanaging -> error_deleting',
      'deleteRefused: deleting -> available',
      'deleteRefused: unmanaging -> available',
      'restored: restoring-backup -> available',
      'restoreFailed: restoring-backup -> error_restoring',
    ])
  })

  it.each<[VolumePermission, 'only' | 'all but', string]>([
    ['update', 'all but', 'maintenance'],
    ['updateMetadata', 'all but', 'maintenance uploading'],
    ['updateReadonly', 'only', 'available'],
    ['snapshot', 'only', 'available'],
    ['snapshotForced', 'only', 'available in-use'],
    [
      'snapshotInGroup',
      'only',
      'available attaching in-use detaching reserved awaiting-transfer backing-up uploading retyping',
    ],
    ['addToGroup', 'only', 'available in-use'],
    ['removeFromGroup', 'only', 'available in-use error error_deleting'],
    ['clone', 'only', 'available in-use'],
    ['completeExtension', 'only', 'extending'],
    ['reserveAgain', 'only', 'in-use reserved'],
    ['reserveAhead', 'only', 'downloading'],
    [
      'makeAttachment',
      'all but',
      'error error_deleting error_managing error_restoring error_backing-up error_extending',
    ],
    [
      'connect',
      'all but',
      'downloading error error_deleting error_managing error_restoring error_backing-up error_extending',
    ],
    [
      'initializeConnection',
      'all but',
      'maintenance creating managing downloading restoring-backup reverting deleting unmanaging',
    ],
    ['attach', 'only', 'available reserved attaching in-use'],
    ['detach', 'all but', 'maintenance'],
  ])('allow to %s in %s: %s', (permission, kind, words) => {
    const named = words.split(' ')
    for (const status of VOLUME_STATUSES) {
      expect(`${status} ${mayIn(status, permission)}`).toBe(`${status} ${named.includes(status) === (kind === 'only')}`)
    }
    expect(named.filter((word) => !(VOLUME_STATUSES as readonly string[]).includes(word))).toEqual([])
    expect(mayIn('no such status', permission)).toBe(false)
  })

  it('have a case above for every permission', () => {
    expect(Object.keys(VOLUME_PERMISSIONS)).toHaveLength(17)
  })

  it('allow a snapshot exactly these transitions', () => {
    expect(matrix(SNAPSHOT_STATUSES, SNAPSHOT_ACTIONS)).toEqual([
      'delete: error -> deleting',
      'delete: available -> deleting',
      'unmanage: error -> unmanaging',
      'unmanage: available -> unmanaging',
      'backUp: available -> backing-up',
      'deleteWithGroup: error -> deleting',
      'deleteWithGroup: available -> deleting',
      'deleteWithGroup: deleting -> deleting',
      'deleteWithGroup: error_deleting -> deleting',
      'deleteWithVolume: error -> deleting',
      'deleteWithVolume: available -> deleting',
      'deleteWithVolume: deleting -> deleting',
      'revert: available -> restoring',
    ])
    expect(SNAPSHOT_STATUSES.flatMap((from) => (SNAPSHOT_REPORTS[from] ?? []).map((to) => `${from} -> ${to}`))).toEqual(
      [
        'creating -> creating',
        'creating -> available',
        'creating -> error',
        'deleting -> deleting',
        'deleting -> error_deleting',
      ],
    )
    expect(matrix(SNAPSHOT_STATUSES, SNAPSHOT_OUTCOMES)).toEqual([
      'created: creating -> available',
      'createFailed: creating -> error',
      'backedUp: backing-up -> available',
      'deleteFailed: deleting -> error_deleting',
      'deleteRefused: deleting -> available',
      'reverted: restoring -> available',
    ])
  })

  it('allow an attachment exactly these transitions', () => {
    expect(matrix(ATTACHMENT_STATUSES, ATTACHMENT_ACTIONS)).toEqual([
      'connect: reserved -> attaching',
      'connect: attaching -> attaching',
      'connect: error_attaching -> attaching',
      'connectCompleted: attached -> attaching',
      'complete: reserved -> attached',
      'complete: attaching -> attached',
      'complete: attached -> attached',
      'attach: reserved -> attached',
      'attach: attaching -> attached',
      'disconnect: attached -> attached',
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
    // Of an extension, a retype, a migration and an upload the attachments say where they end.
    expect([...left].sort()).toEqual([
      'creating',
      'deleting',
      'downloading',
      'extending',
      'managing',
      'restoring-backup',
      'reverting',
      'unmanaging',
    ])
  })

  it('allow a group and a snapshot of one exactly these transitions', () => {
    expect(matrix(GROUP_STATUSES, { delete: GROUP_ACTIONS.delete, ...GROUP_OUTCOMES })).toEqual([
      'delete: error -> deleting',
      'delete: available -> deleting',
      'created: creating -> available',
      'createFailed: creating -> error',
      'deleteFailed: deleting -> error_deleting',
    ])
    expect(GROUP_ACTIONS.deleteWithVolumes.from).toEqual(GROUP_STATUSES) // upstream takes it for a wish to be rid of it
    expect(matrix(GROUP_SNAPSHOT_STATUSES, { ...GROUP_SNAPSHOT_ACTIONS, ...GROUP_SNAPSHOT_OUTCOMES })).toEqual([
      'delete: error -> deleting',
      'delete: available -> deleting',
      'created: creating -> available',
      'createFailed: creating -> error',
      'deleteFailed: deleting -> error',
    ])
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
  it('to any named status but those of deleting and detaching, and to in-use only with attachments', () => {
    const refused = VOLUME_STATUSES.filter((status) => !canResetTo(status, false))
    expect(refused).toEqual(['deleting', 'error_deleting', 'in-use', 'detaching', 'reverting', 'unmanaging'])
    expect(canResetTo('in-use', true)).toBe(true)
    expect(canResetTo('no such status', true)).toBe(false)
  })
})
