import { describe, expect, it } from 'vitest'
import { deferred } from '../../../src/sheep/copies/deferred.ts'
import type { CopyRequest } from '../../../src/sheep/copies/messages.ts'
import { CopiesBench, OID, view } from './copies-bench.ts'

/* Interleavings that lose writes in stores like this one: docs/hazards.md. */

const X = { first: 3, count: 1 }
const Y = { first: 5, count: 1 }

/** An object that nodes A, B and C have, with `old` in a block of it. */
async function written() {
  const copies = new CopiesBench()
  const owner = copies.owner(view(1, 'ABC'))
  await copies.run(copies.write(owner, X, 'old', false))
  return { copies, owner }
}

/** Whether it has come to an end, either way. */
function watch(work: Promise<unknown>): { isOver: boolean } {
  const watched = { isOver: false }
  const over = () => {
    watched.isOver = true
  }
  work.then(over, over)
  return watched
}

const isWrite = ({ type }: CopyRequest) => type === 'write'

describe('an object whose newest copies are away', () => {
  it('waits for one of those who could know, though all who are there agree on something older', async () => {
    const { copies, owner } = await written()
    owner.end()
    const views = [view(1, 'ABC'), view(2, 'AB')]
    await copies.run(copies.write(copies.owner(...views), X, 'new'))
    const next = copies.owner(...views, view(3, 'CD'))
    const read = copies.readText(next, X)
    const watched = watch(read)
    await copies.pass(30_000)
    expect(watched.isOver).toBe(false)
    next.viewsChanged([...views, view(3, 'CD'), view(4, 'BCD')])
    expect(await copies.run(read)).toBe('new')
  })
})

describe('a copy that missed a write and is sent the next one', () => {
  it('is stale, on its disk, and is never taken for one that has both', async () => {
    const { copies, owner } = await written()
    copies.isLost = (node, request) => node === 'C' && isWrite(request)
    void copies.write(owner, X, 'first').catch(() => {})
    await copies.pass(10)
    copies.isLost = () => false
    const second = copies.write(owner, Y, 'second')
    await copies.pass(10)
    expect(copies.disks.get('C')!.copies.get(OID)?.kind).toBe('stale')
    await copies.run(second)
    owner.end()
    const next = copies.owner(view(1, 'ABC'), view(2, 'BC'))
    expect([await copies.read(next, X), await copies.read(next, Y)]).toEqual(['first', 'second'])
    await copies.recover(next)
    expect([copies.bytesOn('C', X), copies.bytesOn('C', Y)]).toEqual(['first', 'second'])
  })
})

describe('a write that only one node has, which was away while others went on', () => {
  it('is undone there, though what they wrote is elsewhere in the object', async () => {
    const { copies, owner: first } = await written()
    first.end()
    const views = [view(1, 'ABC'), view(2, 'ABC')]
    const owner = copies.owner(...views)
    await copies.run(copies.write(owner, Y, 'before'))
    copies.isLost = (node, request) => node !== 'B' && isWrite(request)
    void copies.write(owner, X, 'apart').catch(() => {})
    await copies.pass(10)
    owner.end()
    expect(copies.bytesOn('B', X)).toBe('apart')
    copies.isLost = () => false
    await copies.run(copies.write(copies.owner(...views, view(3, 'AC')), Y, 'on'))
    const next = copies.owner(...views, view(3, 'AC'), view(4, 'ABC'))
    await copies.recover(next)
    expect([copies.bytesOn('B', X), copies.bytesOn('B', Y)]).toEqual(['old', 'on'])
  })
})

describe('a write without an answer that only a node has which is away', () => {
  async function left() {
    const { copies, owner } = await written()
    copies.isLost = (node, request) => node !== 'B' && isWrite(request)
    void copies.write(owner, X, 'left').catch(() => {})
    await copies.pass(10)
    owner.end()
    copies.isLost = () => false
    return copies
  }
  const views = [view(1, 'ABC'), view(2, 'AC')]
  const back = [...views, view(3, 'ABC')]

  it('is undone by a read of what was there before, and does not come back with the node', async () => {
    const copies = await left()
    const next = copies.owner(...views)
    expect(await copies.read(next, X)).toBe('old')
    next.viewsChanged(back)
    expect(await copies.read(next, X)).toBe('old')
    await copies.recover(next)
    expect([...'ABC'].map((node) => copies.bytesOn(node, X))).toEqual(['old', 'old', 'old'])
  })

  it('is undone by that too when it is read beside writes, and answers are lost', async () => {
    const copies = await left()
    const next = copies.owner(...views)
    let lost = 3
    copies.isLost = (_node, { type }) => (type === 'adopt' || type === 'write') && lost-- > 0
    const [text] = await copies.run(Promise.all([copies.readText(next, X), copies.write(next, Y, 'beside')]))
    expect(text).toBe('old')
    next.viewsChanged(back)
    expect([await copies.read(next, X), await copies.read(next, Y)]).toEqual(['old', 'beside'])
    await copies.recover(next)
    expect([...'ABC'].map((node) => copies.bytesOn(node, X))).toEqual(['old', 'old', 'old'])
  })

  it.each(['the same owner', 'another one'])(
    'is undone, when %s says that all is clean without the node',
    async (who) => {
      const copies = await left()
      const first = copies.owner(...views)
      await copies.recover(first)
      const clean = [view(2, 'AC'), view(3, 'AC')]
      if (who === 'another one') first.end()
      const next = who === 'another one' ? copies.owner(...clean) : first
      next.viewsChanged(clean)
      expect(await copies.read(next, X)).toBe('old')
      next.viewsChanged([...clean, view(4, 'ABC')])
      expect(await copies.read(next, X)).toBe('old')
      await copies.recover(next)
      expect([...'ABC'].map((node) => copies.bytesOn(node, X))).toEqual(['old', 'old', 'old'])
    },
  )

  it('may come back when nobody has read there, nor written', async () => {
    const copies = await left()
    const next = copies.owner(...views)
    next.viewsChanged(back)
    expect(await copies.read(next, X)).toBe('left')
    await copies.recover(next)
    expect([...'ABC'].map((node) => copies.bytesOn(node, X))).toEqual(['left', 'left', 'left'])
  })
})

