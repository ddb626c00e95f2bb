import { describe, expect, it } from 'vitest'
import { CopiesBench, OID, view } from './copies-bench.ts'

const X = { first: 3, count: 1 }
const Y = { first: 5, count: 1 }

describe('an object that was removed after somebody found it in the block map', () => {
  it.each(['by this owner', 'by the one before'])('%s is said to be gone, and can be made again', async (who) => {
    const copies = new CopiesBench()
    const first = copies.owner(view(1, 'ABC'))
    await copies.run(copies.write(first, X, 'x', false))
    await copies.run(first.remove(OID))
    const owner = who === 'by this owner' ? first : copies.owner(view(1, 'ABC'), view(2, 'ABC'))
    await expect(copies.run(owner.fill(OID, 64))).rejects.toMatchObject({ code: 'NoObject' })
    await copies.run(copies.write(owner, X, 'again', false))
    expect(await copies.read(owner, X)).toBe('again')
  })

  it('is gone though a copy that was away has it', async () => {
    const copies = new CopiesBench()
    const views = [view(1, 'ABC'), view(2, 'AB'), view(3, 'ABC')]
    await copies.run(copies.write(copies.owner(views[0]!), X, 'x', false))
    await copies.run(copies.owner(...views.slice(0, 2)).remove(OID))
    const owner = copies.owner(...views)
    await expect(copies.run(owner.fill(OID, 64))).rejects.toMatchObject({ code: 'NoObject' })
    await copies.run(copies.write(owner, X, 'again', false))
    expect(await copies.read(owner, X)).toBe('again')
  })

  it('is made anew when no map names it any more and nobody came to remove it', async () => {
    const copies = new CopiesBench()
    const owner = copies.owner(view(1, 'ABC'))
    await copies.run(copies.write(owner, X, 'old', false))
    await copies.run(copies.write(owner, Y, 'new', false))
    expect(await copies.read(owner, Y)).toBe('new')
    expect(await copies.read(owner, X)).toBe('')
  })
})
