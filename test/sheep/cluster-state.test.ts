import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { StoreError } from '../../src/errors.ts'
import { VDI_SIZE_MAX_BYTES } from '../../src/protocol/constants.ts'
import { vidOfName } from '../../src/protocol/hash.ts'
import { attributeOid, newAttribute } from '../../src/sheep/attributes.ts'
import { ClusterState } from '../../src/sheep/cluster-state.ts'
import { decodeEntry, type Entry, type ExportRight, encodeEntry, type Vdi } from '../../src/sheep/entries.ts'
import { HOLE_VID, VdiTable } from '../../src/sheep/vdi-table.ts'

function vdi(fields: Partial<Vdi> & { vid: number; name: string }): Vdi {
  return {
    tag: '',
    snapId: 1,
    parentVid: 0,
    family: fields.vid,
    sizeBytes: 100,
    copies: 1,
    createdAt: 5,
    snapshotAt: 0,
    deleting: false,
    ...fields,
  }
}

const right = (fields: Partial<ExportRight> & { vid: number }): ExportRight => ({
  attachmentId: 'one',
  nameHash: 'ab'.repeat(32),
  readOnly: false,
  ...fields,
})

/** A state to which these entries were delivered, each checked first. */
function stateOf(...entries: Entry[]): ClusterState {
  const state = new ClusterState()
  for (const entry of entries) {
    state.check(entry)
    state.apply(state.index + 1, entry)
  }
  return state
}

const refusal = (state: ClusterState, entry: Entry): string | null => {
  try {
    state.check(entry)
    return null
  } catch (error) {
    return error instanceof StoreError ? error.code : String(error)
  }
}

const made: Entry = { type: 'vdi', vdi: vdi({ vid: 7, name: 'a' }) }
const snapped: Entry = { type: 'snapshot', vid: 7, newVid: 8, tag: 'first', at: 50 }

