import { describe, expect, it } from 'vitest'
import { dataOid } from '../../../src/protocol/oid.ts'
import { CopyHolder } from '../../../src/sheep/copies/copy-holder.ts'
import { CopySequencer } from '../../../src/sheep/copies/copy-sequencer.ts'
import type { CopyRequest } from '../../../src/sheep/copies/messages.ts'
import type { Member, View } from '../../../src/sheep/membership/view.ts'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import { SimClock } from '../../sim/clock.ts'
import { SeededRandom } from '../../sim/random.ts'
import { SimCopyDisk, SimCopyStore } from './sim-copy-store.ts'

const VID = 7
const OID = dataOid(VID, 1)
/** The block that rots, and the one that is written later. */
const X = { first: 3, count: 1 }
const Y = { first: 5, count: 1 }

const member = (node: string): Member => ({ node, incarnation: `${node}.1`, address: node, zone: 0, vnodes: 1 })
const view = (epoch: number, nodes: string): View => ({
  epoch,
  members: [...nodes].map(member),
  voters: [...nodes],
  at: 0,
})

/** Nodes A to D, of whom those in a view are all targets, and owners that follow each other. */
class Copies {
  readonly #random = new SeededRandom(1)
  readonly #root = new SimClock(this.#random)
  readonly #clock = this.#root.mount()
  readonly disks = new Map([...'ABCD'].map((node) => [node, new SimCopyDisk(this.#random)]))
  readonly #holders = new Map(
    [...this.disks].map(([node, disk]) => [node, new CopyHolder(new SimCopyStore(disk, this.#clock, this.#random, 2))]),
  )
  #index = 0
  /** Requests that are lost on their way. */
  isLost = (_node: string, _request: CopyRequest) => false

  owner(...views: View[]): CopySequencer {
    return new CopySequencer({
      vid: VID,
      index: ++this.#index,
      incarnation: 'A.1',
      views,
      copiesMinIn: () => 2,
      targetsOf: (_oid, { members }) => members.map(({ node }) => node),
      ask: (to, request) =>
        this.isLost(to.node, request)
          ? Promise.reject(new Error('no answer'))
          : this.#holders.get(to.node)!.answer(request),
      mayAct: () => true,
      suspect: () => {},
      clock: this.#clock,
    })
  }

  run<T>(work: Promise<T>): Promise<T> {
    return this.#root.run(work)
  }

  rot(node: string): void {
    const disk = this.disks.get(node)!
    disk.rotten.add(disk.bytesOf(OID, X.first)!)
  }

  write(owner: CopySequencer, { first }: { first: number }, text: string, exists = true): Promise<void> {
    const bytes = Buffer.alloc(BLOCK_BYTES)
    bytes.write(text)
    return owner.write(OID, { blocks: [{ first, bytes }], zeros: [] }, { exists })
  }

  async read(owner: CopySequencer, range: { first: number; count: number }): Promise<string> {
    const { blocks } = await this.run(owner.read(OID, range))
    return blocks.map(({ bytes }) => bytes.toString().replaceAll('\0', '')).join()
  }

  /** Until the copies of all targets are whole. */
  async recover(owner: CopySequencer): Promise<void> {
    while (!owner.isComplete(OID)) await this.run(owner.fill(OID, 64))
  }
}

describe('a block that is rotten in the copy with the highest version', () => {
  it.each(['known', 'not known'])(
    'is read from another one of that epoch, when only the best one has a later write (rot is %s)',
    async (how) => {
      const copies = new Copies()
      const one = view(1, 'ABC')
      const owner = copies.owner(one)
      await copies.run(copies.write(owner, X, 'x', false))
      await copies.run(copies.write(owner, Y, 'y'))
      copies.rot('A')
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
  const copies = new Copies()
  const views = [view(1, 'AB'), view(2, 'AC')]
  await copies.run(copies.write(copies.owner(views[0]!), X, 'x', false))
  const owner = copies.owner(...views)
  await copies.run(copies.write(owner, Y, 'y'))
  if (alsoX) await copies.run(copies.write(owner, X, 'later'))
  copies.rot('A')
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
