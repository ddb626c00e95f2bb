import fc from 'fast-check'
import {
  admin,
  availableVolume,
  type Harness,
  member,
  newAttachment,
  newBackup,
  newSnapshot,
  newVolume,
  stranger,
} from './harness.ts'
import { copyOf, groupOf, newGroup } from './scenarios.ts'

/** Random requests of administrators and two projects, for property tests. What they are about is chosen among what there is. */

/** A type that retypes lead to, and that may be deleted. */
export const OTHER_TYPE = { name: 'other', description: null, isPublic: true, extraSpecs: {} }

/** Something of everything, so that the first requests find what they are about. */
export async function populate(harness: Harness): Promise<void> {
  const { attachments, backups, groupSnapshots, snapshots, idle } = harness.services
  const [first, second] = [await availableVolume(harness), await availableVolume(harness, { sizeGib: 2 })]
  const attached = await attachments.create(
    member,
    newAttachment(await availableVolume(harness), { connector: { host: 'h' } }),
  )
  await attachments.complete(member, attached.id)
  await snapshots.create(member, newSnapshot(first))
  await backups.create(member, newBackup(second))
  await groupSnapshots.create(member, frozen(await groupOf(harness, [1])))
  await idle()
}

type Name = keyof typeof REQUESTS

type About =
  | 'volumes'
  | 'snapshots'
  | 'attachments'
  | 'backups'
  | 'volume_transfers'
  | 'volume_groups'
  | 'group_snapshots'

/** `at` counts among the rows of the table that the request is about; `sizeGib` is taken by those that have one. */
export interface Step {
  request: Name
  at: number
  sizeGib: number
}

type Request = (harness: Harness, id: string, step: Step) => Promise<unknown>

const oldAttach = { instanceId: null, hostName: 'h', mountpoint: '/dev/vdb', mode: 'rw' as const }

const frozen = (groupId: string) => ({ groupId, name: null, description: null })

/** What a change of a group leaves. */
const SAME = { name: null, description: null, addVolumes: [], removeVolumes: [] }

/** What accepts the transfers, by their ids. */
const authKeys = new Map<string, string>()

