import { expect } from 'vitest'
import { createMemoryBackend, createMemoryDriver } from '../../src/drivers/memory.ts'
import type { DriverMethod } from '../../src/drivers/wrappers.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import type { ComputeService } from '../../src/services/compute/compute-service.ts'
import { encryptedType, IN_CLEAR } from './encrypted-world.ts'
import {
  admin,
  availableVolume,
  type Harness,
  type HarnessOptions,
  keptUsage,
  member,
  newAttachment,
  newBackup,
  newSnapshot,
  newVolume,
  recount,
} from './harness.ts'

/** A request that leads to work, and what it needs before. */
export interface Scenario {
  name: string
  /** Beside what all have. */
  options?: () => HarnessOptions
  /** The call in which it is cut off. */
  method: DriverMethod
  /** Makes what the request needs; the driver is whole. */
  prepare(harness: Harness): Promise<string>
  /** The request. It may never be answered. */
  act(harness: Harness, id: string): Promise<unknown>
  /** What the last attempt leaves behind. */
  givenUp(harness: Harness, id: string): Promise<void>
}

export const connector = { host: 'compute-1' }

/** Takes whatever it is asked for, and does nothing. */
const SILENT_COMPUTE: ComputeService = {
  notify: async () => {},
  swap: async () => {},
  attachmentOf: async () => null,
}

export const onlyVolume = async (harness: Harness) => {
  const { items } = await harness.services.volumes.list(
    member,
    {
      limit: 10,
      offset: 0,
      marker: null,
      sort: [{ key: 'created_at', direction: 'desc' }],
      filters: {},
      allProjects: false,
    },
    { count: false },
  )
  return items[0]!
}

const snapshotOf = async (harness: Harness, volumeId: string): Promise<string> => {
  const { id } = await harness.services.snapshots.create(member, newSnapshot(volumeId))
  await harness.services.idle()
  return id
}

export const expectNewest = async (harness: Harness, status: string) =>
  expect((await onlyVolume(harness)).status).toBe(status)

const expectStatus = async (harness: Harness, id: string, status: string, sizeGib: number) =>
  expect(await harness.services.volumes.get(member, id)).toMatchObject({ status, sizeGib })

const expectReason = async (harness: Harness, id: string) =>
  expect((await harness.services.explain(id))?.reason).toContain('injected fault')

const createScenario = (name: string, method: DriverMethod, request: (id: string) => object): Scenario => ({
  name,
  method,
  prepare: async (harness) => {
    const id = await availableVolume(harness)
    return method === 'createVolumeFromSnapshot' ? snapshotOf(harness, id) : id
  },
  act: (harness, id) => harness.services.volumes.create(member, newVolume(request(id))),
  givenUp: async (harness) => {
    await expectNewest(harness, 'error')
    await expectReason(harness, (await onlyVolume(harness)).id)
  },
})

