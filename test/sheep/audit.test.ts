import { describe, expect, it } from 'vitest'
import { dataOid, formatOid, inodeOid } from '../../src/protocol/oid.ts'
import { BLOCK_BYTES, OBJECT_BYTES, objectPath } from '../../src/sheep/object-format.ts'
import type { Change } from '../../src/sheep/object-store.ts'
import { SheepBench, VDI_BYTES } from './sheep-bench.ts'
import { StoreBench } from './store-bench.ts'

const blocks = (count: number, fill: number) => Buffer.alloc(count * BLOCK_BYTES, fill)

/** Commits changes to a store whose sheep is not running, as no sheep would. */
async function tamper(bench: SheepBench, changes: (nextIndex: number) => Change[]): Promise<void> {
  await bench.run(bench.sheep.close())
  bench.disk.kill()
  const store = new StoreBench({ on: bench })
  await store.open()
  await store.commit(changes((store.entries.at(-1)?.index ?? 0) + 1))
  await store.close()
  await bench.open()
}

async function closed(bench: SheepBench, change: () => void): Promise<void> {
  await bench.run(bench.sheep.close())
  bench.disk.kill()
  change()
  await bench.open()
}

const audit = (bench: SheepBench, repair = false) => bench.run(bench.sheep.audit({ repair }))

