import { describe, expect, it } from 'vitest'
import * as volumes from '../../src/db/volumes.ts'
import type { Discovered } from '../../src/drivers/driver.ts'
import { createMemoryDriver } from '../../src/drivers/memory.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { reserveRetype } from '../../src/services/accounting.ts'
import { compareBackups, findBackups, readBackupRecords } from '../../src/services/backup-comparison.ts'
import { compare, type Records, readRecords } from '../../src/services/comparison.ts'
import { checkStatuses, checkUsage } from '../../src/services/database-check.ts'
import { DIALECTS } from '../db/harness.ts'
import {
  admin,
  availableVolume,
  createHarness,
  member,
  newAttachment,
  newBackup,
  newSnapshot,
  TEST_SETTINGS,
} from './harness.ts'

const volume = (status = 'available', size_gib = 1) => ({
  id: 'v',
  status,
  size_gib,
  pending_size_gib: null,
  host: 'h@b#p',
})

const records = (changes: Partial<Records> = {}): Records => ({
  volumes: new Map(),
  snapshots: new Map(),
  attachments: new Map(),
  busy: new Set(),
  ...changes,
})

const found = (changes: Partial<Discovered> = {}): Discovered => ({
  volumes: [],
  snapshots: [],
  exports: [],
  foreign: [],
  ...changes,
})

const kinds = (before: Records, store: Discovered, after = before) =>
  compare(before, store, after).map(({ kind, id }) => `${kind} ${id}`)

describe('a comparison', () => {
  it('finds what only one side has', () => {
    const known = records({
      volumes: new Map([['v', volume()]]),
      snapshots: new Map([['s', { status: 'available', volume_id: 'v' }]]),
      attachments: new Map([['a', { volume_id: 'v', isConnected: true }]]),
    })
    expect(kinds(known, found())).toEqual(['volume-lost v', 'snapshot-lost s', 'export-lost a'])
    const store = found({
      volumes: [{ id: 'v', sizeGib: 1 }],
      snapshots: [{ id: 's', volumeId: 'v', sizeGib: 1 }],
      exports: [{ attachmentId: 'a', volumeId: 'v' }],
    })
    expect(kinds(known, store)).toEqual([])
    expect(kinds(records(), store)).toEqual(['volume-unknown v', 'snapshot-unknown s', 'export-unknown a'])
  })

  it('finds sizes that differ, either way', () => {
    const known = records({ volumes: new Map([['v', volume('available', 2)]]) })
    const advice = (sizeGib: number) => compare(known, found({ volumes: [{ id: 'v', sizeGib }] }), known)[0]?.advice
    expect(advice(1)).toContain('vdi resize volume-v 2G')
    expect(advice(3)).toContain('volume set --size 3 v')
    expect(advice(2)).toBeUndefined()
  })

  it.each(['creating', 'deleting', 'error', 'error_deleting', 'error_extending'])(
    'says nothing of a volume that is %s: it may be there or not',
    (status) => {
      const known = records({ volumes: new Map([['v', volume(status)]]) })
      expect(kinds(known, found())).toEqual([])
      expect(kinds(known, found({ volumes: [{ id: 'v', sizeGib: 1 }] }))).toEqual([])
    },
  )

  it('says nothing of what changed while it was made, or is worked on', () => {
    const known = records({ volumes: new Map([['v', volume()]]) })
    const store = found({ volumes: [{ id: 'v', sizeGib: 1 }] })
    expect(kinds(records(), store, known)).toEqual([]) // made meanwhile
    expect(kinds(known, store, records())).toEqual([]) // deleted meanwhile
    expect(kinds({ ...known, busy: new Set(['v']) }, found(), known)).toEqual([])
    expect(kinds(known, found(), { ...known, busy: new Set(['v']) })).toEqual([])
  })

  it('says nothing of what work holds in the store for a while: a copy that moves, the snapshot of a backup', () => {
    const moves = records({ busy: new Set(['v']) }) // of a volume that is on another backend, or will be
    expect(kinds(moves, found({ volumes: [{ id: 'v', sizeGib: 1 }] }), records())).toEqual([])
    expect(kinds(records(), found({ volumes: [{ id: 'v', sizeGib: 1 }] }), moves)).toEqual([])
    const store = found({ snapshots: [{ id: 'backup', volumeId: 'v', sizeGib: 1 }] })
    const backedUp = { ...records({ volumes: new Map([['v', volume('backing-up')]]) }), busy: new Set(['backup', 'v']) }
    expect(kinds(backedUp, store)).toEqual([])
    expect(kinds({ ...backedUp, busy: new Set() }, store)).toContain('snapshot-unknown backup')
  })
})