export const SCENARIOS: readonly Scenario[] = [
  createScenario('creating a volume', 'createVolume', () => ({})),
  createScenario('creating a volume from a snapshot', 'createVolumeFromSnapshot', (id) => ({ snapshotId: id })),
  createScenario('cloning a volume', 'createClonedVolume', (id) => ({ sourceVolid: id })),
  {
    name: 'deleting a volume',
    method: 'deleteVolume',
    prepare: (harness) => availableVolume(harness),
    act: (harness, id) => harness.services.volumes.delete(member, id, { cascade: false, force: false }),
    givenUp: async (harness, id) => {
      await expectStatus(harness, id, 'error_deleting', 1)
      await expectReason(harness, id)
    },
  },
  {
    name: 'deleting a volume with its snapshots',
    method: 'deleteSnapshot',
    prepare: async (harness) => {
      const id = await availableVolume(harness)
      await snapshotOf(harness, id)
      await snapshotOf(harness, id)
      return id
    },
    act: (harness, id) => harness.services.volumes.delete(member, id, { cascade: true, force: false }),
    givenUp: async (harness, id) => {
      await expectStatus(harness, id, 'error_deleting', 1)
      await expectReason(harness, id)
    },
  },
  {
    name: 'giving an encrypted volume a type in the clear',
    method: 'createVolume',
    prepare: async (harness) => availableVolume(harness, { volumeType: await encryptedType(harness) }),
    act: (harness, id) =>
      harness.services.volumes.retype(member, id, { newType: IN_CLEAR, migrationPolicy: 'on-demand' }),
    givenUp: async (harness, id) => {
      await expectStatus(harness, id, 'available', 1)
      await expectReason(harness, id)
      expect(await harness.services.volumes.get(member, id)).toMatchObject({
        volumeTypeName: 'LUKS',
        migrationStatus: 'error',
        encryptionKeyId: expect.any(String),
      })
      expect([...harness.backend.volumes.keys()]).toEqual([id])
    },
  },
  {
    name: 'giving a volume in use a type with other limits',
    method: 'limitVolume',
    prepare: async (harness) => {
      const { qosSpecs } = harness.services
      await addType(harness, 'another')
      const { id: another } = await harness.db('volume_types').where({ name: 'another' }).first()
      const specs = { total_iops_sec: '10' }
      const { id: qosId } = await qosSpecs.create(admin, { name: 'slow', consumer: 'back-end', specs })
      await qosSpecs.associate(admin, qosId, another)
      const id = await availableVolume(harness)
      const attachment = await harness.services.attachments.create(member, newAttachment(id, { connector }))
      await harness.services.attachments.complete(member, attachment.id)
      return id
    },
    act: (harness, id) => harness.services.volumes.retype(member, id, { newType: 'another', migrationPolicy: 'never' }),
    givenUp: async (harness, id) => {
      await expectStatus(harness, id, 'in-use', 1)
      await expectReason(harness, id)
    },
  },
  {
    name: 'giving a volume a type with other copies',
    method: 'alterCopies',
    prepare: async (harness) => {
      await addType(harness, 'one-copy', { 'sheepdog:copies': '1', 'sheepdog:copies_min': '1' })
      return availableVolume(harness)
    },
    act: (harness, id) =>
      harness.services.volumes.retype(member, id, { newType: 'one-copy', migrationPolicy: 'never' }),
    givenUp: async (harness, id) => {
      await expectStatus(harness, id, 'available', 1)
      expect((await onlyVolume(harness)).volumeTypeName).toBe('__DEFAULT__')
      await expectReason(harness, id)
    },
  },
  {
    name: 'extending a volume',
    method: 'extendVolume',
    prepare: (harness) => availableVolume(harness),
    act: (harness, id) => harness.services.volumes.extend(member, id, 5),
    givenUp: async (harness, id) => {
      await expectStatus(harness, id, 'error_extending', 1)
      await expectReason(harness, id)
    },
  },
  {
    name: 'creating a snapshot',
    method: 'createSnapshot',
    prepare: (harness) => availableVolume(harness),
    act: (harness, id) => harness.services.snapshots.create(member, newSnapshot(id)),
    givenUp: async (harness) => {
      const [row] = await harness.db('snapshots')
      expect(row.status).toBe('error')
      await expectReason(harness, row.id)
    },
  },
  {
    name: 'deleting a snapshot',
    method: 'deleteSnapshot',
    prepare: async (harness) => snapshotOf(harness, await availableVolume(harness)),
    act: (harness, id) => harness.services.snapshots.delete(member, id),
    givenUp: async (harness, id) => {
      expect((await harness.services.snapshots.get(member, id)).status).toBe('error_deleting')
      await expectReason(harness, id)
    },
  },
  {
    name: 'attaching a volume',
    method: 'createExport',
    prepare: (harness) => availableVolume(harness),
    act: (harness, id) => harness.services.attachments.create(member, newAttachment(id, { connector })),
    givenUp: expectDetached,
  },
  {
    name: 'connecting a reserved attachment',
    method: 'createExport',
    prepare: async (harness) => {
      const volumeId = await availableVolume(harness)
      return (await harness.services.attachments.create(member, newAttachment(volumeId))).id
    },
    act: (harness, id) => harness.services.attachments.update(member, id, connector),
    givenUp: expectReserved,
  },
  {
    name: 'detaching a volume',
    method: 'removeExport',
    prepare: async (harness) => {
      const volumeId = await availableVolume(harness)
      const { id } = await harness.services.attachments.create(member, newAttachment(volumeId, { connector }))
      await harness.services.attachments.complete(member, id)
      return id
    },
    act: (harness, id) => harness.services.attachments.delete(member, id),
    givenUp: async (harness, id) => {
      expect((await harness.services.attachments.get(member, id)).status).toBe('error_detaching')
      await expectNewest(harness, 'in-use')
      await expectReason(harness, id)
    },
  },
]

/** A group of the default volume type, with two volumes; of another id than its own when the test is about that. */
export async function groupOf(harness: Harness, sizes: readonly number[] = [1, 2]): Promise<string> {
  const type = await harness.db('group_types').where({ name: 'plain' }).first()
  if (type === undefined) {
    await harness.services.groupTypes.create(admin, {
      name: 'plain',
      description: null,
      isPublic: true,
      groupSpecs: {},
    })
  }
  const { id } = await harness.services.groups.create(member, newGroup())
  await harness.services.idle()
  for (const sizeGib of sizes) {
    await harness.services.volumes.create(member, newVolume({ sizeGib, volumeType: '__DEFAULT__', groupId: id }))
  }
  await harness.services.idle()
  return id
}

