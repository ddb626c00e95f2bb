import { randomUUID } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import {
  ATTACHMENT_STATUSES,
  type AttachmentStatus,
  SNAPSHOT_STATUSES,
  type SnapshotStatus,
  VOLUME_STATUSES,
  type VolumeStatus,
} from '../../src/services/statuses.ts'
import {
  ATTACHMENT_ACTIONS,
  RESTORABLE,
  SNAPSHOT_ACTIONS,
  STATUSES_OF_ATTACHMENTS,
  VOLUME_ACTIONS,
  VOLUME_PERMISSIONS,
} from '../../src/services/volume-status.ts'
import { startFakeGlance } from '../tools/fake-glance.ts'
import { imageOptions } from '../tools/image-options.ts'
import {
  admin,
  createHarness,
  type Harness,
  member,
  newAttachment,
  newBackup,
  newSnapshot,
  newVolume,
  outcome,
  stranger,
  TEST_SETTINGS,
} from './harness.ts'
import { newGroup } from './scenarios.ts'

/**
 * Every action of the service in every status of a volume: it is done where the table says so, and leads where the table
 * says. The services are not started, so that no work changes a status meanwhile.
 */

interface Case {
  /** What the table allows. */
  from: readonly VolumeStatus[]
  /** Where it leads; the status stays when absent. */
  to?: VolumeStatus | ((status: VolumeStatus) => VolumeStatus)
  /** How it is refused; InvalidVolume when absent. */
  refusal?: (status: VolumeStatus) => string
  act(harness: Harness, volumeId: string): Promise<unknown>
  /** Further rows that the action wants, on a volume whose status is written afterwards. */
  prepare?(harness: Harness, volumeId: string): Promise<void>
  shared?: true
}

const attachment = async (harness: Harness, volumeId: string, row: Record<string, unknown>): Promise<void> => {
  const { id } = await harness.services.attachments.create(member, newAttachment(volumeId))
  await harness.db('attachments').where({ id }).update(row)
}
const attached = { status: 'attached', instance_id: '1'.repeat(36) }
const latestSnapshot = async ({ db }: Harness, volumeId: string): Promise<string> =>
  (await db('snapshots').where({ volume_id: volumeId }).first('id')).id

async function aSnapshot(harness: Harness, volumeId: string): Promise<void> {
  const { id } = await harness.services.snapshots.create(member, newSnapshot(volumeId))
  await harness.db('work').where({ resource_id: id }).delete()
  await harness.db('snapshots').where({ id }).update({ status: 'available' })
}

/** What accepts the offers, by volume. */
const offerKeys = new Map<string, string>()

async function anOffer({ services }: Harness, id: string): Promise<void> {
  const offered = { volumeId: id, name: null, noSnapshots: false, allowEncrypted: false }
  offerKeys.set(id, (await services.transfers.create(member, offered)).authKey)
}

/** A backup of the volume, past the services. */
async function aBackup({ db }: Harness, id: string): Promise<void> {
  const at = '2026-01-01T00:00:00.000000'
  await db('backups').insert({
    id: randomUUID(),
    project_id: member.projectId,
    user_id: member.userId,
    volume_id: id,
    size_gib: 1,
    status: 'available',
    metadata: '{}',
    container: 'c',
    object_count: 0,
    next_page: 0,
    data_timestamp: at,
    created_at: at,
  })
}

/** A group of the volume's type and place, for all volumes the same; only this one may be in it. */
const aGroup = (isIn: boolean) => async (harness: Harness, volumeId: string) => {
  const { db, services } = harness
  const volume = await db('volumes').where({ id: volumeId }).first()
  if (!(await db('volume_groups').first())) {
    await services.groupTypes.create(admin, { name: 'plain', description: null, isPublic: true, groupSpecs: {} })
    await services.groups.create(member, { ...newGroup(), volumeTypes: [volume.volume_type_id] })
    await db('work').delete()
  }
  await db('volume_groups').update({ status: 'available', host: volume.host })
  await db('volumes').update({ group_id: null })
  if (isIn)
    await db('volumes')
      .where({ id: volumeId })
      .update({ group_id: await groupId(harness) })
}

