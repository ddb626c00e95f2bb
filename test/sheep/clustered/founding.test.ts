import { describe, expect, it } from 'vitest'
import { oidKind, vmstateOid } from '../../../src/protocol/oid.ts'
import { OP } from '../../../src/protocol/opcodes.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../../src/sheep/object-format.ts'
import type { Reply } from '../../../src/sheep/server.ts'
import type { Sheep } from '../../../src/sheep/sheep.ts'
import type { VdiClient } from '../../../src/vdi/client.ts'
import { type BenchNode, ClusterBench, RESERVE_BYTES } from './cluster-bench.ts'

const OBJECTS = 2
const VDI_BYTES = OBJECTS * OBJECT_BYTES

/** Machine state of `rolled`. */
const MEMORY = Buffer.from('what was in memory')

interface Node {
  sheep: Sheep
  vdis: VdiClient
}

/** What each VDI and snapshot holds, by its name and tag: the bytes, block by block. */
type Held = Map<string, Buffer>

const SHOWN = ['a', 'a@one', 'a@two', 'clone', 'orphan', 'rolled', 'rolled@back', 'empty']

/** Writes at once, so that what comes back is what must be there. */
async function fill(
  bench: ClusterBench,
  { vdis }: Node,
  name: string,
  parts: readonly [block: number, count: number][],
) {
  const device = await bench.run(vdis.open(await bench.run(vdis.lookup(name)), { readOnly: false }))
  for (const [block, count] of parts) {
    const bytes = Buffer.alloc(count * BLOCK_BYTES, `${name} ${block} ${count}`)
    await bench.run(bench.write(device, block * BLOCK_BYTES, bytes))
  }
  await bench.run(device.close())
}

async function held(bench: ClusterBench, vdis: VdiClient): Promise<Held> {
  const all: Held = new Map()
  for (const shown of SHOWN) {
    const [name, tag] = shown.split('@') as [string, string?]
    const device = await bench.run(vdis.open(await bench.run(vdis.lookup(name, tag)), { readOnly: true }))
    all.set(shown, await bench.run(bench.read(device, 0, VDI_BYTES)))
    await bench.run(device.close())
  }
  return all
}

/** Differences only, since a whole one would be megabytes. */
function expectHeld(now: Held, before: Held): void {
  expect([...now.keys()]).toEqual([...before.keys()])
  for (const [shown, bytes] of before) {
    const blocks = Array.from({ length: VDI_BYTES / BLOCK_BYTES }, (_, block) => block * BLOCK_BYTES)
    const different = blocks.filter((at) => bytes.compare(now.get(shown)!, at, at + BLOCK_BYTES, at, at + BLOCK_BYTES))
    expect([shown, different]).toEqual([shown, []])
  }
}