export function newGroup() {
  return {
    name: 'g',
    description: null,
    groupType: 'plain',
    volumeTypes: ['__DEFAULT__'],
    availabilityZone: null,
  }
}

async function frozenGroup(harness: Harness): Promise<string> {
  const { id } = await harness.services.groupSnapshots.create(member, {
    groupId: await groupOf(harness),
    name: 's',
    description: null,
  })
  await harness.services.idle()
  return id
}

/** A volume that its service has let go, by the name that the backend has for it. */
async function letGo(harness: Harness): Promise<string> {
  const id = await availableVolume(harness)
  await harness.services.volumes.unmanage(admin, id)
  await harness.services.idle()
  return id
}

export const copyOf = (fields: { groupSnapshotId?: string; sourceGroupId?: string }) => ({
  name: 'copy',
  description: null,
  groupSnapshotId: null,
  sourceGroupId: null,
  ...fields,
})

const manage = (sourceName: string) => ({
  host: 'test-host@memory',
  cluster: null,
  sourceName,
  name: 'taken over',
  description: null,
  volumeType: null,
  availabilityZone: null,
  bootable: false,
  metadata: {},
})

/** The newest group is in that status, and says why. */
async function expectGroup(harness: Harness, status: string): Promise<void> {
  const row = await harness.db('volume_groups').orderBy('created_at', 'desc').first()
  expect(row.status).toBe(status)
  await expectReason(harness, row.id)
}

export const GROUP_SCENARIOS: readonly Scenario[] = [
  {
    name: 'taking snapshots of a group',
    method: 'createGroupSnapshot',
    prepare: groupOf,
    act: (harness, id) =>
      harness.services.groupSnapshots.create(member, { groupId: id, name: null, description: null }),
    givenUp: async (harness) => {
      const row = await harness.db('group_snapshots').first()
      expect(row.status).toBe('error')
      await expectReason(harness, row.id)
      expect(await harness.db('snapshots').pluck('status')).toEqual(['error', 'error'])
    },
  },
  {
    name: 'deleting snapshots of a group',
    method: 'deleteSnapshot',
    prepare: frozenGroup,
    act: (harness, id) => harness.services.groupSnapshots.delete(member, id),
    givenUp: async (harness, id) => {
      expect((await harness.services.groupSnapshots.get(member, id)).status).toBe('error')
      await expectReason(harness, id)
    },
  },
  {
    name: 'deleting a group with its volumes',
    method: 'deleteVolume',
    prepare: groupOf,
    act: (harness, id) => harness.services.groups.delete(member, id, { withVolumes: true }),
    givenUp: async (harness) => expectGroup(harness, 'error_deleting'),
  },
  {
    name: 'copying a group',
    method: 'createGroupSnapshot',
    prepare: groupOf,
    act: (harness, id) => harness.services.groups.createCopy(member, copyOf({ sourceGroupId: id })),
    givenUp: async (harness) => {
      await expectGroup(harness, 'error')
      expect(harness.backend.snapshots.size).toBe(0)
    },
  },
  {
    name: 'making a group of snapshots of one',
    method: 'createVolumeFromSnapshot',
    prepare: frozenGroup,
    act: (harness, id) => harness.services.groups.createCopy(member, copyOf({ groupSnapshotId: id })),
    givenUp: async (harness) => expectGroup(harness, 'error'),
  },
  {
    name: 'taking over a volume',
    method: 'manageVolume',
    prepare: letGo,
    act: (harness, id) => harness.services.manageable.manageVolume(admin, manage(id)),
    givenUp: async (harness) => {
      const [row] = await harness.db('volumes')
      expect(row.status).toBe('error_managing')
      await expectReason(harness, row.id)
    },
  },
]

export const FURTHER_GROUP_SCENARIOS: readonly CutScenario[] = [
  {
    name: 'creating a group',
    prepare: async (harness) => {
      await groupOf(harness)
      return ''
    },
    act: (harness) => harness.services.groups.create(member, newGroup()),
  },
  {
    name: 'taking over a snapshot',
    prepare: async (harness) => {
      const volumeId = await availableVolume(harness)
      const id = await snapshotOf(harness, volumeId)
      await harness.services.snapshots.unmanage(admin, id)
      return id
    },
    act: async (harness, sourceName) => {
      const { id: volumeId } = await harness.db('volumes').first()
      const request = { volumeId, sourceName, name: null, description: null, metadata: {} }
      await harness.services.manageable.manageSnapshot(admin, request)
    },
  },
]

