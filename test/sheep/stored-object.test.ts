import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  BLOCKS_PER_OBJECT,
  dataWord1,
  entryState,
  type InheritRun,
  zeroWord0,
  zeroWord1,
} from '../../src/sheep/object-format.ts'
import { NO_PAYLOAD, type OverlayEntry, StoredObject } from '../../src/sheep/stored-object.ts'

const OWN = 9
const EPOCH = 3
const oid = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
const block = fc.nat(BLOCKS_PER_OBJECT - 1)
const runs = fc.array(
  fc.record({
    first: block,
    count: fc.integer({ min: 1, max: BLOCKS_PER_OBJECT }),
    holderVid: fc.integer({ min: 1, max: 2 ** 24 - 1 }),
  }),
  { maxLength: 5 },
)
/** Blocks that have changed since: to data or to zeros. */
const changes = fc.array(fc.tuple(block, fc.boolean()), { maxLength: 20 })

function newObject(id: bigint, inherited: readonly InheritRun[], changed: readonly [number, boolean][]): StoredObject {
  const object = new StoredObject(id)
  object.begin(
    EPOCH,
    inherited.map((run) => ({ ...run, count: Math.min(run.count, BLOCKS_PER_OBJECT - run.first) })),
  )
  for (const [at, isData] of changed) object.overlay.set(at, entryOf(object, at, isData))
  return object
}

function entryOf(object: StoredObject, at: number, isData: boolean): OverlayEntry {
  const word1 = isData ? dataWord1(EPOCH, 1) : zeroWord1(EPOCH)
  const word0 = isData ? 12345 : zeroWord0(object.words, at, word1)
  const rest = {
    location: NO_PAYLOAD,
    freesOtherSlot: true,
    placedSlots: 0,
    generation: 1,
    sequence: 1,
    previous: null,
  }
  return { word0, word1, ...rest }
}

/** Block by block, as a reader sees it. */
function holdersByLooking(object: StoredObject): number[] {
  return Array.from({ length: BLOCKS_PER_OBJECT }, (_, at) => {
    const { word0, word1 } = object.overlay.get(at) ?? {
      word0: object.table![at * 2]!,
      word1: object.table![at * 2 + 1]!,
    }
    const state = entryState(object.words, at, word0, word1)
    return state === 'data' ? OWN : state === 'inherit' ? word0 : 0
  })
}

describe('the holders of the blocks of an object', () => {
  it('are the same before and after it has got its table', () => {
    fc.assert(
      fc.property(oid, runs, changes, (id, inherited, changed) => {
        const object = newObject(id, inherited, changed)
        const slots = Array.from({ length: BLOCKS_PER_OBJECT }, (_, at) => object.tableSlot(at))
        const before = Uint32Array.from(object.holderVids(OWN) as Uint32Array)
        const expected = holdersByLooking(object) // makes the table
        expect([...before]).toEqual(expected)
        expect([...(object.holderVids(OWN) as Uint32Array)]).toEqual(expected)
        expect(Array.from({ length: BLOCKS_PER_OBJECT }, (_, at) => object.tableSlot(at))).toEqual(slots)
      }),
    )
  })

  it('are not told when an entry is damaged, but for one that was replaced since', () => {
    fc.assert(
      fc.property(oid, runs, block, fc.nat(63), fc.boolean(), (id, inherited, at, bit, isReplaced) => {
        const object = newObject(id, inherited, isReplaced ? [[at, true]] : [])
        const table = object.table!
        table[at * 2 + (bit >> 5)]! ^= 1 << (bit & 31)
        const seemsData = table[at * 2 + 1]! >>> 30 === 1 // which its bytes prove, or do not
        const holders = object.holderVids(OWN)
        if (isReplaced || seemsData) expect((holders as Uint32Array)[at]).toBe(OWN)
        else expect(holders).toBe(at)
      }),
    )
  })
})
