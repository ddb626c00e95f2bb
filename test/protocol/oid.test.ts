import fc from 'fast-check'
import { expect, it } from 'vitest'
import { attrOid, dataOid, formatOid, inodeOid, oidIndex, oidKind, oidVid, vmstateOid } from '../../src/protocol/oid.ts'

it('places the kind, the vid and the index as upstream does', () => {
  expect(formatOid(inodeOid(0x7c2b25))).toBe('807c2b2500000000')
  expect(formatOid(dataOid(0x7c2b25, 5))).toBe('007c2b2500000005')
  expect(formatOid(vmstateOid(0x7c2b25, 1))).toBe('407c2b2500000001')
  expect(formatOid(attrOid(0x7c2b25, 0xdeadbeef))).toBe('207c2b25deadbeef')
})

it('reads back what it built', () => {
  const vids = fc.integer({ min: 0, max: 0xffffff })
  const indexes = fc.integer({ min: 0, max: 0xffffffff })
  fc.assert(
    fc.property(vids, indexes, (vid, index) => {
      for (const [kind, oid] of [
        ['data', dataOid(vid, index)],
        ['vmstate', vmstateOid(vid, index)],
        ['attr', attrOid(vid, index)],
      ] as const) {
        expect([oidKind(oid), oidVid(oid), oidIndex(oid)]).toEqual([kind, vid, index])
      }
      expect([oidKind(inodeOid(vid)), oidVid(inodeOid(vid)), oidIndex(inodeOid(vid))]).toEqual(['inode', vid, 0])
    }),
  )
})

it('knows the kinds that upstream has and Collie does not make', () => {
  expect(oidKind(0x107c2b2500000000n)).toBe('btree')
  expect(oidKind(0x087c2b2500000005n)).toBe('ledger')
})

it('has no kind for ids with bits that mean nothing', () => {
  expect(oidKind(0x017c2b2500000000n)).toBeNull()
  expect(oidKind(0x847c2b2500000000n)).toBeNull()
})