const REQUESTS = {
  'create a volume': about('volumes', ({ services }, _, { at, sizeGib }) =>
    services.volumes.create(at % 2 === 0 ? member : stranger, newVolume({ sizeGib })),
  ),
  clone: about('volumes', ({ services }, id) =>
    services.volumes.create(admin, newVolume({ sizeGib: null, sourceVolid: id })),
  ),
  delete: about('volumes', ({ services }, id) => services.volumes.delete(admin, id, { cascade: false, force: false })),
  cascade: about('volumes', ({ services }, id) => services.volumes.delete(admin, id, { cascade: true, force: false })),
  force: about('volumes', ({ services }, id) => services.volumes.delete(admin, id, { cascade: false, force: true })),
  'force and cascade': about('volumes', ({ services }, id) =>
    services.volumes.delete(admin, id, { cascade: true, force: true }),
  ),
  unmanage: about('volumes', ({ services }, id) => services.volumes.unmanage(admin, id)),
  reset: about('volumes', ({ services }, id) => services.volumes.resetStatus(admin, id, 'error')),
  'make usable again': about('volumes', ({ services }, id) =>
    services.volumes.resetStatus(admin, id, 'available', { attachStatus: 'detached' }),
  ),
  extend: about('volumes', ({ services }, id, { sizeGib }) => services.volumes.extend(admin, id, sizeGib)),
  retype: about('volumes', ({ services }, id) =>
    services.volumes.retype(admin, id, { newType: OTHER_TYPE.name, migrationPolicy: 'on-demand' }),
  ),
  'retype back': about('volumes', ({ services }, id) =>
    services.volumes.retype(admin, id, { newType: '__DEFAULT__', migrationPolicy: 'never' }),
  ),
  migrate: about('volumes', ({ services }, id, { sizeGib }) =>
    services.volumes.migrate(admin, id, {
      host: `test-host@${sizeGib % 2 === 0 ? 'other' : 'memory'}#memory`,
      cluster: null,
    }),
  ),
  revert: about('snapshots', async ({ services, db }, id) => {
    const snapshot = await db('snapshots').where({ id }).first()
    return services.volumes.revert(admin, snapshot?.volume_id ?? 'none', id)
  }),
  'name it': about('volumes', ({ services }, id) => services.volumes.update(admin, id, { name: 'new' })),
  snapshot: about('volumes', ({ services }, id) => services.snapshots.create(admin, newSnapshot(id, true))),
  'delete a snapshot': about('snapshots', ({ services }, id) => services.snapshots.delete(admin, id)),
  'force a snapshot': about('snapshots', ({ services }, id) => services.snapshots.delete(admin, id, { force: true })),
  'forget a snapshot': about('snapshots', ({ services }, id) => services.snapshots.unmanage(admin, id)),
  'make a volume of a snapshot': about('snapshots', ({ services }, id) =>
    services.volumes.create(admin, newVolume({ sizeGib: null, snapshotId: id })),
  ),
  attach: about('volumes', ({ services }, id) =>
    services.attachments.create(admin, newAttachment(id, { connector: { host: 'h' } })),
  ),
  reserve: about('volumes', ({ services }, id) => services.attachments.create(admin, newAttachment(id))),
  connect: about('attachments', ({ services }, id) => services.attachments.update(admin, id, { host: 'h' })),
  complete: about('attachments', ({ services }, id) => services.attachments.complete(admin, id)),
  detach: about('attachments', ({ services }, id) => services.attachments.delete(admin, id)),
  'begin to detach': about('volumes', ({ services }, id) => services.volumes.beginDetaching(admin, id)),
  'attach the old way': about('volumes', async ({ services }, id) => {
    await services.connections.initialize(admin, id, { host: 'h' })
    return services.connections.attach(admin, id, oldAttach)
  }),
  'detach the old way': about('volumes', ({ services }, id) => services.connections.detach(admin, id, null)),
  'force detach': about('volumes', ({ services }, id) =>
    services.connections.forceDetach(admin, id, { attachmentId: null, connector: null }),
  ),
  'back up': about('volumes', ({ services }, id) => services.backups.create(member, newBackup(id, { force: true }))),
  'back up what changed': about('backups', async ({ services, db }, id) => {
    const backup = await db('backups').where({ id }).first()
    return services.backups.create(member, newBackup(backup?.volume_id ?? 'none', { incremental: true, force: true }))
  }),
  'back up a snapshot': about('snapshots', async ({ services, db }, id) => {
    const snapshot = await db('snapshots').where({ id }).first()
    return services.backups.create(admin, newBackup(snapshot?.volume_id ?? 'none', { snapshotId: id }))
  }),
  restore: about('backups', async ({ services, db }, id, { at }) => {
    const volumeId = at % 2 === 0 ? null : ((await db('volumes').first('id'))?.id ?? null)
    return services.backups.restore(admin, id, { volumeId, name: null })
  }),
  'delete a backup': about('backups', ({ services }, id) => services.backups.delete(admin, id, { force: false })),
  'force a backup': about('backups', ({ services }, id) => services.backups.delete(admin, id, { force: true })),
  'reset a backup': about('backups', ({ services }, id) => services.backups.resetStatus(admin, id, 'error')),
  offer: about('volumes', async ({ services }, id, { at }) => {
    const offered = { volumeId: id, name: null, noSnapshots: at % 3 === 0, allowEncrypted: true }
    const transfer = await services.transfers.create(admin, offered)
    authKeys.set(transfer.id, transfer.authKey)
  }),
  'call an offer off': about('volume_transfers', ({ services }, id) => services.transfers.delete(admin, id)),
  'accept an offer': about('volume_transfers', ({ services }, id, { sizeGib }) =>
    services.transfers.accept(sizeGib % 2 === 0 ? member : stranger, id, authKeys.get(id) ?? 'none'),
  ),
  'make a group': about('volume_groups', ({ services }, _, { at }) =>
    services.groups.create(at % 2 === 0 ? member : stranger, { ...newGroup(), groupType: at === 4 ? null : 'plain' }),
  ),
  'make a volume in a group': about('volume_groups', ({ services }, id, { sizeGib }) =>
    services.volumes.create(admin, newVolume({ sizeGib, volumeType: '__DEFAULT__', groupId: id })),
  ),
  'put into a group': about('volume_groups', async ({ services, db }, id, { sizeGib }) => {
    const ids = await db('volumes').whereNull('group_id').orderBy('created_at').pluck('id')
    return services.groups.update(admin, id, {
      ...SAME,
      addVolumes: [ids[sizeGib % Math.max(ids.length, 1)] ?? 'none'],
    })
  }),
  'take out of a group': about('volume_groups', async ({ services, db }, id) => {
    const inside = await db('volumes').where({ group_id: id }).first('id')
    return services.groups.update(admin, id, { ...SAME, removeVolumes: [inside?.id ?? 'none'] })
  }),
  'freeze a group': about('volume_groups', ({ services }, id) => services.groupSnapshots.create(admin, frozen(id))),
  'delete what was frozen': about('group_snapshots', ({ services }, id) => services.groupSnapshots.delete(admin, id)),
  'copy a group': about('volume_groups', ({ services }, id) =>
    services.groups.createCopy(admin, copyOf({ sourceGroupId: id })),
  ),
  'make a group of what was frozen': about('group_snapshots', ({ services }, id) =>
    services.groups.createCopy(admin, copyOf({ groupSnapshotId: id })),
  ),
  'delete a group': about('volume_groups', ({ services }, id, { at }) =>
    services.groups.delete(admin, id, { withVolumes: at % 2 === 0 }),
  ),
  'reset a group': about('volume_groups', ({ services }, id) => services.groups.resetStatus(admin, id, 'error')),
  'make a group usable again': about('volume_groups', ({ services }, id) =>
    services.groups.resetStatus(admin, id, 'available'),
  ),
  'reset what was frozen': about('group_snapshots', ({ services }, id) =>
    services.groupSnapshots.resetStatus(admin, id, 'error'),
  ),
  'delete the type': about('volumes', async ({ services, db }) => {
    const type = await db('volume_types').where({ name: OTHER_TYPE.name }).first()
    return services.types.delete(admin, type?.id ?? 'none')
  }),
  'make the type': about('volumes', ({ services }) => services.types.create(admin, OTHER_TYPE)),
  'wait for all work': about('volumes', ({ services }) => services.idle()),
} as const satisfies Record<string, Request>