const groupId = async ({ db }: Harness): Promise<string> => (await db('volume_groups').first('id')).id

const memberChange = { name: null, description: null, addVolumes: [], removeVolumes: [] }

/** Of an image service that has one. */
let imageId: string
const upload = {
  imageName: 'made',
  diskFormat: 'raw',
  containerFormat: 'bare',
  visibility: null,
  isProtected: null,
}

const oldAttach = { instanceId: '2'.repeat(36), hostName: null, mountpoint: '/dev/vdb', mode: 'rw' as const }

const has = (statuses: readonly string[], status: string) => statuses.includes(status)

const CASES: Record<string, Case> = {
  delete: {
    ...VOLUME_ACTIONS.delete,
    act: ({ services }, id) => services.volumes.delete(member, id, { cascade: false, force: false }),
  },
  'delete with snapshots': {
    ...VOLUME_ACTIONS.delete,
    prepare: aSnapshot,
    act: ({ services }, id) => services.volumes.delete(member, id, { cascade: true, force: false }),
  },
  'delete by force': {
    ...VOLUME_ACTIONS.forceDelete,
    act: ({ services }, id) => services.volumes.delete(admin, id, { cascade: false, force: true }),
  },
  unmanage: {
    ...VOLUME_ACTIONS.unmanage,
    act: ({ services }, id) => services.volumes.unmanage(admin, id),
  },
  'extend before 3.42': {
    ...VOLUME_ACTIONS.extend,
    act: ({ services }, id) => services.volumes.extend(member, id, 2, { inUse: false }),
  },
  extend: {
    from: [...VOLUME_ACTIONS.extend.from, ...VOLUME_ACTIONS.extendAttached.from],
    to: 'extending',
    act: ({ services }, id) => services.volumes.extend(member, id, 2),
  },
  revert: {
    ...VOLUME_ACTIONS.revert,
    refusal: () => 'ResourceConflict',
    prepare: aSnapshot,
    act: async (harness, id) => harness.services.volumes.revert(member, id, await latestSnapshot(harness, id)),
  },
  retype: {
    ...VOLUME_ACTIONS.retype,
    act: ({ services }, id) => services.volumes.retype(member, id, { newType: 'other', migrationPolicy: 'never' }),
  },
  'offer to another project': {
    ...VOLUME_ACTIONS.offer,
    act: ({ services }, id) =>
      services.transfers.create(member, { volumeId: id, name: null, noSnapshots: false, allowEncrypted: false }),
  },
  'call an offer off': {
    from: VOLUME_STATUSES,
    to: (status) => (status === 'awaiting-transfer' ? VOLUME_ACTIONS.callOffOffer.to : status),
    prepare: anOffer,
    act: async ({ db, services }, id) => {
      const transfer = await db('volume_transfers').where({ volume_id: id }).first('id')
      return services.transfers.delete(member, transfer.id)
    },
  },
  'accept an offer': {
    ...VOLUME_ACTIONS.acceptOffer,
    prepare: anOffer,
    act: async ({ db, services }, id) => {
      const transfer = await db('volume_transfers').where({ volume_id: id }).first('id')
      return services.transfers.accept(stranger, transfer.id, offerKeys.get(id)!)
    },
  },
  'back up': {
    ...VOLUME_ACTIONS.backUp,
    act: ({ services }, id) => services.backups.create(member, newBackup(id)),
  },
  'back up by force': {
    ...VOLUME_ACTIONS.backUpForced,
    act: ({ services }, id) => services.backups.create(member, newBackup(id, { force: true })),
  },
  'restore a backup': {
    ...VOLUME_ACTIONS.restoreBackup,
    prepare: aBackup,
    act: async ({ db, services }, id) => {
      const { id: backupId } = await db('backups').where({ volume_id: id }).first('id')
      return services.backups.restore(member, backupId, { volumeId: id, name: null })
    },
  },
  'os-migrate_volume': {
    from: [...VOLUME_ACTIONS.migrate.from, ...VOLUME_ACTIONS.migrateAttached.from],
    to: (status) => VOLUME_ACTIONS[status === 'available' ? 'migrate' : 'migrateAttached'].to,
    act: ({ services }, id) => services.volumes.migrate(admin, id, { host: 'test-host@memory#another', cluster: null }),
  },
  reimage: {
    ...VOLUME_ACTIONS.reimage,
    act: ({ services }, id) => services.volumes.reimage(member, id, { imageId, reserved: false }),
  },
  'reimage a reserved volume': {
    ...VOLUME_ACTIONS.reimageReserved,
    act: ({ services }, id) => services.volumes.reimage(member, id, { imageId, reserved: true }),
  },
  'upload to an image': {
    ...VOLUME_ACTIONS.upload,
    act: ({ services }, id) => services.volumes.uploadImage(member, id, { ...upload, force: false }),
  },
  'upload to an image by force': {
    ...VOLUME_ACTIONS.uploadForced,
    act: ({ services }, id) => services.volumes.uploadImage(member, id, { ...upload, force: true }),
  },
  'make an attachment': {
    from: [...VOLUME_ACTIONS.reserve.from, ...VOLUME_PERMISSIONS.reserveAhead],
    to: (status) => (has(VOLUME_ACTIONS.reserve.from, status) ? 'reserved' : status),
    act: ({ services }, id) => services.attachments.create(member, newAttachment(id)),
  },
  'make another attachment of a shared volume': {
    from: [...VOLUME_ACTIONS.reserveShared.from, ...VOLUME_PERMISSIONS.reserveAhead],
    to: (status) => (has(VOLUME_ACTIONS.reserveShared.from, status) ? 'reserved' : status),
    shared: true,
    act: ({ services }, id) => services.attachments.create(member, newAttachment(id)),
  },
  'make another attachment of the same instance': {
    from: [...VOLUME_ACTIONS.reserve.from, ...VOLUME_PERMISSIONS.reserveAgain],
    to: (status) => (has(VOLUME_ACTIONS.reserve.from, status) ? 'reserved' : status),
    prepare: (harness, id) => attachment(harness, id, attached),
    act: ({ services }, id) =>
      services.attachments.create(member, newAttachment(id, { instanceId: attached.instance_id })),
  },
  'connect an attachment': {
    from: VOLUME_PERMISSIONS.connect,
    refusal: () => 'ResourceConflict',
    prepare: (harness, id) => attachment(harness, id, { status: 'reserved' }),
    act: async ({ services, db }, id) => {
      const row = await db('attachments').where({ volume_id: id }).first('id')
      return services.attachments.update(member, row.id, { host: 'h' })
    },
  },
  'begin to detach': {
    ...VOLUME_ACTIONS.beginDetaching,
    prepare: (harness, id) => attachment(harness, id, attached),
    act: ({ services }, id) => services.volumes.beginDetaching(member, id),
  },
  'os-reserve': {
    ...VOLUME_ACTIONS.claim,
    act: ({ services }, id) => services.connections.reserve(member, id),
  },
  'os-reserve of a shared volume': {
    ...VOLUME_ACTIONS.claimShared,
    shared: true,
    act: ({ services }, id) => services.connections.reserve(member, id),
  },
  'os-attach': {
    from: VOLUME_PERMISSIONS.attach.filter((status) => status !== 'in-use'),
    to: 'in-use',
    refusal: (status) => (status === 'in-use' ? 'InvalidInput' : 'InvalidVolume'),
    act: ({ services }, id) => services.connections.attach(member, id, oldAttach),
  },
  'os-attach of a shared volume': {
    from: VOLUME_PERMISSIONS.attach,
    to: 'in-use',
    shared: true,
    act: ({ services }, id) => services.connections.attach(member, id, oldAttach),
  },
  rename: {
    from: VOLUME_PERMISSIONS.update,
    act: ({ services }, id) => services.volumes.update(member, id, { name: 'new' }),
  },
  'os-set_bootable': {
    from: VOLUME_PERMISSIONS.update,
    act: ({ services }, id) => services.volumes.setBootable(member, id, true),
  },
  'set metadata': {
    from: VOLUME_PERMISSIONS.updateMetadata,
    act: ({ services }, id) => services.volumes.setMetadata(member, id, { a: 'b' }, { replace: false }),
  },
  'set image metadata': {
    from: VOLUME_PERMISSIONS.updateMetadata,
    act: ({ services }, id) => services.volumes.setImageMetadata(member, id, { a: 'b' }),
  },
  'unset image metadata': {
    from: VOLUME_PERMISSIONS.updateMetadata,
    act: async ({ services, db }, id) => {
      await db('volumes').where({ id }).update({ image_metadata: '{"a":"b"}' })
      await services.volumes.unsetImageMetadata(member, id, 'a')
    },
  },
  'delete metadata': {
    from: VOLUME_PERMISSIONS.updateMetadata,
    act: async ({ services, db }, id) => {
      await db('volumes').where({ id }).update({ metadata: '{"a":"b"}' })
      await services.volumes.deleteMetadataKey(member, id, 'a')
    },
  },
  'os-update_readonly_flag': {
    from: VOLUME_PERMISSIONS.updateReadonly,
    act: ({ services }, id) => services.volumes.setReadonly(member, id, true),
  },
  snapshot: {
    from: VOLUME_PERMISSIONS.snapshot,
    act: ({ services }, id) => services.snapshots.create(member, newSnapshot(id)),
  },
  'snapshot by force': {
    from: VOLUME_PERMISSIONS.snapshotForced,
    act: ({ services }, id) => services.snapshots.create(member, newSnapshot(id, true)),
  },
  'snapshot with its group': {
    from: VOLUME_PERMISSIONS.snapshotInGroup,
    prepare: aGroup(true),
    act: async (harness) =>
      harness.services.groupSnapshots.create(member, {
        groupId: await groupId(harness),
        name: null,
        description: null,
      }),
  },
  'add to a group': {
    from: VOLUME_PERMISSIONS.addToGroup,
    prepare: aGroup(false),
    act: async (harness, id) =>
      harness.services.groups.update(member, await groupId(harness), { ...memberChange, addVolumes: [id] }),
  },
  'remove from a group': {
    from: VOLUME_PERMISSIONS.removeFromGroup,
    prepare: aGroup(true),
    act: async (harness, id) =>
      harness.services.groups.update(member, await groupId(harness), { ...memberChange, removeVolumes: [id] }),
  },
  clone: {
    from: VOLUME_PERMISSIONS.clone,
    act: ({ services }, id) => services.volumes.create(member, newVolume({ sourceVolid: id })),
  },
  'os-extend_volume_completion': {
    from: [],
    act: ({ services }, id) => services.volumes.completeExtension(admin, id),
  },
  'os-initialize_connection': {
    from: VOLUME_PERMISSIONS.initializeConnection,
    to: (status) => (status === 'available' ? 'attaching' : status),
    act: ({ services }, id) => services.connections.initialize(member, id, { host: 'h' }),
  },
  'os-detach': {
    from: VOLUME_PERMISSIONS.detach,
    to: (status) => (has(STATUSES_OF_ATTACHMENTS, status) ? 'available' : status),
    prepare: (harness, id) => attachment(harness, id, attached),
    act: ({ services }, id) => services.connections.detach(member, id, null),
  },
  'os-terminate_connection': {
    from: VOLUME_STATUSES,
    to: (status) => (status === 'attaching' ? 'available' : status),
    act: ({ services }, id) => services.connections.terminate(member, id, null),
  },
  'os-unreserve': {
    from: VOLUME_STATUSES,
    to: (status) => (status === 'attaching' ? 'available' : status),
    act: ({ services }, id) => services.connections.unreserve(member, id),
  },
  'os-roll_detaching': {
    from: VOLUME_STATUSES,
    to: (status) => (status === 'detaching' ? VOLUME_ACTIONS.rollDetaching.to : status),
    act: ({ services }, id) => services.volumes.rollDetaching(member, id),
  },
}

