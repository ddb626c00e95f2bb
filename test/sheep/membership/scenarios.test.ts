import { describe, expect, it } from 'vitest'
import { type MembershipBreak, MembershipModel } from './membership-model.ts'

/** What an operator sees: named faults, one at a time, in virtual time. */
async function play(
  nodes: number,
  scenario: (cluster: Scene) => Promise<void>,
  { strangers = 0, seeds = 3, broken = {} as MembershipBreak } = {},
): Promise<void> {
  for (let seed = 1; seed <= seeds; seed++) {
    const scene = new Scene(seed, broken, nodes, strangers)
    await scene.play(() => scenario(scene))
  }
}

class Scene extends MembershipModel {
  get names(): string[] {
    return this.newest().members.map(({ node }) => node)
  }

  get voters(): string[] {
    return [...this.newest().voters].sort()
  }

  node(name: string) {
    return this.nodes.find((node) => node.name === name)!
  }

  membership(name: string) {
    return this.peer(this.node(name))!.membership
  }

  mayAct(...names: string[]): boolean[] {
    return names.map((name) => this.peer(this.node(name))?.membership.mayAct() ?? false)
  }

  async up(...names: string[]): Promise<void> {
    await Promise.all(names.map((name) => this.start(this.node(name))))
  }

  down(...names: string[]): void {
    for (const name of names) this.kill(this.node(name))
  }

  sleep(ms: number): Promise<void> {
    return this.clock.sleep(ms)
  }

  /** Virtual milliseconds until it is so; fails when that takes longer than it may. */
  async until(isSo: () => boolean, withinMs: number): Promise<number> {
    const beganMs = this.clock.monotonicMs()
    while (!isSo()) {
      expect(this.clock.monotonicMs() - beganMs, this.describe()).toBeLessThan(withinMs)
      await this.clock.sleep(10)
    }
    return this.clock.monotonicMs() - beganMs
  }

  cutApart(...sides: string[][]): void {
    this.cut(sides)
  }

  mend(): void {
    this.heal()
  }

  stopProcess(name: string): void {
    this.stop(this.node(name))
  }

  goOn(name: string): void {
    this.resume(this.node(name))
  }
}

const TIMEOUT = { timeout: 600_000 }

