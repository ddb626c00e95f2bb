import { describe, expect, it } from 'vitest'
import { dataOid } from '../../../src/protocol/oid.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../../src/sheep/object-format.ts'
import type { Device } from '../../../src/vdi/device.ts'
import { type BenchNode, ClusterBench } from './cluster-bench.ts'

/* Interleavings that lose writes in stores like this one, with whole nodes: docs/hazards.md. */

const block = (fill: number) => Buffer.alloc(BLOCK_BYTES, fill)
const filled = (fill: number) => Buffer.alloc(8 * BLOCK_BYTES, fill)
const hashOf = (attachment: number) => `${attachment}`.repeat(64)
const indexes = Array.from({ length: 8 }, (_, index) => index)
const LAST = indexes.length - 1
const SIZE_BYTES = indexes.length * OBJECT_BYTES

const stateAt = (bench: ClusterBench, at: number) => bench.nodes[at]!.running!.node.sheep.state

/** Nodes with a VDI that the first of them owns, which may be opened under three attachments. */
async function opened(seed: number, nodes = 3, options = {}) {
  const bench = await ClusterBench.open(seed, nodes, options)
  await bench.until(() => stateAt(bench, 0).view.voters.length === 3)
  const vid = await bench.run(bench.vdis(0).create('a', SIZE_BYTES))
  for (const attachment of [1, 2, 3])
    await bench.run(
      bench.vdis(0).putExport({
        attachmentId: `${attachment}`,
        nameHash: hashOf(attachment),
        vid,
        readOnly: false,
      }),
    )
  const open = (at: number, attachment: number): Promise<Device> =>
    bench.run(bench.connect(bench.nodes[at]!)!.vdis.openExport(hashOf(attachment), false))
  return { bench, vid, open }
}

/** Which nodes have a copy of an object. */
const holders = ({ nodes }: ClusterBench, vid: number, index: number): number[] =>
  nodes.flatMap(({ running }, at) => (running?.node.store.objectsHere().includes(dataOid(vid, index)) ? [at] : []))

/** A write that only a flush makes durable. */
function writeLoosely(device: Device, offset: number, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) =>
    device.write(offset, bytes, { fua: false }, (error) => (error ? reject(error) : resolve())),
  )
}

const discard = (device: Device, offset: number, length: number) =>
  new Promise<void>((resolve, reject) => device.discard(offset, length, (error) => (error ? reject(error) : resolve())))

function watch(work: Promise<unknown>): { isOver: boolean } {
  const watched = { isOver: false }
  const over = () => {
    watched.isOver = true
  }
  work.then(over, over)
  return watched
}

describe('an owner that others have gone on without', () => {
  it.each(['stood still', 'was cut off'])('and that %s does not answer with what it has itself', async (how) => {
    const { bench, open } = await opened(1)
    const [left] = bench.nodes
    const before = await open(0, 1)
    await bench.run(bench.write(before, 0, block(1)))
    expect(await bench.run(bench.read(before, 0, BLOCK_BYTES))).toEqual(block(1))
    if (how === 'stood still') bench.stop(left!)
    else bench.cutOff(left!)
    const there = await open(1, 2)
    await bench.run(bench.write(there, 0, block(2)))
    const read = bench.read(before, 0, BLOCK_BYTES)
    const watched = watch(read)
    await bench.pass(5000)
    expect(watched.isOver).toBe(false)
    if (how === 'stood still') bench.resume(left!)
    else bench.heal()
    await expect(bench.run(read)).rejects.toMatchObject({ code: 'Fenced' })
    expect(await bench.run(bench.read(await open(0, 3), 0, BLOCK_BYTES))).toEqual(block(2))
  })
})