/** A volume for each status, which has been placed; nothing goes on with any of them. Written at once: commits take time. */
async function aVolumeOfEach(harness: Harness, shared: boolean): Promise<Map<VolumeStatus, string>> {
  const { id } = await harness.services.volumes.create(member, newVolume({ volumeType: shared ? 'shared' : null }))
  await harness.db('work').delete()
  const row = await harness.db('volumes').where({ id }).first()
  const placed = { ...row, host: 'test-host@memory#memory', status: 'available' }
  const ids = new Map(VOLUME_STATUSES.map((status) => [status, randomUUID()]))
  await harness.db('volumes').insert([...ids.values()].map((id) => ({ ...placed, id })))
  return ids
}

async function start(): Promise<Harness> {
  const glance = await startFakeGlance()
  imageId = glance.add(Buffer.alloc(1))
  const harness = await createHarness({ start: false, images: imageOptions(glance.url) })
  for (const name of [TEST_SETTINGS.defaultVolumeType, 'other', 'shared']) {
    const extraSpecs: Record<string, string> = name === 'shared' ? { multiattach: '<is> True' } : {}
    await harness.services.types.create(admin, { name, description: null, isPublic: true, extraSpecs })
  }
  return harness
}

/** Work that is waited for does not come, but by then it is written: the request was accepted. */
const ACCEPTED = ['done', 'ServiceUnavailable']