/** What is cut off. */
export type CutScenario = Pick<Scenario, 'name' | 'options' | 'prepare' | 'act'>

/** Others that are cut off, whose backend calls the ones above have. */
export const FURTHER_SCENARIOS: readonly CutScenario[] = [
  {
    name: 'completing an attachment',
    prepare: async (harness) => {
      const volumeId = await availableVolume(harness)
      return (await harness.services.attachments.create(member, newAttachment(volumeId, { connector }))).id
    },
    act: (harness, id) => harness.services.attachments.complete(member, id),
  },
  {
    name: 'extending a volume in use',
    prepare: async (harness) => {
      const volumeId = await availableVolume(harness)
      const { id } = await harness.services.attachments.create(member, newAttachment(volumeId, { connector }))
      await harness.services.attachments.complete(member, id)
      return volumeId
    },
    act: (harness, id) => harness.services.volumes.extend(member, id, 3),
  },
  {
    name: 'deleting a volume by force, with its attachment and snapshot',
    prepare: async (harness) => {
      const volumeId = await availableVolume(harness)
      await snapshotOf(harness, volumeId)
      await harness.services.attachments.create(member, newAttachment(volumeId, { connector }))
      return volumeId
    },
    act: (harness, id) => harness.services.volumes.delete(admin, id, { cascade: true, force: true }),
  },
  {
    name: 'reverting a volume',
    prepare: async (harness) => {
      const volumeId = await availableVolume(harness)
      await snapshotOf(harness, volumeId)
      return volumeId
    },
    act: async (harness, id) => {
      const { id: snapshotId } = await harness.db('snapshots').where({ volume_id: id }).first()
      await harness.services.volumes.revert(member, id, snapshotId)
    },
  },
  {
    name: 'retyping a volume',
    prepare: async (harness) => {
      await addType(harness, 'another')
      return availableVolume(harness)
    },
    act: (harness, id) => harness.services.volumes.retype(member, id, { newType: 'another', migrationPolicy: 'never' }),
  },
  {
    name: 'giving an encrypted volume a type with a longer key',
    prepare: async (harness) => {
      const volumeType = await encryptedType(harness)
      await encryptedType(harness, { keySize: 512 }, 'longer')
      return availableVolume(harness, { volumeType })
    },
    act: (harness, id) =>
      harness.services.volumes.retype(member, id, { newType: 'longer', migrationPolicy: 'on-demand' }),
  },
  {
    name: 'migrating a volume',
    options: withOther,
    prepare: async (harness) => {
      const type = await addType(harness, 'on-memory', { volume_backend_name: 'memory' })
      const id = await availableVolume(harness, { volumeType: type })
      await harness.services.volumes.retype(member, id, { newType: '__DEFAULT__', migrationPolicy: 'never' })
      await harness.services.idle()
      return id
    },
    act: (harness, id) =>
      harness.services.volumes.migrate(admin, id, { host: 'test-host@other#memory', cluster: null }),
  },
  {
    name: 'backing a volume up',
    prepare: (harness) => availableVolume(harness),
    act: (harness, id) => harness.services.backups.create(member, newBackup(id)),
  },
  {
    name: 'restoring a backup to its volume',
    prepare: backedUp,
    act: async (harness, id) => {
      const { volume_id: volumeId } = await harness.db('backups').where({ id }).first()
      await harness.services.backups.restore(member, id, { volumeId, name: null })
    },
  },
  {
    name: 'restoring a backup to a new volume',
    prepare: backedUp,
    act: (harness, id) => harness.services.backups.restore(member, id, { volumeId: null, name: null }),
  },
  {
    name: 'deleting a backup',
    prepare: backedUp,
    act: (harness, id) => harness.services.backups.delete(member, id, { force: false }),
  },
]

/** Ends as it began, and tells its owner so; `describeSwapCuts` cuts off those that end otherwise. */
export const MOVING_SCENARIO: CutScenario = {
  name: 'moving a volume in use, of which the compute service is not heard again',
  options: () => ({ ...withOther(), compute: SILENT_COMPUTE, settings: { swapTimeoutMs: 1 } }),
  prepare: async (harness) => {
    const volumeId = await availableVolume(harness)
    const overrides = { connector, instanceId: 'server' }
    const { id } = await harness.services.attachments.create(member, newAttachment(volumeId, overrides))
    await harness.services.attachments.complete(member, id)
    return volumeId
  },
  act: ({ services }, id) => services.volumes.migrate(admin, id, { host: 'test-host@other#memory', cluster: null }),
}

