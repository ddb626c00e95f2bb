import { describe, expect, it } from 'vitest'
import { deferred } from '../../../src/sheep/copies/deferred.ts'
import { OwnedObject, OwnedObjects, PendingWrite } from '../../../src/sheep/copies/owned-object.ts'
import type { Member } from '../../../src/sheep/membership/view.ts'

const member = (node: string): Member => ({ node, incarnation: `${node}.1`, address: node, zone: 0, vnodes: 1 })

describe('the objects that an owner keeps', () => {
  it('are those that were used lately, and those in use however many they are', async () => {
    const objects = new OwnedObjects(2)
    const end = deferred()
    const busy = [1n, 2n, 3n].map((oid) => objects.use(oid, true, () => end.promise))
    for (const oid of [4n, 5n]) await objects.use(oid, true, async () => {})
    const known = () => [...{ [Symbol.iterator]: () => objects[Symbol.iterator]() }].map(({ oid }) => oid)
    expect(known()).toEqual([1n, 2n, 3n])
    end.resolve()
    await Promise.all(busy)
    expect(known()).toEqual([2n, 3n])
    await objects.use(6n, true, async () => {}) // all that are left were looked at then
    await objects.use(3n, true, async () => {})
    await objects.use(7n, true, async () => {})
    expect(known().sort()).toEqual([3n, 7n])
  })

  it('do not believe that the map names what is being removed', async () => {
    const objects = new OwnedObjects(2)
    await objects.use(1n, true, async (object) => {
      object.exists = false
      object.removals++
      await objects.use(1n, true, async (late) => expect(late.exists).toBe(false))
      object.removals--
    })
    await objects.use(1n, true, async (object) => expect(object.exists).toBe(true))
  })

  it('keep one that has a write under way, whoever waits for it', async () => {
    const objects = new OwnedObjects(1)
    await objects.use(1n, true, async (object) => {
      const version = { generation: { epoch: 1, index: 1, incarnation: 'a' }, sequence: 1 }
      object.pending.push(new PendingWrite({ contents: null, base: null, durable: true }, version, () => {}))
    })
    await objects.use(2n, true, async () => {})
    await objects.use(3n, true, async () => {})
    expect(objects.find(1n)).toBeDefined()
    expect(objects.find(2n)).toBeUndefined()
  })
})

describe('who is asked for a range', () => {
  const objectOf = (missing: Record<string, [number, number][]>) => {
    const object = new OwnedObject(1n, true)
    for (const [node, ranges] of Object.entries(missing))
      object.acting.set(node, { member: member(node), missing: ranges.map(([first, count]) => ({ first, count })) })
    return object
  }
  const sources = (object: OwnedObject, first: number, count: number, { turn = 0, near = '' } = {}) =>
    object
      .sourcesOf({ first, count }, { turn, near })
      ?.map(({ member: { node }, range }) => `${node} ${range.first}+${range.count}`)

  it('is each copy in turn that has all of it', () => {
    const object = objectOf({ A: [], B: [], C: [[5, 1]] })
    expect([0, 1, 2, 3].map((turn) => sources(object, 4, 3, { turn }))).toEqual([
      ['A 4+3'],
      ['B 4+3'],
      ['A 4+3'],
      ['A 4+3'],
    ])
  })

  it('is the copy nearby, if it has all of it', () => {
    const object = objectOf({ A: [], B: [], C: [[5, 1]] })
    expect([0, 1].map((turn) => sources(object, 0, 3, { turn, near: 'B.1' }))).toEqual([['B 0+3'], ['B 0+3']])
    expect(sources(object, 4, 3, { turn: 1, near: 'C.1' })).toEqual(['B 4+3'])
  })

  it('are several when each of them lacks another part, and nobody when all lack the same', () => {
    const object = objectOf({
      A: [[2, 1]],
      B: [
        [0, 1],
        [4, 2],
      ],
    })
    expect(sources(object, 0, 6)).toEqual(['A 0+2', 'B 2+2', 'A 4+2'])
    expect(sources(objectOf({ A: [[2, 1]], B: [[2, 3]] }), 0, 6)).toBeUndefined()
  })
})