describe('a request that lies at a gateway while its client goes on at another one', () => {
  it('is not done when it arrives, in the same view', async () => {
    const { bench, vid, open } = await opened(2, 4)
    const first = await open(0, 2)
    for (const index of indexes) await bench.run(bench.write(first, index * OBJECT_BYTES, block(1)))
    await bench.until(() => bench.isHome())
    const index = indexes.find((each) => holders(bench, vid, each).join() === '0,2,3')!
    const offset = index * OBJECT_BYTES
    const before = await open(1, 1)
    await bench.run(bench.write(before, offset, block(2)))
    const { epoch } = stateAt(bench, 0)
    bench.network.silence([bench.nodes[1]!.name], [bench.nodes[0]!.name])
    const late = bench.write(before, offset, block(3)).catch((error) => error.code)
    const there = await open(2, 1)
    await bench.run(bench.write(there, offset, block(4)))
    bench.network.heal()
    expect(await bench.run(late)).toBe('Fenced')
    expect(await bench.run(bench.read(there, offset, BLOCK_BYTES))).toEqual(block(4))
    expect(stateAt(bench, 0).epoch).toBe(epoch)
  })
})

describe('what a minority is told by the group', () => {
  it('has no effect, and no other entry of the same place is ever taken for it', async () => {
    const { bench, vid, open } = await opened(3)
    await bench.until(() => stateAt(bench, 0).families.ownerOf(vid) === null)
    const [left] = bench.nodes
    bench.cutOff(left!)
    bench
      .connect(left!)!
      .vdis.openExport(hashOf(1), false)
      .catch(() => {})
    await bench.pass(20_000)
    expect(stateAt(bench, 0).families.ownerOf(vid)).toBeNull()
    await bench.run(bench.write(await open(1, 2), 0, block(1)))
    const owner = stateAt(bench, 1).families.ownerOf(vid)!
    expect(owner.node).not.toBe(left!.running!.node.store.member.life.node)
    bench.kill(left!, true)
    bench.heal()
    await bench.start(left!)
    await bench.allIn()
    expect(stateAt(bench, 0).families.ownerOf(vid)).toEqual(owner)
  })
})

describe('a node that lost power and is back before anybody missed it', () => {
  it('is not believed to have what it acknowledged', async () => {
    const { bench, vid, open } = await opened(4, 3, { copies: 2 })
    const device = await open(0, 1)
    for (const index of indexes) await bench.run(bench.write(device, index * OBJECT_BYTES, block(1)))
    await bench.until(() => bench.isHome())
    const index = indexes.find((each) => holders(bench, vid, each).join() === '0,1')!
    await bench.run(writeLoosely(device, index * OBJECT_BYTES, block(2)))
    const [other, lossy] = bench.nodes
    bench.kill(lossy!, true)
    bench.kill(other!)
    await bench.start(lossy!)
    await bench.until(() => bench.isIn(lossy!) && stateAt(bench, 2).members.length === 2)
    const there = bench.connect(bench.nodes[2]!)!.vdis.openExport(hashOf(2), false)
    const read = there.then((opened) => bench.read(opened, index * OBJECT_BYTES, BLOCK_BYTES))
    const watched = watch(read)
    await bench.pass(10_000)
    expect(watched.isOver).toBe(false)
    await bench.start(other!)
    expect(await bench.run(read)).toEqual(block(2))
  })
})

describe('a node that was away while something was deleted', () => {
  it('has nothing left of a VDI that is gone, soon after it is back', async () => {
    const { bench, vid, open } = await opened(5)
    const device = await open(0, 1)
    await bench.run(bench.write(device, 0, block(1)))
    expect(holders(bench, vid, 0)).toEqual([0, 1, 2])
    const away = bench.nodes[2]!
    bench.kill(away)
    await bench.until(() => stateAt(bench, 0).members.length === 2)
    await bench.run(device.close())
    for (const attachment of ['1', '2', '3']) await bench.run(bench.vdis(0).removeExport(attachment))
    await bench.run(bench.vdis(0).remove('a'))
    await bench.until(() => bench.objects().length === 0)
    await bench.start(away)
    await bench.until(() => bench.isIn(away))
    await bench.until(() => bench.objects().length === 0)
    expect(stateAt(bench, 2).vdis.size).toBe(0)
  })

  it('shows nothing of it in the next VDI that bears its number', async () => {
    const { bench, vid, open } = await opened(6)
    const device = await open(0, 1)
    for (const value of [7, 8]) await bench.run(bench.write(device, 0, Buffer.concat([block(value), block(value)])))
    await bench.until(() => bench.isHome())
    const away = bench.nodes[2]!
    bench.kill(away)
    await bench.until(() => stateAt(bench, 0).members.length === 2)
    await bench.run(device.close())
    for (const attachment of ['1', '2', '3']) await bench.run(bench.vdis(0).removeExport(attachment))
    await bench.run(bench.vdis(0).remove('a'))
    await bench.until(() => stateAt(bench, 0).vdis.size === 0)
    expect(await bench.run(bench.vdis(0).create('a', SIZE_BYTES))).toBe(vid)
    const next = await bench.run(bench.vdis(0).open(vid, { readOnly: false }))
    await bench.run(bench.write(next, BLOCK_BYTES, block(2)))
    await bench.start(away)
    await bench.until(() => bench.isIn(away))
    await bench.until(() => bench.isHome())
    bench.kill(bench.nodes[0]!)
    const there = await bench.run(bench.vdis(2).open(vid, { readOnly: true }))
    expect(await bench.run(bench.read(there, 0, 2 * BLOCK_BYTES))).toEqual(Buffer.concat([block(0), block(2)]))
  })
})