async function backedUp(harness: Harness): Promise<string> {
  const { id } = await harness.services.backups.create(member, newBackup(await availableVolume(harness)))
  await harness.services.idle()
  return id
}

function withOther(): HarnessOptions {
  const driver = createMemoryDriver(createMemoryBackend(100), systemRandom)
  return { others: [{ name: 'other', availabilityZone: 'nova', driver }] }
}

async function addType(harness: Harness, name: string, extraSpecs: Record<string, string> = {}): Promise<string> {
  await harness.services.types.create(admin, { name, description: null, isPublic: true, extraSpecs })
  return name
}

async function expectDetached(harness: Harness): Promise<void> {
  expect(await onlyVolume(harness)).toMatchObject({ status: 'available', attachments: [] })
  expectNoRights(harness)
}

async function expectReserved(harness: Harness, id: string): Promise<void> {
  const attachment = await harness.services.attachments.get(member, id)
  expect(attachment).toMatchObject({ status: 'reserved', connector: null, connectionInfo: null })
  await expectNewest(harness, 'reserved')
  expectNoRights(harness)
}

function expectNoRights(harness: Harness): void {
  for (const volume of harness.backend.volumes.values()) expect(volume.rights.size).toBe(0)
}

/** Statuses that only work ends. */
const IN_WORK = [
  'creating',
  'deleting',
  'extending',
  'reverting',
  'restoring',
  'retyping',
  'maintenance',
  'backing-up',
  'restoring-backup',
  'downloading',
  'uploading',
]

/** Nothing waits, nothing is between two statuses, and the counts are right. */
export async function expectSound(harness: Harness): Promise<void> {
  expect(await keptUsage(harness.db)).toEqual(await recount(harness.db))
  expect(await harness.db('work')).toEqual([])
  expect(await harness.db('lanes')).toEqual([])
  const kept = await harness.db('group_usages').sum({ sum: 'groups' }).first()
  const counted = await harness.db('volume_groups').count({ count: '*' }).first()
  expect(Number(kept?.sum ?? 0)).toBe(Number(counted?.count))
  for (const table of ['volumes', 'snapshots', 'attachments', 'backups', 'volume_groups', 'group_snapshots']) {
    for (const { status } of await harness.db(table)) expect([table, IN_WORK.includes(status), status]).toContain(false)
  }
  for (const { id, name_id, status, host } of await harness.db('volumes').where({ status: 'available' })) {
    const isHere = !host.startsWith('test-host@other#')
    expect([status, harness.backend.volumes.has(name_id ?? id)]).toEqual(['available', isHere])
  }
}

/** What there is, without the ids and times that differ from run to run. */
export async function worldOf({ db, backend }: Harness): Promise<object> {
  const sorted = (rows: object[]) => rows.map((row) => JSON.stringify(row)).sort()
  const volumes = await db('volumes')
    .join('volume_types', 'volume_types.id', 'volumes.volume_type_id')
    .select('status', 'size_gib', 'pending_size_gib', 'pending_volume_type_id', 'status_reason', 'host')
    .select('migration_status', 'volume_types.name as type')
  const snapshots = await db('snapshots').select('status', 'previous_status', 'progress', 'size_gib', 'status_reason')
  const attachments = await db('attachments').select('status', 'connector', 'attached_host', 'attach_mode')
  return {
    volumes: sorted(volumes),
    snapshots: sorted(snapshots),
    attachments: sorted(attachments),
    backups: sorted(await db('backups').select('status', 'object_count', 'restore_volume_id', 'status_reason')),
    groups: sorted(await db('volume_groups').select('status', 'name', 'host', 'availability_zone', 'status_reason')),
    groupSnapshots: sorted(await db('group_snapshots').select('status', 'name', 'status_reason')),
    grouped: (await db('volumes').whereNotNull('group_id')).length,
    backupUsage: sorted(await db('backup_usages').where('backups', '>', 0)),
    connections: (await db('attachments').whereNotNull('connection_info')).length,
    keys: (await db('encryption_keys')).length,
    usage: await keptUsage(db),
    stored: sorted(
      [...backend.volumes.values()].map(({ sizeGib, rights }) => ({
        sizeGib,
        rights: sorted([...rights.values()].map(({ mode, limits }) => ({ mode, limits }))),
      })),
    ),
    storedSnapshots: backend.snapshots.size,
  }
}