describe('the state of the cluster', () => {
  it('tells by which entry a VDI was frozen, through snapshots of several and what stands for the whole state', () => {
    const state = stateOf(
      made,
      snapped,
      { type: 'snapshots', at: 60, of: [{ vid: 8, newVid: 9, tag: 'second' }] },
      { type: 'retag', vid: 7, tag: 'third' },
      { type: 'delete', vid: 8 },
    )
    const frozen = (of: ClusterState) => [7, 8, 9].map((vid) => of.vdis.get(vid)!.frozenBy)
    expect(frozen(state)).toEqual([2, 3, undefined])
    const again = stateOf(made)
    again.apply(90, { type: 'state', entries: state.snapshotEntries() })
    expect(frozen(again)).toEqual([2, 3, undefined])
  })

  it('takes for a snapshot of an earlier version an entry from when it was one', () => {
    const state = new ClusterState()
    state.apply(12, { type: 'vdi', vdi: vdi({ vid: 7, name: 'a', tag: 'old', snapshotAt: 5 }) })
    expect(state.vdis.get(7)!.frozenBy).toBe(12)
  })

  it('finds a working VDI by its name, and snapshots by tag or number', () => {
    const state = stateOf(made, snapped, { type: 'snapshot', vid: 8, newVid: 9, tag: 'second', at: 60 })
    expect(state.find('a')).toMatchObject({ vid: 9, snapId: 3, parentVid: 8, family: 7, createdAt: 60, snapshotAt: 0 })
    expect(state.find('a', { tag: 'first' })).toMatchObject({ vid: 7, snapId: 1, tag: 'first', snapshotAt: 50 })
    expect(state.find('a', { snapId: 2 })).toMatchObject({ vid: 8, tag: 'second' })
    expect(() => state.find('a', { tag: 'third' })).toThrow(expect.objectContaining({ code: 'NoTag' }))
    expect(() => state.find('a', { snapId: 3 })).toThrow(expect.objectContaining({ code: 'NoTag' })) // the working one
    expect(() => state.find('b')).toThrow(expect.objectContaining({ code: 'NoVdi' }))
    expect(state.vdis.snapshotsOf('a').map(({ vid }) => vid)).toEqual([7, 8])
  })

  it('does not show a deleted VDI, but keeps it in its family until it is reclaimed', () => {
    const state = stateOf(made, snapped, { type: 'delete', vid: 7 })
    expect(() => state.get(7)).toThrow(expect.objectContaining({ code: 'NoVdi' }))
    expect(() => state.find('a', { tag: 'first' })).toThrow(expect.objectContaining({ code: 'NoTag' }))
    expect(state.vdis.ofFamily(7).map(({ vid }) => vid)).toEqual([7, 8])
    expect(state.vdis.of('a').map(({ vid }) => vid)).toEqual([8])
    state.apply(4, { type: 'reclaimed', vid: 7 })
    expect(state.vdis.ofFamily(7).map(({ vid }) => vid)).toEqual([8])
    state.apply(5, { type: 'delete', vid: 8 })
    state.apply(6, { type: 'reclaimed', vid: 8 })
    expect(() => state.find('a')).toThrow(expect.objectContaining({ code: 'NoVdi' }))
    expect(state.vdis.ofFamily(7)).toEqual([])
  })

  it('lets a name be used again at once when its VDI is deleted', () => {
    const state = stateOf(made)
    expect(refusal(state, { type: 'vdi', vdi: vdi({ vid: 20, name: 'a' }) })).toBe('VdiExists')
    state.apply(2, { type: 'delete', vid: 7 })
    expect(refusal(state, { type: 'vdi', vdi: vdi({ vid: 20, name: 'a' }) })).toBeNull()
    expect(refusal(state, { type: 'vdi', vdi: vdi({ vid: 7, name: 'a' }) })).toBe('VdiExists') // its vid is not free yet
  })

  it('adds up what working VDIs promise', () => {
    const state = stateOf(made, snapped, { type: 'resize', vid: 8, sizeBytes: 300 })
    expect(state.vdis.provisionedBytes).toBe(300)
    state.apply(4, { type: 'delete', vid: 8 })
    expect(state.vdis.provisionedBytes).toBe(0)
  })

  it('gives a VDI the first free vid from the hash of its name on', () => {
    const first = vidOfName('a')
    const state = stateOf({ type: 'vdi', vdi: vdi({ vid: first, name: 'x' }) })
    expect(state.vdis.freeVid('a')).toBe(first + 1)
    expect(new VdiTable().freeVid('a')).toBe(first)
  })

  it('sets a vid aside for a VDI that is about to be made, until it is, or is not', () => {
    const first = vidOfName('a')
    const making: Entry = { type: 'making', making: { vid: first, family: first } }
    const state = stateOf(making)
    expect(state.freeVid('a')).toBe(first + 1)
    expect(refusal(state, making)).toBe('VdiExists')
    const short = new ClusterState()
    for (const entry of state.snapshotEntries()) short.apply(state.index, entry)
    expect(short.makings).toEqual(state.makings)
    expect(state.snapshotEntries()).toHaveLength(state.liveEntries)
    const isMade = stateOf(making, { type: 'vdi', vdi: vdi({ vid: first, name: 'a' }) })
    expect(isMade.makings.size).toBe(0)
    expect(refusal(isMade, making)).toBe('VdiExists')
    const goesOn = { type: 'making', making: { vid: 8, family: 7 } } as const
    expect(stateOf(made, goesOn, snapped).makings.size).toBe(0)
    expect(stateOf(making, { type: 'unmade', vid: first }).freeVid('a')).toBe(first)
  })

  it('goes round at the highest vid, past 0, which means no VDI', () => {
    const hash = vidOfName('a')
    const taken = (has: (vid: number) => boolean) => Object.assign(new VdiTable(), { has })
    expect(taken((vid) => vid >= hash).freeVid('a')).toBe(1)
    expect(taken((vid) => vid >= hash || vid < 5).freeVid('a')).toBe(5)
    expect(() => taken(() => true).freeVid('a')).toThrow(expect.objectContaining({ code: 'FullVdi' }))
  })

  const refusals: [string, Entry[], Entry, string][] = [
    ['a VDI without a name', [], { type: 'vdi', vdi: vdi({ vid: 7, name: '' }) }, 'InvalidParameters'],
    ['a name with a NUL', [], { type: 'vdi', vdi: vdi({ vid: 7, name: 'a\0' }) }, 'InvalidParameters'],
    ['a name of 256 bytes', [], { type: 'vdi', vdi: vdi({ vid: 7, name: 'ä'.repeat(128) }) }, 'InvalidParameters'],
    [
      'a size that is no number',
      [],
      { type: 'vdi', vdi: vdi({ vid: 7, name: 'a', sizeBytes: Number.NaN }) },
      'InvalidParameters',
    ],
    ['a size below 0', [], { type: 'vdi', vdi: vdi({ vid: 7, name: 'a', sizeBytes: -1 }) }, 'InvalidParameters'],
    ['a size above 4 TiB', [made], { type: 'resize', vid: 7, sizeBytes: VDI_SIZE_MAX_BYTES + 1 }, 'InvalidParameters'],
    ['shrinking', [made], { type: 'resize', vid: 7, sizeBytes: 99 }, 'InvalidParameters'],
    ['a new size of a snapshot', [made, snapped], { type: 'resize', vid: 7, sizeBytes: 200 }, 'ReadOnly'],
    ['a snapshot of a snapshot', [made, snapped], { ...snapped, newVid: 9, tag: 'x' }, 'ReadOnly'],
    ['a tag that is taken', [made, snapped], { ...snapped, vid: 8, newVid: 9 }, 'VdiExists'],
    ['a tag of 256 bytes', [made], { ...snapped, tag: 'x'.repeat(256) }, 'InvalidParameters'],
    ['a snapshot of nothing', [], snapped, 'NoVdi'],
    [
      'deleting what is exported',
      [made, { type: 'export', right: right({ vid: 7 }) }],
      { type: 'delete', vid: 7 },
      'VdiInUse',
    ],
    ['deleting twice', [made, { type: 'delete', vid: 7 }], { type: 'delete', vid: 7 }, 'NoVdi'],
    ['an export of a snapshot', [made, snapped], { type: 'export', right: right({ vid: 7 }) }, 'ReadOnly'],
    ['an export of nothing', [], { type: 'export', right: right({ vid: 7 }) }, 'NoVdi'],
    [
      'an export under the name of another attachment',
      [made, { type: 'export', right: right({ vid: 7 }) }],
      { type: 'export', right: right({ vid: 7, attachmentId: 'two' }) },
      'InvalidParameters',
    ],
  ]
  it.each(refusals)('refuses %s', (_, before, entry, code) => {
    expect(refusal(stateOf(...before), entry)).toBe(code)
  })

  it('keeps one right for each attachment, which follows the working VDI', () => {
    const second = right({ vid: 7, nameHash: 'cd'.repeat(32), readOnly: true })
    const state = stateOf(made, { type: 'export', right: right({ vid: 7 }) }, { type: 'export', right: second })
    expect(state.exports.byHash('ab'.repeat(32))).toBeUndefined()
    expect(state.exports.byHash('cd'.repeat(32))).toEqual(second)
    state.apply(4, snapped)
    expect(state.exports.byHash('cd'.repeat(32))).toEqual({ ...second, vid: 8 })
    expect(state.exports.of(7)).toEqual([])
    state.apply(5, { type: 'unexport', attachmentId: 'one' })
    expect(state.exports.size + state.exports.of(8).length).toBe(0)
    expect(state.exports.byHash('cd'.repeat(32))).toBeUndefined()
  })

  it('goes back to a snapshot under a new vid, with its rights and attributes', () => {
    const attribute = newAttribute(1n << 61n, { key: 'k', valueBytes: 1, createdAt: 1 })
    const state = stateOf(
      made,
      snapped,
      { type: 'export', right: right({ vid: 8 }) },
      { type: 'attribute', vid: 8, attribute },
      { type: 'header', vid: 8, header: { tag: 'next', vmStateBytes: 1, vmClockNsec: '1' } },
    )
    const rollback: Entry = { type: 'rollback', vid: 8, newVid: 9, snapshotVid: 7, at: 300 }
    expect(refusal(state, rollback)).toBeNull()
    state.apply(6, rollback)
    expect(state.vdis.get(8)?.deleting).toBe(true)
    expect(state.find('a')).toMatchObject({ vid: 9, parentVid: 7, snapId: 2, createdAt: 300 })
    expect(state.find('a').header).toBeUndefined()
    expect([state.exports.of(9).length, state.attributes.of(9)]).toEqual([1, [attribute]])
    expect(refusal(state, { ...rollback, vid: 9, newVid: 10, snapshotVid: 8 })).toBe('NoVdi')
    expect(refusal(state, { ...rollback, vid: 9, newVid: 10, snapshotVid: 9 })).toBe('NoTag')
    expect(refusal(state, { ...rollback, vid: 7, newVid: 10 })).toBe('ReadOnly')
  })

  it('never gives out the vid that stands for holes, and sees gaps before the last VDI of a name', () => {
    expect(stateOf().vdis.freeVid('a')).not.toBe(HOLE_VID)
    const hash = vidOfName('a')
    const state = stateOf(
      { type: 'vdi', vdi: vdi({ vid: hash, name: 'a' }) },
      { type: 'snapshot', vid: hash, newVid: hash + 2, tag: 'x', at: 1 },
    )
    expect([hash, hash + 1, hash + 2, hash + 3].map((vid) => state.vdis.isGap(vid))).toEqual([
      false,
      true,
      false,
      false,
    ])
  })

  it('lets one database drive it, and another only in the place of that one', () => {
    const state = stateOf({ type: 'driven', database: 'a', replaces: null })
    expect(state.drivenBy).toBe('a')
    expect(refusal(state, { type: 'driven', database: 'b', replaces: null })).toBe('VdiInUse')
    expect(refusal(state, { type: 'driven', database: 'b', replaces: 'a' })).toBeNull()
  })

  it('refuses a view that follows another one than the last, and voters that change by more than one', () => {
    const view = (epoch: number, voters: string[], members = voters): Entry => ({
      type: 'view',
      epoch,
      members: members.map((node) => ({ node, incarnation: 'x', address: node, zone: 0, vnodes: 1 })),
      voters,
      at: 5,
    })
    const state = stateOf(view(1, ['a']), view(2, ['a', 'b']), made, view(3, ['a', 'b', 'c']))
    expect(state.views.map(({ index }) => index)).toEqual([1, 2, 4])
    expect(state.view.voters).toEqual(['a', 'b', 'c'])
    expect(refusal(state, view(4, ['a', 'b'], ['a']))).toBeNull()
    expect(refusal(state, view(3, ['a', 'b']))).toBe('OldEpoch')
    expect(refusal(state, view(5, ['a', 'b']))).toBe('OldEpoch')
    expect(refusal(state, view(4, ['a', 'b', 'd']))).toBe('InvalidParameters')
    expect(refusal(state, view(4, []))).toBe('InvalidParameters')
    expect(refusal(state, view(4, ['a', 'b', 'c', 'c']))).toBe('InvalidParameters')
    expect(refusal(state, view(4, ['a', 'b'], ['a', 'a']))).toBe('InvalidParameters')
  })

  it('reads views of versions that knew one node only, whose voters no later ones need to follow', () => {
    const written = '{"type":"view","epoch":7,"members":[{"address":"h:7000","zone":3,"vnodes":128,"incarnation":"i"}]}'
    const state = stateOf()
    state.apply(9, decodeEntry(Buffer.from(written)))
    expect(state.view).toEqual({
      epoch: 7,
      members: [{ node: 'h:7000', incarnation: 'i', address: 'h:7000', zone: 3, vnodes: 128 }],
      voters: [],
      at: 0,
    })
    const next: Entry = { type: 'view', epoch: 8, members: [], voters: ['n'], at: 6 }
    expect(refusal(state, next)).toBeNull()
    expect(decodeEntry(encodeEntry(next))).toEqual(next)
  })

  it('is the same again after its entries in short', () => {
    const command = fc.record({
      kind: fc.constantFrom(
        ...[
          'vdi',
          'clone',
          'snapshot',
          'rollback',
          'resize',
          'delete',
          'reclaimed',
          'export',
          'unexport',
          'view',
          'limits',
        ],
        ...['header', 'vmstate', 'attribute', 'unattribute', 'lock', 'unlock', 'driven', 'founded', 'recovery'],
      ),
      pick: fc.nat(),
      name: fc.constantFrom('a', 'b', 'c'),
    })
    fc.assert(
      fc.property(fc.array(command, { maxLength: 60 }), (commands) => {
        const state = new ClusterState()
        for (const { kind, pick, name } of commands) {
          const entry = entryFor(state, kind, pick, name)
          if (entry && refusal(state, entry) === null) state.apply(state.index + 1, entry)
        }
        const short = new ClusterState()
        for (const entry of state.snapshotEntries()) short.apply(state.index, entry)
        expect(dump(short)).toEqual(dump(state))
        expect(countsOf(state)).toEqual(recount(state))
        expect(state.snapshotEntries()).toHaveLength(state.liveEntries)
      }),
    )
  })
})