describe('two clients that write to one VDI at two gateways', () => {
  it('have both what each of them wrote to objects that neither knew of', async () => {
    const { bench, open } = await opened(7)
    const devices = [await open(1, 1), await open(2, 2)]
    const clock = bench.clock.node().mount()
    const written = indexes.flatMap((index) =>
      devices.map(async (device, at) => {
        await clock.sleep(2 * at * index)
        await bench.write(device, index * OBJECT_BYTES + at * BLOCK_BYTES, block(at + 1))
      }),
    )
    await bench.run(Promise.all(written))
    for (const device of devices)
      for (const index of indexes)
        expect(await bench.run(bench.read(device, index * OBJECT_BYTES, 2 * BLOCK_BYTES))).toEqual(
          Buffer.concat([block(1), block(2)]),
        )
    await bench.run(discard(devices[0]!, 0, OBJECT_BYTES))
    expect(await bench.run(bench.read(devices[1]!, 0, BLOCK_BYTES))).toEqual(block(0))
    await bench.run(bench.write(devices[1]!, BLOCK_BYTES, block(3)))
    expect(await bench.run(bench.read(devices[0]!, 0, 2 * BLOCK_BYTES))).toEqual(Buffer.concat([block(0), block(3)]))
  })

  it('do not move what owns it from one to the other', async () => {
    const { bench, vid, open } = await opened(8)
    const devices = [await open(0, 1), await open(1, 2), await open(2, 3)]
    const owner = stateAt(bench, 0).families.ownerOf(vid)
    for (const value of [1, 2, 3, 4, 5, 6]) {
      const device = devices[value % 3]!
      await bench.run(bench.write(device, 0, block(value)))
      await bench.pass(3000)
      expect(await bench.run(bench.read(devices[(value + 1) % 3]!, 0, BLOCK_BYTES))).toEqual(block(value))
    }
    expect(stateAt(bench, 0).families.ownerOf(vid)).toEqual(owner)
  })
})

describe('objects that are new when the power of all nodes fails', () => {
  it('are there, or not, but never only in the map', async () => {
    const { bench, vid, open } = await opened(9, 3, { copies: 1 })
    const device = await open(0, 1)
    const written = new Set<number>()
    for (const index of indexes)
      writeLoosely(device, index * OBJECT_BYTES, block(1)).then(
        () => written.add(index),
        () => {},
      )
    await bench.until(() => written.size >= indexes.length / 2)
    for (const node of bench.nodes) bench.kill(node, true)
    for (const node of bench.nodes) await bench.start(node)
    await bench.allIn()
    const again = await bench.run(bench.vdis(1).open(await bench.run(bench.vdis(1).lookup('a')), { readOnly: true }))
    for (const index of indexes) {
      const [byte] = await bench.run(bench.read(again, index * OBJECT_BYTES, BLOCK_BYTES))
      expect([0, 1]).toContain(byte)
    }
    await bench.until(() => bench.isHome())
    for (const index of indexes) expect([0, 1]).toContain(holders(bench, vid, index).length)
  })
})

