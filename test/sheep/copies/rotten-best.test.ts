import { describe, expect, it } from 'vitest'
import { CopiesBench, OID, view } from './copies-bench.ts'

/** The block that rots, and the one that is written later. */
const X = { first: 3, count: 1 }
const Y = { first: 5, count: 1 }

describe('a block that is rotten in the copy with the highest version', () => {
  it.each(['known', 'not known'])(
    'is read from another one of that epoch, when only the best one has a later write (rot is %s)',
    async (how) => {
      const copies = new CopiesBench()
      const one = view(1, 'ABC')
      const owner = copies.owner(one)
      await copies.run(copies.write(owner, X, 'x', false))
      await copies.run(copies.write(owner, Y, 'y'))
      copies.rot('A', X)
      if (how === 'known') await copies.read(owner, X)
      copies.isLost = (node, { type }) => type === 'write' && node !== 'A'
      void copies.write(owner, Y, 'z').catch(() => {})
      await copies.run(Promise.resolve())
      copies.isLost = () => false

      const next = copies.owner(one, view(2, 'ABC'))
      expect(await copies.read(next, X)).toBe('x')
      expect(await copies.read(next, Y)).toBe('z')
      await copies.recover(next)
      expect(await copies.read(copies.owner(one, view(2, 'ABC'), view(3, 'AB')), X)).toBe('x')
    },
  )
})

/** X is written to A and B, and Y to A and C while B is away. */
async function withoutB({ alsoX }: { alsoX: boolean }) {
  const copies = new CopiesBench()
  const views = [view(1, 'AB'), view(2, 'AC')]
  await copies.run(copies.write(copies.owner(views[0]!), X, 'x', false))
  const owner = copies.owner(...views)
  await copies.run(copies.write(owner, Y, 'y'))
  if (alsoX) await copies.run(copies.write(owner, X, 'later'))
  copies.rot('A', X)
  return { copies, views: [...views, view(3, 'AB')] }
}

describe('a block that is rotten in the only copy that is up to date', () => {
  it('is what an older copy has, if that matches its checksum', async () => {
    const { copies, views } = await withoutB({ alsoX: false })
    const owner = copies.owner(...views)
    expect(await copies.read(owner, X)).toBe('x')
    await copies.recover(owner)
    expect(copies.disks.get('A')!.describe(OID)).toBe(copies.disks.get('B')!.describe(OID))
  })

  it('is put right by recovery, too', async () => {
    const { copies, views } = await withoutB({ alsoX: false })
    const owner = copies.owner(...views)
    await copies.recover(owner)
    copies.isLost = (_node, { type }) => type === 'mend' || type === 'remains'
    expect(await copies.read(owner, X)).toBe('x')
  })

  it('is not what an older copy has when it was written since, but is when who has that is there again', async () => {
    const { copies, views } = await withoutB({ alsoX: true })
    await expect(copies.read(copies.owner(...views), X)).rejects.toMatchObject({ code: 'CorruptBlock' })
    expect(await copies.read(copies.owner(...views), Y)).toBe('y')
    expect(await copies.read(copies.owner(...views, view(4, 'ABC')), X)).toBe('later')
  })
})