function entryFor(state: ClusterState, kind: string, pick: number, name: string): Entry | null {
  const vdis = [...state.vdis.values()]
  const some = vdis[pick % Math.max(1, vdis.length)]
  switch (kind) {
    case 'vdi':
      return { type: 'vdi', vdi: vdi({ vid: state.vdis.freeVid(name), name, sizeBytes: pick % 1000 }) }
    case 'view':
      return {
        type: 'view',
        epoch: state.epoch + 1,
        members: [{ node: name, incarnation: name, address: name, zone: 0, vnodes: 1 }],
        voters: state.view.voters.length === 0 ? ['a'] : [...new Set([...state.view.voters, name])],
        at: pick,
        ...(some && { copies: [{ vid: some.vid, copies: 1 + (pick % 3) }] }),
      }
    case 'founded':
      return { type: 'founded', cluster: name, at: pick }
    case 'recovery':
      return { type: 'recovery', isPaused: pick % 2 === 0, bytesPerSecond: pick % 3 === 0 ? null : pick }
    case 'unexport':
      return { type: 'unexport', attachmentId: name }
    case 'limits':
      return { type: 'limits', attachmentId: name, limits: pick % 3 === 0 ? null : { totalIops: { perSecond: pick } } }
    case 'lock':
      return { type: 'lock', lock: { name, shared: pick % 2 === 0, hosts: ['h'] } }
    case 'unlock':
      return { type: 'unlock', name }
    case 'driven':
      return { type: 'driven', database: name, replaces: pick % 2 === 0 ? state.drivenBy : null }
  }
  if (!some) return null
  switch (kind) {
    case 'clone': {
      const vid = state.vdis.freeVid(name)
      return {
        type: 'vdi',
        vdi: vdi({ vid, name, parentVid: some.vid, family: some.family, sizeBytes: some.sizeBytes }),
      }
    }
    case 'snapshot':
      return {
        type: 'snapshot',
        vid: some.vid,
        newVid: state.vdis.freeVid(some.name),
        tag: `${name}${pick % 9}`,
        at: pick + 1,
      }
    case 'rollback': {
      const snapshots = state.vdis.snapshotsOf(some.name)
      const snapshotVid = snapshots[pick % Math.max(1, snapshots.length)]?.vid ?? 0
      return { type: 'rollback', vid: some.vid, newVid: state.vdis.freeVid(some.name), snapshotVid, at: pick + 1 }
    }
    case 'header':
      return { type: 'header', vid: some.vid, header: { tag: name, vmStateBytes: pick, vmClockNsec: `${pick}` } }
    case 'vmstate':
      return { type: 'vmstate', vid: some.vid, objects: pick % 10 }
    case 'attribute': {
      const known = state.attributes.get(some.vid, name)
      const oid = known ? attributeOid(known) : state.freeAttributeOid(some.name, { tag: '', snapId: 0 }, name)
      const attribute = newAttribute(oid, { key: name, valueBytes: pick % 100, createdAt: 1 })
      return { type: 'attribute', vid: some.vid, attribute }
    }
    case 'unattribute':
      return { type: 'unattribute', vid: some.vid, key: name }
    case 'resize':
      return { type: 'resize', vid: some.vid, sizeBytes: some.sizeBytes + (pick % 100) }
    case 'export':
      return { type: 'export', right: right({ vid: some.vid, attachmentId: name, nameHash: `${name}${pick % 5}` }) }
    case 'delete':
      return { type: 'delete', vid: some.vid }
    default:
      return some.deleting ? { type: 'reclaimed', vid: some.vid } : null
  }
}