describe('a snapshot that is deleted while clones are made of it', () => {
  it('leaves each clone whole, or there is none', async () => {
    const { bench, open } = await opened(11)
    const device = await open(0, 1)
    let clones = 0
    for (const round of [1, 2, 3, 4]) {
      for (const index of [0, 1]) await bench.run(bench.write(device, index * OBJECT_BYTES, block(round)))
      const working = await bench.run(bench.vdis(0).lookup('a'))
      await bench.run(bench.vdis(0).snapshot(working, 'then'))
      await bench.run(bench.write(device, 0, block(100)))
      const made = bench.vdis(1).create(`clone ${round}`, SIZE_BYTES, working)
      await bench.pass(5 * round)
      const removed = bench.vdis(2).remove('a', 'then')
      const [clone] = await bench.run(Promise.allSettled([made, removed]))
      for (const { running } of bench.nodes) await bench.run(running!.node.sheep.reclaimed())
      await bench.pass(1000)
      if (clone.status === 'rejected') continue
      clones++
      const opened = await bench.run(bench.vdis(0).open(clone.value, { readOnly: true }))
      for (const index of [0, 1])
        expect(await bench.run(bench.read(opened, index * OBJECT_BYTES, BLOCK_BYTES))).toEqual(block(round))
    }
    expect(clones).toBeGreaterThan(0)
  })
})

describe('a node whose disk says that a sync has failed', () => {
  it('ends, while the others go on, and takes part again with what it is given anew', async () => {
    const { bench, open } = await opened(12)
    const device = await open(0, 1)
    await bench.run(bench.write(device, 0, block(1)))
    const broken = bench.nodes[2]!
    broken.mayFail = true
    broken.disk.failNextSync = true
    await bench.run(bench.write(device, 0, block(2)))
    expect([bench.failures, broken.running]).toEqual([1, null])
    await bench.start(broken)
    await bench.allIn()
    await bench.until(() => bench.isHome())
    bench.kill(bench.nodes[0]!)
    expect(await bench.run(bench.read(await open(2, 2), 0, BLOCK_BYTES))).toEqual(block(2))
  })
})

describe('a node that has lost the engine of the group', () => {
  it('comes back by itself, as another member', async () => {
    const { bench, open } = await opened(13)
    await bench.run(bench.write(await open(0, 1), 0, block(1)))
    const [lost] = bench.nodes
    const { life } = lost!.running!.node.store.member
    bench.group.lose(lost!.name)
    await bench.until(() => !bench.isIn(lost!))
    const there = await open(1, 2)
    await bench.run(bench.write(there, 0, block(2)))
    await bench.allIn()
    expect(lost!.running!.node.store.member.life).not.toEqual(life)
    expect(await bench.run(bench.read(await open(0, 3), 0, BLOCK_BYTES))).toEqual(block(2))
  })
})

describe('what a node that lost power has lost', () => {
  it.each([
    ['while it keeps its places', 600_000],
    ['and its places too', 1000],
  ])('%s, it gets from those who had it, and not they what it has left', async (_when, rebalanceDelayMs) => {
    const bench = await ClusterBench.open(9, 3, { rebalanceDelayMs })
    await bench.until(() => stateAt(bench, 0).view.voters.length === 3)
    const vid = await bench.run(bench.vdis(0).create('a', SIZE_BYTES))
    const device = await bench.run(bench.vdis(0).open(vid, { readOnly: false }))
    for (const index of indexes) await bench.run(bench.write(device, index * OBJECT_BYTES, filled(index)))
    // What is clean before the first one lets nodes forget what is clean everywhere.
    for (const name of ['b', 'c', 'd']) await bench.run(bench.vdis(0).create(name, SIZE_BYTES))
    for (let fill = 60; fill <= 90; fill++) await bench.run(writeLoosely(device, LAST * OBJECT_BYTES, block(fill)))

    const lossy = bench.nodes[1]!
    bench.kill(lossy, true)
    await bench.until(() => stateAt(bench, 0).members.length === 2 && bench.isClean())
    if (rebalanceDelayMs < 600_000) await bench.until(() => stateAt(bench, 0).view.away === undefined)
    await bench.start(lossy)
    await bench.until(() => bench.isIn(lossy) && bench.isClean() && bench.isHome())
    expect(await bench.run(bench.read(device, LAST * OBJECT_BYTES, BLOCK_BYTES))).toEqual(block(90))
    for (const index of indexes.slice(0, LAST))
      expect(await bench.run(bench.read(device, index * OBJECT_BYTES, BLOCK_BYTES))).toEqual(block(index))
    // Nothing of what was durable; while it keeps its places others know what it has.
    const copied = bench.nodes.map(({ running }) => running!.node.store.recovery.progress.bytesCopied)
    if (rebalanceDelayMs === 600_000) expect(Math.max(...copied)).toBeLessThanOrEqual(filled(0).length)
  })
})