describe('a write of an owner that has been followed by another one', () => {
  it('is refused by all copies once that one has looked at them, though none knows of a later view', async () => {
    const { copies, owner } = await written()
    const next = copies.owner(view(1, 'ABC'))
    expect(await copies.read(next, X)).toBe('old')
    copies.isLost = (node, request) => node !== 'C' && isWrite(request)
    const late = watch(copies.write(owner, X, 'late'))
    await copies.pass(5000)
    expect([late.isOver, copies.bytesOn('C', X)]).toEqual([false, 'old'])
  })
})

describe('a read beside a write that some copies have', () => {
  it('waits for it, so that no later read shows what was before', async () => {
    const { copies, owner } = await written()
    const arrived = deferred()
    copies.delay = (node, request) => (node === 'C' && isWrite(request) ? arrived.promise : null)
    const write = copies.write(owner, X, 'new')
    await copies.pass(10)
    expect(copies.bytesOn('A', X)).toBe('new')
    const reads = [copies.readText(owner, X), copies.readText(owner, X), copies.readText(owner, X)]
    const watched = reads.map(watch)
    await copies.pass(5000)
    expect(watched.map(({ isOver }) => isOver)).toEqual([false, false, false])
    arrived.resolve()
    await copies.run(write)
    expect(await copies.run(Promise.all(reads))).toEqual(['new', 'new', 'new'])
  })
})

describe('a write while there are fewer copies than it takes', () => {
  it('is not acknowledged before there is another one, which need not have the rest of the object by then', async () => {
    const { copies, owner } = await written()
    owner.end()
    const views = [view(1, 'ABC'), view(2, 'A')]
    const alone = copies.owner(...views)
    const write = copies.write(alone, Y, 'new')
    const watched = watch(write)
    await copies.pass(30_000)
    expect(watched.isOver).toBe(false)
    alone.viewsChanged([...views, view(3, 'AD')])
    await copies.run(write)
    expect([copies.bytesOn('D', Y), copies.bytesOn('D', X)]).toEqual(['new', ''])
  })
})

describe('what recovery has read', () => {
  it('does not replace what was written before it gets to the copy that lacks it', async () => {
    const { copies, owner } = await written()
    await copies.run(copies.write(owner, Y, 'later')) // which says that the one before is everywhere
    owner.end()
    const next = copies.owner(view(1, 'ABC'), view(2, 'ABCD'))
    await copies.read(next, Y)
    expect(copies.bytesOn('D', X)).toBe('')
    const arrived = deferred()
    copies.delay = (_node, { type }) => (type === 'read' ? arrived.promise : null)
    const filled = next.fill(OID, 64)
    await copies.pass(10)
    await copies.run(copies.write(next, X, 'new'))
    arrived.resolve()
    await copies.run(filled)
    copies.delay = () => null
    await copies.recover(next)
    expect([...'ABCD'].map((node) => copies.bytesOn(node, X))).toEqual(['new', 'new', 'new', 'new'])
  })
})

describe('an object all of whose targets are new', () => {
  it('is read from those who had it, and they have what is written until the others are whole', async () => {
    const { copies, owner } = await written()
    owner.end()
    copies.targetsIn = ({ epoch }) => [...(epoch === 2 ? 'DEF' : 'ABC')]
    const views = [view(1, 'ABC'), view(2, 'ABCDEF')]
    const moved = copies.owner(...views)
    expect(await copies.read(moved, X)).toBe('old')
    await copies.run(copies.write(moved, Y, 'new'))
    moved.end()
    const back = copies.owner(...views, view(3, 'ABC'))
    expect([await copies.read(back, X), await copies.read(back, Y)]).toEqual(['old', 'new'])
  })
})

describe('a write for which one copy has no room', () => {
  it('is nowhere, and does not appear later', async () => {
    const { copies, owner } = await written()
    copies.disks.get('C')!.freeBlocks = 0
    await expect(copies.run(copies.write(owner, Y, 'too much'))).rejects.toMatchObject({ code: 'NoSpace' })
    expect([...'ABC'].map((node) => copies.bytesOn(node, Y))).toEqual(['', '', ''])
    await copies.run(copies.write(owner, X, 'over'))
    owner.end()
    const next = copies.owner(view(1, 'ABC'), view(2, 'AB'))
    expect([await copies.read(next, Y), await copies.read(next, X)]).toEqual(['', 'over'])
  })
})