/** What a state keeps count of. */
function countsOf({ vdis, exports }: ClusterState) {
  const { size, workingCount, snapshotCount, provisionedBytes } = vdis
  const rights = [...vdis.keys()].map((vid) => [vid, exports.countOf(vid), exports.of(vid)])
  return { size, workingCount, snapshotCount, provisionedBytes, rights }
}

function recount({ vdis, exports }: ClusterState): ReturnType<typeof countsOf> {
  const all = [...vdis.values()]
  const working = all.filter(({ deleting, snapshotAt }) => !deleting && snapshotAt === 0)
  const rightsTo = (vid: number) => [...exports.values()].filter((right) => right.vid === vid)
  return {
    size: all.length,
    workingCount: working.length,
    snapshotCount: all.filter(({ deleting, snapshotAt }) => !deleting && snapshotAt > 0).length,
    provisionedBytes: working.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    rights: all.map(({ vid }) => [vid, rightsTo(vid).length, rightsTo(vid)]),
  }
}

/** Everything that a state answers. */
function dump(state: ClusterState) {
  const vdis = [...state.vdis.values()].sort((a, b) => a.vid - b.vid)
  return {
    index: state.index,
    epoch: state.epoch,
    members: state.members,
    views: state.views,
    founded: state.founded,
    recovery: state.recovery,
    locks: new Set(state.locks.values()),
    attributes: new Set(state.attributes.all()),
    attributesOf: vdis.map(({ vid }) => new Set(state.attributes.of(vid))),
    vdis,
    names: ['a', 'b', 'c'].map((name) => new Set(state.vdis.of(name).map(({ vid }) => vid))),
    families: vdis.map(({ family }) => new Set(state.vdis.ofFamily(family).map(({ vid }) => vid))),
    drivenBy: state.drivenBy,
    exports: new Set(state.exports.values()),
    byHash: [...state.exports.values()].map(({ nameHash }) => state.exports.byHash(nameHash)?.attachmentId).sort(),
  }
}