describe.each(DIALECTS)('database and backend on %s', (dialect) => {
  it('agree after ordinary use, and show a miscount', async () => {
    const harness = await createHarness({ dialect })
    const { db, services } = harness
    const id = await availableVolume(harness)
    await services.snapshots.create(member, newSnapshot(id))
    await harness.settled()
    await services.attachments.create(member, newAttachment(id, { connector: { host: 'h' } }))
    const now = await readRecords(db, () => true)
    const volumes = [...harness.backend.volumes].map(([volumeId, { sizeGib }]) => ({ id: volumeId, sizeGib }))
    const snapshots = [...harness.backend.snapshots].map(([snapshotId, one]) => ({ id: snapshotId, ...one }))
    const exports = [...harness.backend.volumes.values()].flatMap(({ rights }) =>
      [...rights.keys()].map((attachmentId) => ({ attachmentId, volumeId: id })),
    )
    expect(compare(now, found({ volumes, snapshots, exports }), now)).toEqual([])
    expect([now.volumes.size, now.snapshots.size, now.attachments.size]).toEqual([1, 1, 1])
    expect((await readRecords(db, () => false)).volumes.size).toBe(0)
    expect(await checkUsage(db)).toEqual([])
    await db('usages').update({ snapshots: 5 })
    expect(await checkUsage(db)).toMatchObject([{ kind: 'usage-wrong', id: 'project' }])
  })

  it('count charges as the requests do, by project, by type and of backups, and set them right', async () => {
    const harness = await createHarness({ dialect })
    const { db, services } = harness
    await services.types.create(admin, { name: 'another', description: null, isPublic: true, extraSpecs: {} })
    const id = await availableVolume(harness, { sizeGib: 2 })
    await services.snapshots.create(member, newSnapshot(id))
    await services.backups.create(member, newBackup(await availableVolume(harness, { volumeType: 'another' })))
    await harness.settled()
    const another = (await db('volume_types').where({ name: 'another' }).first()).id
    // As while it is retyped, when both types are charged.
    await db.transaction(async (trx) => {
      const row = await volumes.lock(trx, id)
      await reserveRetype(trx, row!, another, TEST_SETTINGS.quota, 'now')
    })
    expect(await checkUsage(db)).toEqual([])

    await db('usages').update({ gigabytes: 7 })
    await db('type_usages').where({ volume_type_id: another }).delete()
    await db('backup_usages').update({ backups: 3 })
    const wrong = await checkUsage(db)
    expect(wrong.map(({ kind, detail }) => [kind, detail])).toEqual([
      [
        'usage-wrong',
        'project project is charged 2 volumes, 1 snapshots, 7 GiB, and has 2 volumes, 1 snapshots, 5 GiB',
      ],
      [
        'type-usage-wrong',
        `project project, of type ${another}, is charged 0 volumes, 0 snapshots, 0 GiB, and has 2 volumes, 1 snapshots, 5 GiB`,
      ],
      ['backup-usage-wrong', 'project project is charged 3 backups, 1 GiB, and has 1 backups, 1 GiB'],
    ])
    for (const { mend } of wrong) expect(await mend()).toBe(true)
    expect(await checkUsage(db)).toEqual([])
    await db('usages').update({ volumes: 9 })
    const [late] = await checkUsage(db)
    await db('usages').update({ volumes: 2 })
    expect(await late?.mend()).toBe(false)
  })

  it('name what is in a status that nothing will end', async () => {
    const harness = await createHarness({ dialect })
    const { db, services } = harness
    const id = await availableVolume(harness)
    await services.snapshots.create(member, newSnapshot(id))
    const backup = await services.backups.create(member, newBackup(await availableVolume(harness)))
    await harness.settled()
    expect(await checkStatuses(db)).toEqual([])
    await services.volumes.resetStatus(admin, id, 'extending')
    await db('snapshots').update({ status: 'deleting' })
    await db('backups').update({ status: 'creating' })
    const found = await checkStatuses(db)
    expect(found.map(({ id, detail }) => detail.replace(id, 'ID'))).toEqual([
      'volume ID is extending, and nothing works on it',
      'snapshot ID is deleting, and nothing works on it',
      'backup ID is creating, and nothing works on it',
    ])
    expect(found[2]).toMatchObject({ id: backup.id, advice: expect.stringContaining('openstack volume backup set') })
  })

  it('name backups that only the database has, or only the target', async () => {
    const harness = await createHarness({ dialect })
    const { db, services, backups: target } = harness
    const id = await availableVolume(harness)
    const data = await createMemoryDriver(harness.backend, systemRandom).openVolume({ id, sizeGib: 1 })
    await data.write(0, Buffer.alloc(4096, 1))
    const made = []
    for (let count = 0; count < 4; count++) {
      made.push((await services.backups.create(member, newBackup(id))).id)
      await harness.settled()
    }
    const [sound, lost, damaged, unknown] = made as [string, string, string, string]
    const check = async () => {
      const records = await readBackupRecords(db)
      const findings = compareBackups(target.service, records, await findBackups(target), records)
      return findings.map(({ kind, id, backend }) => [kind, id, backend])
    }
    expect(await check()).toEqual([])
    const names = await target.list(`volumebackups/${lost}`)
    for (const name of names) await target.remove(`volumebackups/${lost}/${name}`)
    await target.remove(`volumebackups/${damaged}/page-0`)
    await db('backups').where({ id: unknown }).delete()
    const left = 'b3c5d1d0-5b0e-4a39-9d2c-0f6a5f0f3f11' // of one that failed
    await target.put(`volumebackups/${left}/chunk-0`, Buffer.from('x'))
    await target.put('notes/of/somebody', Buffer.from('x'))
    const found = await check()
    expect(found.toSorted()).toEqual(
      [
        ['backup-lost', lost, target.service],
        ['backup-damaged', damaged, target.service],
        ['backup-unknown', unknown, target.service],
        ['backup-unknown', left, target.service],
      ].toSorted(),
    )
    expect(found.flat()).not.toContain(sound)
  })
})