describe('a cluster', () => {
  it('is founded by one node, and others come in', TIMEOUT, () =>
    play(3, async (cluster) => {
      await cluster.up('n1')
      await cluster.settled(10_000)
      expect([cluster.names, cluster.voters]).toEqual([['n1'], ['n1']])
      await cluster.up('n2', 'n3')
      await cluster.settled(10_000)
      await cluster.until(() => cluster.voters.length === 3, 10_000)
      expect([cluster.names, cluster.voters]).toEqual([
        ['n1', 'n2', 'n3'],
        ['n1', 'n2', 'n3'],
      ])
      expect(cluster.membership('n2').cluster).toBe('ours')
    }),
  )

  it('has nothing to do with another one in the same group, and both say so', TIMEOUT, () =>
    play(
      5,
      async (cluster) => {
        await cluster.up('n1', 'n2', 'n3', 'n4', 'n5')
        await cluster.settled(20_000)
        expect(cluster.names).toEqual(['n1', 'n2', 'n3'])
        expect(cluster.newest('theirs').members.map(({ node }) => node)).toEqual(['n4', 'n5'])
        for (const [name, other] of [
          ['n2', 'theirs'],
          ['n5', 'ours'],
        ] as const) {
          const { strangers } = cluster.peer(cluster.node(name))!
          expect(new Set(strangers)).toEqual(
            new Set([`it is of cluster ${other}, and this node is of ${other === 'ours' ? 'theirs' : 'ours'}`]),
          )
        }
      },
      { strangers: 2 },
    ),
  )

  it('goes on within seconds when a member is gone, whoever it is', TIMEOUT, () =>
    play(3, async (cluster) => {
      await settle(cluster)
      for (const name of cluster.names) {
        const others = cluster.names.filter((other) => other !== name)
        cluster.down(name)
        await cluster.until(() => !cluster.names.includes(name), EVICTION_MS)
        await cluster.until(() => cluster.mayAct(...others).every(Boolean), 500)
        await cluster.up(name)
        await cluster.until(() => cluster.names.includes(name) && cluster.mayAct(name)[0]!, 5000)
      }
    }),
  )

  it('goes on within seconds when a member stands still, which the group does not see', TIMEOUT, () =>
    play(3, async (cluster) => {
      await settle(cluster)
      for (const name of cluster.names) {
        cluster.stopProcess(name)
        await cluster.until(() => !cluster.names.includes(name), EVICTION_MS)
        await cluster.sleep(60_000)
        cluster.goOn(name)
        expect(cluster.mayAct(name)).toEqual([false])
        await cluster.until(() => cluster.names.includes(name) && cluster.mayAct(name)[0]!, 5000)
        expect(cluster.peer(cluster.node(name))!.leasesLost).toBe(1)
      }
    }),
  )

  it(
    'goes on within seconds when the store of a member stands still, and takes it back when that goes on',
    TIMEOUT,
    () =>
      play(3, async (cluster) => {
        await settle(cluster)
        for (const name of cluster.names) {
          const { life } = cluster.membership(name)
          cluster.hang(cluster.node(name))
          await cluster.until(() => !cluster.names.includes(name), EVICTION_MS)
          await cluster.sleep(20_000)
          expect(cluster.names).not.toContain(name)
          cluster.unhang(cluster.node(name))
          await cluster.until(() => cluster.names.includes(name) && cluster.mayAct(name)[0]!, 5000)
          expect(cluster.membership(name).life).not.toEqual(life)
        }
      }),
  )

  it('puts out one of two members that do not reach each other, until they do', TIMEOUT, () =>
    play(3, async (cluster) => {
      await settle(cluster)
      cluster.breakLink(cluster.node('n1'), cluster.node('n2'))
      await cluster.until(() => cluster.names.length === 2, EVICTION_MS)
      await cluster.sleep(25_000) // until it keeps no places on the ring any more, which is a view of its own
      const epoch = cluster.newest().epoch
      await cluster.sleep(30_000)
      expect(cluster.newest().epoch).toBe(epoch)
      cluster.mendLinks()
      await cluster.settled(5000)
    }),
  )

  it('puts out who reaches nobody, and not those whom it does not reach', TIMEOUT, () =>
    play(4, async (cluster) => {
      await settle(cluster)
      for (const name of ['n1', 'n2', 'n3']) cluster.breakLink(cluster.node('n4'), cluster.node(name))
      await cluster.until(() => cluster.names.length < 4, EVICTION_MS)
      await cluster.sleep(10_000)
      expect(cluster.names).toEqual(['n1', 'n2', 'n3'])
    }),
  )

  it('has another view of the same members when requests were lost on the way between two', TIMEOUT, () =>
    play(4, async (cluster) => {
      await settle(cluster)
      const { epoch, members } = cluster.newest()
      cluster.membership('n1').suspect(cluster.membership('n4').life)
      cluster.membership('n4').suspect(cluster.membership('n1').life)
      await cluster.until(() => cluster.newest().epoch > epoch, 3000)
      await cluster.sleep(10_000)
      expect(cluster.newest()).toMatchObject({ epoch: epoch + 1, members })
    }),
  )

  it('has one also when one of three is gone, and neither of the two that are left may go', TIMEOUT, () =>
    play(3, async (cluster) => {
      await settle(cluster)
      cluster.down('n3')
      await cluster.until(() => cluster.names.join() === 'n1,n2', EVICTION_MS)
      await cluster.sleep(1000)
      const { epoch } = cluster.newest()
      cluster.membership('n1').suspect(cluster.membership('n2').life)
      await cluster.until(
        () => cluster.newest().epoch > epoch && cluster.mayAct('n1', 'n2').every(Boolean),
        EVICTION_MS,
      )
      expect(cluster.names).toEqual(['n1', 'n2'])
    }),
  )

  it('puts out whom the data path does not reach in that either, though it answers heartbeats', TIMEOUT, () =>
    play(4, async (cluster) => {
      await settle(cluster)
      const { life } = cluster.membership('n4')
      await losesInVain(cluster, 'n1', 'n4')
      await cluster.until(
        () => !cluster.newest().members.some(({ incarnation }) => incarnation === life.incarnation),
        3000,
      )
      await cluster.settled(10_000)
      expect(cluster.membership('n4').life).not.toEqual(life)
    }),
  )

  it('holds nothing against who comes back of what was said before', TIMEOUT, () =>
    play(4, async (cluster) => {
      await settle(cluster)
      const { epoch } = cluster.newest()
      const { life } = cluster.membership('n4')
      await losesInVain(cluster, 'n1', 'n4')
      await cluster.until(() => cluster.names.length === 3, 3000)
      // What was asked of it ends with its links, and so does what it has asked.
      cluster.membership('n1').suspect(life)
      cluster.membership('n4').suspect(cluster.membership('n2').life)
      await cluster.settled(10_000)
      await cluster.sleep(10_000)
      expect(cluster.newest().epoch).toBe(epoch + 3) // the same once more, out, and in again
    }),
  )

  it('holds nothing against who has started again of what its former life did not answer', TIMEOUT, () =>
    play(
      3,
      async (cluster) => {
        await settle(cluster)
        cluster.down('n3')
        await cluster.sleep(1600) // it comes in when it is about to be put out
        await cluster.up('n3')
        const { life } = cluster.membership('n3')
        await cluster.settled(10_000)
        await cluster.sleep(4000)
        expect(cluster.newest().members).toContainEqual(expect.objectContaining(life))
      },
      { seeds: 4 },
    ),
  )

  it('of three, with one dead, goes on when that one returns and another one dies', TIMEOUT, () =>
    play(3, async (cluster) => {
      await settle(cluster)
      cluster.down('n3')
      await cluster.until(() => !cluster.names.includes('n3'), EVICTION_MS)
      await cluster.sleep(120_000)
      expect(cluster.voters).toEqual(['n1', 'n2', 'n3'])
      await cluster.up('n3')
      cluster.down('n2')
      await cluster.until(() => cluster.names.join() === 'n1,n3' && cluster.mayAct('n1', 'n3').every(Boolean), 10_000)
    }),
  )

  it.each([
    ['goes on with what only one has that is about to be put out', {}, true],
    ['would not, if that were reached as who it will be only when it is out', { isReachedLate: true }, false],
  ])('%s', TIMEOUT, (_name, broken, goesOn) =>
    play(
      3,
      async (cluster) => {
        await settle(cluster)
        await losesInVain(cluster, 'n2', 'n1', () => cluster.cutApart(['n1', 'n2'], ['n3']))
        await cluster.until(() => cluster.node('n1').process!.log.unapplied.length > 0, EVICTION_MS)
        cluster.down('n2') // it has not yet said that it has it
        cluster.mend()
        await cluster.sleep(20_000)
        expect(cluster.mayAct('n1', 'n3').every(Boolean)).toBe(goesOn)
      },
      { broken },
    ),
  )

  it('of two does nothing without one of them, and goes on when it is back', TIMEOUT, () =>
    play(2, async (cluster) => {
      await settle(cluster)
      cluster.down('n1')
      await cluster.until(() => !cluster.mayAct('n2')[0], 2500)
      await cluster.sleep(60_000)
      expect(cluster.mayAct('n2')).toEqual([false])
      await cluster.up('n1')
      await cluster.settled(10_000)
    }),
  )

  it('of two goes on when one of them leaves', TIMEOUT, () =>
    play(2, async (cluster) => {
      await settle(cluster)
      await cluster.leave(cluster.node('n1'))
      await cluster.until(() => cluster.mayAct('n2')[0]!, 1000)
      expect([cluster.names, cluster.voters]).toEqual([['n2'], ['n2']])
      await cluster.up('n1')
      await cluster.settled(10_000)
    }),
  )

  it('lets a member leave at once, and it does nothing meanwhile', TIMEOUT, () =>
    play(3, async (cluster) => {
      await settle(cluster)
      for (const name of ['n1', 'n2', 'n3']) {
        const others = cluster.names.filter((other) => other !== name)
        const left = cluster.leave(cluster.node(name))
        expect(cluster.mayAct(name)).toEqual([false])
        await cluster.until(() => !cluster.names.includes(name), 1200)
        await left
        expect(cluster.mayAct(...others)).toEqual([true, true])
        await cluster.up(name)
        await cluster.settled(20_000)
      }
    }),
  )

  it('keeps a node that drains, without data and without a vote, also when it starts again', TIMEOUT, () =>
    play(4, async (cluster) => {
      await settle(cluster)
      const vnodes = () => cluster.newest().members.map((member) => member.vnodes)
      await cluster.membership('n1').drain('n2')
      expect([cluster.names, vnodes()]).toEqual([
        ['n1', 'n2', 'n3', 'n4'],
        [128, 0, 128, 128],
      ])
      await cluster.until(() => cluster.voters.join() === 'n1,n3,n4', 5000)
      cluster.down('n2')
      await cluster.until(() => !cluster.names.includes('n2'), EVICTION_MS)
      await cluster.up('n2')
      await cluster.settled(10_000)
      expect(vnodes()).toEqual([128, 0, 128, 128])
      await cluster.membership('n3').drain('n2', false)
      expect(vnodes()).toEqual([128, 128, 128, 128])
      expect(cluster.newest().draining).toBeUndefined()
    }),
  )

  it('starts again after all nodes were down, in any order', TIMEOUT, () =>
    play(4, async (cluster) => {
      await settle(cluster)
      cluster.down('n1', 'n2', 'n3', 'n4')
      await cluster.sleep(10_000)
      const order = [...cluster.nodes].sort(() => cluster.random.next() - 0.5)
      for (const node of order) {
        await cluster.up(node.name)
        await cluster.sleep(cluster.random.next() * 5000)
      }
      await cluster.settled(15_000)
      expect(cluster.names).toEqual(['n1', 'n2', 'n3', 'n4'])
    }),
  )

  it('goes on where the majority of voters is, and those who were cut off come back by themselves', TIMEOUT, () =>
    play(5, async (cluster) => {
      await settle(cluster)
      cluster.cutApart(['n1', 'n2'], ['n3', 'n4', 'n5'])
      await cluster.until(() => cluster.names.join() === 'n3,n4,n5', 5000)
      await cluster.until(
        () => cluster.mayAct('n1', 'n2', 'n3', 'n4', 'n5').join() === 'false,false,true,true,true',
        1000,
      )
      await cluster.sleep(20_000)
      expect(cluster.mayAct('n1', 'n2')).toEqual([false, false])
      cluster.mend()
      await cluster.settled(15_000)
      expect(cluster.names).toEqual(['n1', 'n2', 'n3', 'n4', 'n5'])
    }),
  )

  it('without a majority on any side does nothing, and goes on after the cut', TIMEOUT, () =>
    play(5, async (cluster) => {
      await settle(cluster)
      cluster.cutApart(['n1', 'n2'], ['n3', 'n4'], ['n5'])
      await cluster.sleep(10_000)
      expect(cluster.mayAct('n1', 'n2', 'n3', 'n4', 'n5')).toEqual([false, false, false, false, false])
      const { epoch } = cluster.newest()
      cluster.mend()
      await cluster.settled(15_000)
      expect(cluster.newest().epoch - epoch).toBeLessThan(4)
    }),
  )

  it('replaces a voter that is away for long, where there is another node', TIMEOUT, () =>
    play(4, async (cluster) => {
      await settle(cluster)
      const [gone] = cluster.voters
      cluster.down(gone!)
      await cluster.until(() => !cluster.names.includes(gone!), EVICTION_MS)
      await cluster.sleep(20_000)
      expect(cluster.voters).toContain(gone)
      await cluster.until(() => !cluster.voters.includes(gone!) && cluster.voters.length === 3, 20_000)
    }),
  )

  it('takes many nodes in together', TIMEOUT, () =>
    play(
      40,
      async (cluster) => {
        await cluster.up('n1')
        await cluster.settled(10_000)
        const { epoch } = cluster.newest()
        await Promise.all(
          cluster.nodes.slice(1).map(async (node) => {
            await cluster.sleep(cluster.random.next() * 5000)
            await cluster.start(node)
          }),
        )
        await cluster.settled(30_000)
        await cluster.until(() => cluster.voters.length === 5, 10_000)
        expect(cluster.newest().epoch - epoch).toBeLessThan(15)
      },
      { seeds: 1 },
    ),
  )

  it('is not kept busy by a node that starts again and again', TIMEOUT, () =>
    play(3, async (cluster) => {
      await settle(cluster)
      const { epoch } = cluster.newest()
      for (let start = 0; start < 100; start++) {
        cluster.down('n3')
        await cluster.up('n3')
        await cluster.sleep(3000)
      }
      expect(cluster.newest().epoch - epoch).toBeLessThan(30)
      await cluster.settled(70_000)
    }),
  )
})

/** With the defaults. What a client waits for is this, and what a new owner takes. */
const EVICTION_MS = 3000

async function settle(cluster: Scene): Promise<void> {
  const names = cluster.nodes.map(({ name }) => name)
  await cluster.up(...names)
  await cluster.settled(20_000)
  const wanted = names.length >= 5 ? 5 : Math.min(names.length, 3)
  await cluster.until(() => cluster.voters.length === wanted, 10_000)
  await cluster.sleep(5000)
}

/** Requests of `from` to `to` are lost, and so they are in the view that there is for that reason, from `then` on. */
async function losesInVain(cluster: Scene, from: string, to: string, then = () => {}): Promise<void> {
  const { epoch } = cluster.newest()
  const { life } = cluster.membership(to)
  cluster.membership(from).suspect(life)
  await cluster.until(() => cluster.membership(from).view.epoch > epoch, EVICTION_MS)
  then()
  cluster.membership(from).suspect(life)
}