describe('families of VDIs on several nodes', () => {
  const life = (node: string) => ({ node, incarnation: `${node}1` })
  const member = (node: string) => ({ ...life(node), address: `${node}:7000`, zone: 1, vnodes: 128 })
  const view = (epoch: number, ...nodes: string[]): Entry => ({
    type: 'view',
    epoch,
    members: nodes.map(member),
    voters: ['a'],
    at: 0,
  })
  const owned = (node: string, replaces: number | null = null): Entry => ({
    type: 'owner',
    family: 7,
    ...life(node),
    replaces,
  })

  it('have one owner, which is named again only when it is out of the view or has let go', () => {
    const state = stateOf(view(1, 'a', 'b'), owned('a'))
    expect(state.families.ownerOf(7)).toEqual({ family: 7, ...life('a'), index: 2 })
    expect(refusal(state, owned('b'))).toBe('OldEpoch')
    expect(refusal(state, owned('b', 2))).toBe('OldEpoch')
    const left = stateOf(view(1, 'a', 'b'), owned('a'), view(2, 'b'))
    expect(refusal(left, owned('b', 1))).toBe('OldEpoch')
    expect(refusal(left, owned('b', 2))).toBeNull()
    expect(refusal(left, owned('c', 2))).toBe('OldEpoch')
    const free = stateOf(view(1, 'a', 'b'), owned('a'), { type: 'disown', family: 7, index: 2 }, owned('b'))
    expect(free.families.ownerOf(7)).toMatchObject(life('b'))
  })

  it('keep the views in which copies may have been made that still count', () => {
    const state = stateOf(view(1, 'a', 'b'), owned('a'), ...[2, 3, 4].map((epoch) => view(epoch, 'a', 'b')))
    expect(state.viewsOf(7).map(({ epoch }) => epoch)).toEqual([1, 2, 3, 4])
    const clean: Entry = { type: 'clean', epoch: 3, families: [[7, 2]] }
    expect(refusal(state, { ...clean, families: [[7, 1]] })).toBe('OldEpoch')
    state.apply(6, clean)
    expect(state.viewsOf(7).map(({ epoch }) => epoch)).toEqual([3, 4])
    const many = stateOf(view(1, 'a'), owned('a'), ...Array.from({ length: 100 }, (_, i) => view(i + 2, 'a')))
    expect(many.viewsOf(7)).toHaveLength(101)
  })

  it('are forgotten with their last VDI', () => {
    const state = stateOf(view(1, 'a'), owned('a'), made, { type: 'delete', vid: 7 }, { type: 'reclaimed', vid: 7 })
    expect(state.families.ownerOf(7)).toBeNull()
    expect(state.families.uncleanSince(7)).toBeUndefined()
  })

  it('survive a log that is written anew', () => {
    const state = stateOf(view(1, 'a', 'b'), owned('a'), made, view(2, 'b'), {
      type: 'clean',
      epoch: 2,
      families: [[7, 2]],
    })
    const free = stateOf(view(1, 'a'), owned('a'), { type: 'disown', family: 7, index: 2 })
    for (const before of [state, free]) {
      const after = new ClusterState()
      for (const entry of before.snapshotEntries()) after.apply(before.index, entry)
      expect(after.families).toEqual(before.families)
      expect(after.viewsOf(7)).toEqual(before.viewsOf(7))
    }
  })

  it('an attachment names the gateway that opened it last', () => {
    const state = stateOf(made, { type: 'export', right: right({ vid: 7 }) })
    state.apply(3, { type: 'gateway', attachmentId: 'one', ...life('a') })
    expect(state.exports.get('one')?.gateway).toEqual({ ...life('a'), opening: 3 })
    expect(refusal(state, { type: 'gateway', attachmentId: 'two', ...life('a') })).toBe('NoExport')
  })
})