/** A store of one node with everything that such a store may hold: see `SHOWN`, and what is left of deleted ones. */
async function furnish(bench: ClusterBench): Promise<Node> {
  const alone = await bench.openAlone(bench.nodes[0]!)
  const { vdis, sheep } = alone
  const snapshot = async (name: string, tag: string) => {
    await bench.run(vdis.snapshot(await bench.run(vdis.lookup(name)), tag))
    return bench.run(vdis.lookup(name, tag))
  }
  await bench.run(vdis.create('a', VDI_BYTES))
  await fill(bench, alone, 'a', [
    [0, 200],
    [1024, 40],
  ])
  const one = await snapshot('a', 'one')
  await fill(bench, alone, 'a', [
    [10, 60],
    [1030, 5],
  ])
  await snapshot('a', 'two')
  await fill(bench, alone, 'a', [
    [40, 50],
    [1500, 1],
  ])
  await bench.run(vdis.create('clone', VDI_BYTES, one))
  await fill(bench, alone, 'clone', [[5, 10]])

  // A clone whose whole ancestry is deleted, with objects of which it sees parts, and one that it sees whole.
  await bench.run(vdis.create('gone', VDI_BYTES))
  await fill(bench, alone, 'gone', [
    [0, 100],
    [1024, 100],
  ])
  await snapshot('gone', 'first')
  await fill(bench, alone, 'gone', [[20, 20]])
  const second = await snapshot('gone', 'second')
  await fill(bench, alone, 'gone', [[30, 5]])
  await bench.run(vdis.create('orphan', VDI_BYTES, second))
  await fill(bench, alone, 'orphan', [[25, 30]])
  for (const tag of ['', 'second', 'first']) await bench.run(vdis.remove('gone', tag))

  await bench.run(vdis.create('rolled', VDI_BYTES))
  await fill(bench, alone, 'rolled', [[0, 64]])
  await snapshot('rolled', 'back')
  await fill(bench, alone, 'rolled', [[0, 8]])
  await bench.run(vdis.rollback('rolled', { tag: 'back' }))
  await fill(bench, alone, 'rolled', [[16, 8]])

  // Machine state of which the first part was never written.
  const vm = await bench.run(vdis.lookup('rolled'))
  await bench.run(sheep.growVmstate(vm, 2))
  const options = { create: true, durable: true, check: () => {} }
  await bench.run(sheep.objects.write(vmstateOid(vm, 1), 5000, MEMORY, options))

  await bench.run(vdis.create('empty', VDI_BYTES))
  await bench.run(vdis.setAttribute('a', 'colour', Buffer.from('blue')))
  await bench.run(vdis.setAttribute('a', 'shape', Buffer.from('round'), { snapshot: { tag: 'one' } }))
  await bench.run(
    vdis.putExport({
      attachmentId: 'x',
      nameHash: 'ab'.repeat(32),
      vid: await bench.run(vdis.lookup('a')),
      readOnly: false,
    }),
  )
  await bench.run(sheep.reclaimed())
  return alone
}

async function end(bench: ClusterBench, node: BenchNode, { sheep }: Node): Promise<void> {
  await bench.run(sheep.close())
  node.disk.kill()
  node.clock.endProcess()
}

/** As QEMU reads it. */
async function memory(bench: ClusterBench, at: number): Promise<Buffer> {
  const vid = await bench.run(bench.vdis(at).lookup('rolled'))
  const request = { opcode: OP.READ_OBJ, oid: vmstateOid(vid, 1), offset: 5000, dataLength: MEMORY.length }
  const { node } = bench.nodes[at]!.running!
  const { body } = await bench.run(
    new Promise<Reply>((resolve) => node.handle(request, { id: at, peer: '127.0.0.1', cut: () => {} }, resolve)),
  )
  return body!
}

const sheepOf = (bench: ClusterBench, at: number): Sheep => bench.nodes[at]!.running!.node.sheep
const audit = (bench: ClusterBench, at: number) => bench.run(sheepOf(bench, at).audit({}))
const SOUND = { sound: true, problemsTotal: 0, problems: [] }