describe('every action in every status', () => {
  it.each(Object.entries(CASES))('%s', async (_name, { from, to, refusal, act, prepare, shared }) => {
    const harness = await start()
    const expected: string[] = []
    const found: string[] = []
    for (const [status, id] of await aVolumeOfEach(harness, shared === true)) {
      await prepare?.(harness, id)
      await harness.db('volumes').where({ id }).update({ status })
      const answer = await outcome(act(harness, id))
      const { status: after } = await harness.db('volumes').where({ id }).first('status')
      found.push(`${status}: ${ACCEPTED.includes(answer) ? 'done' : answer}, then ${after}`)
      const next = typeof to === 'function' ? to(status) : (to ?? status)
      const refused = `${status}: ${refusal?.(status) ?? 'InvalidVolume'}, then ${status}`
      expected.push(has(from, status) ? `${status}: done, then ${next}` : refused)
    }
    expect(found).toEqual(expected)
  })

  it('has a case for every row of the table', () => {
    const rows = [...Object.values(VOLUME_ACTIONS).map(({ from }) => from), ...Object.values(VOLUME_PERMISSIONS)]
    const told = new Set(Object.values(CASES).map(({ from }) => from))
    // Those that are parts of a case, not a case of their own.
    const parts: readonly (readonly VolumeStatus[])[] = [
      VOLUME_ACTIONS.extendAttached.from,
      VOLUME_ACTIONS.migrate.from,
      VOLUME_ACTIONS.migrateAttached.from,
      VOLUME_ACTIONS.reserve.from,
      VOLUME_ACTIONS.reserveShared.from,
      VOLUME_ACTIONS.rollDetaching.from,
      VOLUME_ACTIONS.callOffOffer.from,
      VOLUME_PERMISSIONS.makeAttachment,
      VOLUME_PERMISSIONS.reserveAgain,
      VOLUME_PERMISSIONS.reserveAhead,
      VOLUME_PERMISSIONS.completeExtension,
    ]
    expect(rows.filter((row) => !told.has(row) && !parts.includes(row))).toEqual([])
  })
})

