import { describe, expect, it } from 'vitest'
import type { Discovered } from '../../src/drivers/driver.ts'
import { checkUsage, compare, type Records, readRecords } from '../../src/services/comparison.ts'
import { DIALECTS } from '../db/harness.ts'
import { availableVolume, createHarness, member, newAttachment, newSnapshot } from './harness.ts'

const volume = (status = 'available', size_gib = 1) => ({ status, size_gib, pending_size_gib: null, host: 'h@b#p' })

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
})