describe('a node that knows less of the log than an owner', () => {
  const GONE = 3
  const BEHIND = 2

  /** Of four nodes one ends; another one then does not hear of what is clean without it, and of a VDI that is made after. */
  async function openedBehind(seed: number) {
    const bench = await ClusterBench.open(seed, 4, { copies: 3, rebalanceDelayMs: 1000 })
    await bench.until(() => stateAt(bench, 0).view.voters.length === 3 && bench.isHome())
    await bench.run(bench.vdis(0).create('a', SIZE_BYTES))
    bench.kill(bench.nodes[GONE]!)
    await bench.until(
      () => stateAt(bench, BEHIND).members.length === 3 && stateAt(bench, BEHIND).view.away === undefined,
    )
    bench.group.stop(bench.nodes[BEHIND]!.name)
    await bench.until(() => stateAt(bench, 0).families.uncleanBefore(stateAt(bench, 0).epoch).length === 0)
    const vid = await bench.run(bench.vdis(0).create('b', SIZE_BYTES))
    const device = await bench.run(bench.vdis(0).open(vid, { readOnly: false }))
    for (const at of indexes) await bench.run(bench.write(device, at * OBJECT_BYTES, filled(at)))
    expect(stateAt(bench, BEHIND).vdis.get(vid)).toBeUndefined()
    for (const at of indexes) expect(holders(bench, vid, at)).toEqual([0, 1, BEHIND])
    return { bench, vid }
  }

  it.each([1, 2, 3])('keeps what the owner makes there when it forgets what is clean, seed %d', async (seed) => {
    const { bench, vid } = await openedBehind(seed)
    bench.group.resume(bench.nodes[BEHIND]!.name)
    await bench.until(() => stateAt(bench, BEHIND).vdis.get(vid) !== undefined && bench.isHome())
    await bench.pass(2000)
    for (const at of indexes) expect(holders(bench, vid, at)).toEqual([0, 1, BEHIND])
  })

  it('takes nothing of that for what belongs to no VDI', async () => {
    const { bench, vid } = await openedBehind(1)
    const { sheep } = bench.nodes[0]!.running!.node
    bench.clock
      .node()
      .mount()
      .timer(200, () => bench.group.resume(bench.nodes[BEHIND]!.name))
    expect(await bench.run(sheep.audit({ repair: true }))).toMatchObject({ sound: true, problemsTotal: 0 })
    for (const at of indexes) expect(holders(bench, vid, at)).toEqual([0, 1, BEHIND])
  })
})

describe('the only node that is left with what was written', () => {
  it('does not make those forgotten who had it before: with it gone, they are waited for, or asked', async () => {
    const { bench, open } = await opened(1)
    const [a, b, c] = bench.nodes
    const stop = async (node: BenchNode) => {
      await bench.run(node.running!.node.close())
      bench.kill(node)
    }
    const membersAt = (at: number) => stateAt(bench, at).members.length
    const device = await open(0, 1)
    await bench.run(bench.write(device, 0, filled(1)))
    bench.kill(c!)
    await bench.until(() => membersAt(0) === 2)
    await bench.run(bench.write(device, 0, filled(2)))
    await stop(b!)
    await bench.pass(5000)
    await bench.run(a!.running!.node.store.admin.setRecovery({ isPaused: true }))
    await bench.start(c!)
    await bench.until(() => bench.isIn(c!))
    await stop(a!)

    const late = open(2, 2).then((opened) => bench.run(bench.read(opened, 0, 8 * BLOCK_BYTES)))
    const read = watch(late)
    await bench.pass(5000)
    await bench.start(b!)
    await bench.until(() => read.isOver)
    expect(await late).toEqual(filled(2))
  })
})