interface PartCase<Status> {
  from: readonly Status[]
  to?: string
  refusal: string
  act(harness: Harness, id: string, volumeId: string): Promise<unknown>
}

const SNAPSHOT_CASES: Record<string, PartCase<SnapshotStatus>> = {
  delete: {
    ...SNAPSHOT_ACTIONS.delete,
    refusal: 'InvalidSnapshot',
    act: ({ services }, id) => services.snapshots.delete(member, id),
  },
  'delete its volume with it': {
    ...SNAPSHOT_ACTIONS.deleteWithVolume,
    refusal: 'InvalidVolume',
    act: ({ services }, _id, volumeId) => services.volumes.delete(member, volumeId, { cascade: true, force: false }),
  },
  'revert to it': {
    ...SNAPSHOT_ACTIONS.revert,
    refusal: 'ResourceConflict',
    act: ({ services }, id, volumeId) => services.volumes.revert(member, volumeId, id),
  },
  'make a volume of it': {
    from: RESTORABLE,
    refusal: 'InvalidSnapshot',
    act: ({ services }, id) => services.volumes.create(member, newVolume({ snapshotId: id })),
  },
  rename: {
    from: SNAPSHOT_STATUSES,
    refusal: '',
    act: ({ services }, id) => services.snapshots.update(member, id, { name: 'new' }),
  },
}