function about(table: About, request: Request): Request {
  return async (harness, _, step) => {
    const rows: { id: string }[] = await harness.db(table).orderBy('created_at').select('id')
    return request(harness, rows[step.at % Math.max(rows.length, 1)]?.id ?? 'none', step)
  }
}

/** Some are asked for more often, or there would be little for the others to work on. */
const OFTEN = [
  'create a volume',
  'snapshot',
  'extend',
  'attach',
  'offer',
  'accept an offer',
  'make a volume in a group',
  'freeze a group',
  'wait for all work',
] as const satisfies Name[]

/** Those after which the backend may hold something else than the database says. */
const VIOLENT: readonly string[] = ['force', 'force and cascade', 'force a snapshot', 'force a backup'] satisfies Name[]
const WRITTEN: readonly string[] = [
  'reset',
  'make usable again',
  'reset a backup',
  'reset a group',
  'make a group usable again',
  'reset what was frozen',
] satisfies Name[]

const ALL = Object.keys(REQUESTS) as Name[]

export const anyStep = stepOf(ALL)
export const anyGentleStep = stepOf(ALL.filter((name) => !VIOLENT.includes(name) && !WRITTEN.includes(name)))

function stepOf(requests: readonly Name[]): fc.Arbitrary<Step> {
  return fc.record({
    request: fc.oneof(
      { weight: 1, arbitrary: fc.constantFrom(...OFTEN) },
      { weight: 3, arbitrary: fc.constantFrom(...requests) },
    ),
    at: fc.nat(4),
    sizeGib: fc.integer({ min: 1, max: 6 }),
  })
}

export function perform(harness: Harness, step: Step): Promise<unknown> {
  return REQUESTS[step.request](harness, '', step)
}