describe('a store of one node', () => {
  it('becomes the first of several with all that it holds, and may then be lost', async () => {
    const bench = new ClusterBench(1, 3)
    const first = bench.nodes[0]!
    const alone = await furnish(bench)
    const before = await held(bench, alone.vdis)
    const usage = await bench.run(alone.sheep.usage())
    await end(bench, first, alone)

    await bench.found(first)
    // Before anybody has asked for any of it.
    for (const node of bench.nodes) await bench.start(node)
    await bench.allIn()
    expectHeld(await held(bench, bench.vdis(2)), before)
    await bench.until(() => bench.isClean())
    expect(await audit(bench, 0)).toMatchObject(SOUND)
    const allocated = (of: typeof usage) => [...of].map(([vid, { allocatedBytes }]) => [vid, allocatedBytes]).sort()
    expect(allocated(await bench.run(sheepOf(bench, 0).usage()))).toEqual(allocated(usage))
    expect(bench.objects().filter((oid) => oidKind(BigInt(`0x${oid.split(' ')[0]}`)) === 'attr')).toEqual([])
    for (const { name, copies } of sheepOf(bench, 1).state.vdis.values()) expect([name, copies]).toEqual([name, 1])
    for (const name of ['a', 'clone', 'orphan', 'rolled', 'empty'])
      await bench.run(bench.vdis(1).alter(await bench.run(bench.vdis(1).lookup(name)), { copies: 3 }))
    await bench.until(() => bench.isClean() && bench.isHome(), 120_000)
    expect(await audit(bench, 2)).toMatchObject(SOUND)

    await bench.until(() => sheepOf(bench, 1).state.view.voters.length === 3)
    bench.kill(first, true)
    await bench.until(() => sheepOf(bench, 1).state.members.length === 2)
    expectHeld(await held(bench, bench.vdis(1)), before)
    expect(String(await bench.run(bench.vdis(2).getAttribute('a', 'colour')))).toBe('blue')
    expect(String(await bench.run(bench.vdis(1).getAttribute('a', 'shape', { tag: 'one' })))).toBe('round')
    expect(await memory(bench, 2)).toEqual(MEMORY)
    expect(await bench.run(bench.vdis(2).findExport('ab'.repeat(32)))).toMatchObject({ attachmentId: 'x' })
  })

  it('is either that or the first of several, whenever its process ends or its power goes on the way', async () => {
    const bench = new ClusterBench(2, 1)
    const [first] = bench.nodes as [BenchNode]
    const alone = await furnish(bench)
    const before = await held(bench, alone.vdis)
    await end(bench, first, alone)
    let attempts = 0
    let wasFounded = false
    for (let operations = 5; ; operations += 3) {
      first.mayFail = true
      first.disk.operationsLeft = operations
      const isDone = await bench.found(first).then(
        () => true,
        () => false,
      )
      first.disk.operationsLeft = null
      if (attempts % 3 === 0) first.disk.kill()
      else first.disk.powerLoss()
      if (isDone) break
      attempts++
      const opened = await bench.openAlone(first).catch((error: Error) => error)
      if (opened instanceof Error) {
        expect(opened.message).toContain('this is a store of the cluster test')
        wasFounded = true
        first.disk.kill()
        first.clock.endProcess()
        continue
      }
      expect(wasFounded).toBe(false)
      expect(await bench.run(opened.sheep.audit())).toMatchObject(SOUND)
      if (attempts % 4 === 0) expectHeld(await held(bench, opened.vdis), before)
      expect(String(await bench.run(opened.vdis.getAttribute('a', 'colour')))).toBe('blue')
      await end(bench, first, opened)
    }
    first.mayFail = false
    expect([attempts > 10, wasFounded]).toEqual([true, true])
    await bench.start(first)
    await bench.until(() => bench.isIn(first), 120_000) // who has come so often waits
    expectHeld(await held(bench, bench.vdis(0)), before)
    await bench.until(() => bench.isClean())
    expect(await audit(bench, 0)).toMatchObject(SOUND)
    expect(String(await bench.run(bench.vdis(0).getAttribute('a', 'colour')))).toBe('blue')
  })

  it('says all that is in the way, and stays as it was', async () => {
    const bench = new ClusterBench(3, 1)
    const [first] = bench.nodes as [BenchNode]
    const alone = await furnish(bench)
    const before = await held(bench, alone.vdis)
    await end(bench, first, alone)
    first.disk.capacityBytes = first.disk.usedBytes() + RESERVE_BYTES
    const names = async () => (await bench.run(first.disk.mount().listBelow('obj'))).sort()
    const objects = await names()
    const refused = bench.found(first)
    await expect(refused).rejects.toThrow(/takes \d+ bytes more, which are not free/)
    await expect(refused).rejects.toThrow('Nothing was changed')
    first.disk.kill()
    expect(await names()).toEqual(objects)
    expectHeld(await held(bench, (await bench.openAlone(first)).vdis), before)
  })

  it('does not join a cluster, which would take away what it holds', async () => {
    const bench = new ClusterBench(4, 2)
    const [first, second] = bench.nodes as [BenchNode, BenchNode]
    await bench.found(first)
    first.disk.kill()
    await bench.start(first)
    const alone = await bench.openAlone(second)
    await bench.run(alone.vdis.create('a', VDI_BYTES))
    await end(bench, second, alone)
    await expect(bench.start(second)).rejects.toThrow('has 1 VDIs and snapshots of its own')
    second.disk.kill()
    const again = await bench.openAlone(second)
    expect(await bench.run(again.vdis.lookup('a'))).toBeGreaterThan(0)
  })
})