const ATTACHMENT_CASES: Record<string, PartCase<AttachmentStatus>> = {
  connect: {
    ...ATTACHMENT_ACTIONS.connect,
    refusal: 'ResourceConflict',
    act: ({ services }, id) => services.attachments.update(member, id, { host: 'another' }),
  },
  complete: {
    ...ATTACHMENT_ACTIONS.complete,
    refusal: 'InvalidAttachment',
    act: ({ services }, id) => services.attachments.complete(member, id),
  },
  'os-attach': {
    from: [...ATTACHMENT_ACTIONS.attach.from, 'attached'],
    to: 'attached',
    refusal: 'InvalidInput',
    act: ({ services }, _id, volumeId) =>
      services.connections.attach(member, volumeId, { ...oldAttach, instanceId: attached.instance_id }),
  },
  delete: {
    from: ATTACHMENT_STATUSES, // the work that follows removes it
    refusal: '',
    act: ({ services }, id) => services.attachments.delete(member, id),
  },
}

describe('what hangs on a volume', () => {
  it.each(Object.entries(SNAPSHOT_CASES))(
    'a snapshot in every status: %s',
    async (_name, { from, to, refusal, act }) => {
      const harness = await start()
      const expected: string[] = []
      const found: string[] = []
      const volumes = await aVolumeOfEach(harness, false)
      for (const [at, status] of SNAPSHOT_STATUSES.entries()) {
        const volumeId = [...volumes.values()][at]!
        await harness.db('volumes').where({ id: volumeId }).update({ status: 'available' })
        await aSnapshot(harness, volumeId)
        const id = await latestSnapshot(harness, volumeId)
        await harness.db('snapshots').where({ id }).update({ status })
        const answer = await outcome(act(harness, id, volumeId))
        const row = await harness.db('snapshots').where({ id }).first('status')
        found.push(`${status}: ${answer}, then ${row.status}`)
        const allowed = has(from, status)
        expected.push(`${status}: ${allowed ? 'done' : refusal}, then ${allowed ? (to ?? status) : status}`)
        if (allowed) continue
        const volume = await harness.db('volumes').where({ id: volumeId }).first('status')
        expect(volume.status, 'the volume goes on as it was').toBe('available')
      }
      expect(found).toEqual(expected)
    },
  )

  it.each(Object.entries(ATTACHMENT_CASES))(
    'an attachment in every status: %s',
    async (_name, { from, to, refusal, act }) => {
      const harness = await start()
      const expected: string[] = []
      const found: string[] = []
      const volumes = await aVolumeOfEach(harness, false)
      for (const [at, status] of ATTACHMENT_STATUSES.entries()) {
        const volumeId = [...volumes.values()][at]!
        await harness.db('volumes').where({ id: volumeId }).update({ status: 'available' })
        const connection = { connector: '{"host":"h"}', connection_info: '{"driver_volume_type":"memory"}' }
        await attachment(harness, volumeId, { ...connection, instance_id: attached.instance_id, status })
        const { id } = await harness.db('attachments').where({ volume_id: volumeId }).first('id')
        const answer = await outcome(act(harness, id, volumeId))
        const row = await harness.db('attachments').where({ id }).first('status')
        found.push(`${status}: ${ACCEPTED.includes(answer) ? 'done' : answer}, then ${row.status}`)
        const allowed = has(from, status)
        expected.push(`${status}: ${allowed ? 'done' : refusal}, then ${allowed ? (to ?? status) : status}`)
      }
      expect(found).toEqual(expected)
    },
  )
})