describe('an audit', () => {
  it('finds an account that is wrong, and sets it right', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('a')
    await bench.write(bench.session(vid), 0, blocks(3, 1))
    const deltas = new Map([
      [vid, 4],
      [99, 1],
    ])
    await tamper(bench, () => [{ kind: 'account', vid, index: 0, deltas }])
    const found = await audit(bench)
    expect(found.sound).toBe(false)
    expect(found.problems).toMatchObject([{ kind: 'wrong_account', isRepaired: false, where: null }])
    expect(found.problems[0]!.detail).toBe('a: the account says 8 blocks, 3 were counted')
    expect(await audit(bench, true)).toMatchObject({ sound: true, problems: [{ isRepaired: true }] })
    await bench.restart()
    expect(await audit(bench)).toMatchObject({ sound: true, problems: [] })
    expect((await bench.run(bench.sheep.usage())).get(vid)).toMatchObject({ allocatedBytes: 3 * BLOCK_BYTES })
  })

  it('finds objects that belong to nobody, and removes them', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('a')
    await bench.write(bench.session(vid), 0, blocks(3, 1))
    const orphans = [dataOid(0x777, 1), inodeOid(0x777), dataOid(vid, 5)]
    await tamper(bench, () => orphans.map((oid) => ({ kind: 'create', oid, runs: [] })))
    const found = await audit(bench)
    expect(found.problems.map(({ kind }) => kind)).toEqual(orphans.map(() => 'orphan_object'))
    expect(found).toMatchObject({ sound: false, objects: 5 })
    expect(await audit(bench, true)).toMatchObject({ sound: true, problemsTotal: 3, objects: 2 })
    await bench.restart()
    expect(await audit(bench)).toMatchObject({ sound: true, problemsTotal: 0, objects: 2 })
    expect(await bench.read(bench.session(vid), 0, BLOCK_BYTES)).toEqual(blocks(1, 1))
  })

  it('finds rights to what is no VDI, and removes them', async () => {
    const bench = await SheepBench.open()
    await bench.create('a')
    const right = { attachmentId: 'x', nameHash: 'ab'.repeat(32), vid: 0x777, readOnly: false }
    const bytes = Buffer.from(JSON.stringify({ type: 'export', right }))
    await tamper(bench, (index) => [{ kind: 'entry', index, bytes }])
    expect((await audit(bench)).problems).toMatchObject([{ kind: 'dangling_export', isRepaired: false }])
    expect((await audit(bench, true)).sound).toBe(true)
    expect(bench.sheep.state.exports.size).toBe(0)
  })

  it('says which ranges of which VDIs show a block that has rotten, and what a repair cannot mend', async () => {
    const bench = await SheepBench.open()
    const base = await bench.create('a')
    await bench.write(bench.session(base), OBJECT_BYTES, blocks(6, 1))
    const working = (await bench.run(bench.sheep.snapshot(base, 'tag'))).vid
    await bench.run(bench.sheep.createVdi('clone', VDI_BYTES, base))
    await bench.write(bench.session(working), OBJECT_BYTES + 3 * BLOCK_BYTES, blocks(1, 2))
    const path = objectPath(dataOid(base, 1))
    await closed(bench, () => {
      for (const block of [2, 3, 5]) bench.disk.flipBit(path, block * BLOCK_BYTES + 77)
    })
    const report = await audit(bench, true)
    expect(report.sound).toBe(false)
    const where = (vdi: string, snapshot: string, first: number, count: number) => ({
      vdi,
      snapshot,
      offsetBytes: OBJECT_BYTES + first * BLOCK_BYTES,
      lengthBytes: count * BLOCK_BYTES,
    })
    expect(report.problems.map((problem) => problem.where)).toEqual([
      where('a', 'tag', 2, 2),
      where('a', 'tag', 5, 1),
      where('a', '', 2, 1), // it has written block 3 itself
      where('a', '', 5, 1),
      where('clone', '', 2, 2),
      where('clone', '', 5, 1),
    ])
    expect(report.problems.every(({ kind, isRepaired }) => kind === 'corrupt_block' && !isRepaired)).toBe(true)
    expect(report.problems[0]!.detail).toBe(`object ${formatOid(dataOid(base, 1))}, blocks 2–3, 5`)
    // Who restores the range has a sound VDI again.
    await bench.write(bench.session(working), OBJECT_BYTES + 2 * BLOCK_BYTES, blocks(4, 7))
    const names = (await audit(bench)).problems.map((problem) => problem.where?.snapshot || problem.where?.vdi)
    expect(new Set(names)).toEqual(new Set(['tag', 'clone']))
  })

  it('names all of the object, or all that a page of the map covers, when those cannot be read', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('a')
    await bench.write(bench.session(vid), OBJECT_BYTES, blocks(6, 1))
    await closed(bench, () => bench.disk.flipBit(objectPath(dataOid(vid, 1)), OBJECT_BYTES + 2 * BLOCK_BYTES))
    const object = await audit(bench)
    expect(object.problems).toMatchObject([{ where: { offsetBytes: OBJECT_BYTES, lengthBytes: OBJECT_BYTES } }])
    // It can be given up as a whole; what the account still says of it is set right by a repair.
    await bench.discard(bench.session(vid), OBJECT_BYTES, OBJECT_BYTES)
    expect((await audit(bench)).problems).toMatchObject([{ kind: 'wrong_account' }])
    expect((await audit(bench, true)).sound).toBe(true)

    await bench.write(bench.session(vid), 0, blocks(1, 1))
    await closed(bench, () => bench.disk.flipBit(objectPath(inodeOid(vid)), 9))
    const map = await audit(bench)
    expect(map.problems[0]).toMatchObject({ kind: 'corrupt_block', where: { offsetBytes: 0, lengthBytes: VDI_BYTES } })
  })

  it('finds objects that are missing, and blocks inherited from what is not there', async () => {
    const bench = await SheepBench.open()
    const base = await bench.create('a')
    await bench.write(bench.session(base), 0, blocks(6, 1))
    await bench.write(bench.session(base), OBJECT_BYTES, blocks(6, 1))
    const working = (await bench.run(bench.sheep.snapshot(base, 'tag'))).vid
    await bench.write(bench.session(working), 0, blocks(2, 2))
    await tamper(bench, () => [{ kind: 'remove', oid: dataOid(base, 0) }])
    const { problems } = await audit(bench)
    expect(problems).toMatchObject([
      { kind: 'wrong_account' },
      { kind: 'missing_object', where: { vdi: 'a', snapshot: 'tag', offsetBytes: 0, lengthBytes: OBJECT_BYTES } },
      { kind: 'dangling_block', where: { vdi: 'a', snapshot: '', offsetBytes: 2 * BLOCK_BYTES } },
    ])
  })

  it('says how far it is', async () => {
    const bench = await SheepBench.open()
    await bench.write(bench.session(await bench.create('a')), 0, blocks(6, 1))
    const auditing = bench.sheep.audit()
    const phases = new Set<string | undefined>()
    for (let i = 0; i < 50; i++) {
      await bench.step(1)
      phases.add(bench.sheep.auditProgress?.phase)
    }
    await bench.run(auditing)
    expect(phases).toEqual(new Set([undefined, 'references', 'blocks']))
    expect(bench.sheep.auditProgress).toBe(null)
  })
})
