import { describe, expect, it } from 'vitest'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../src/sheep/object-format.ts'
import { answered, SheepBench } from './sheep-bench.ts'

const NAME_HASH = 'ab'.repeat(32)
const right = (vid: number, fields = {}) => ({
  attachmentId: 'one',
  nameHash: NAME_HASH,
  vid,
  readOnly: false,
  ...fields,
})
const block = (fill: number) => Buffer.alloc(BLOCK_BYTES, fill)

describe('sessions', () => {
  it('under an export right last until it is removed, and removing waits for what is under way', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('a')
    await bench.run(bench.sheep.putExport(right(vid)))
    const session = bench.sheep.sessions.openExport(NAME_HASH)
    const order: string[] = []
    const writes = [0, 1, 2].map((i) =>
      answered((done) => session.write(i * BLOCK_BYTES, block(7), true, done)).then(() => order.push('written')),
    )
    const removed = bench.sheep.removeExport('one').then(() => order.push('removed'))
    await bench.run(removed)
    await Promise.all(writes)
    expect(order).toEqual(['written', 'written', 'written', 'removed'])
    for (const request of [
      answered((done) => session.write(0, block(8), false, done)),
      answered((done) => session.read(0, block(0), done)),
      answered((done) => session.discard(0, BLOCK_BYTES, false, done)),
      answered((done) => session.flush(done)),
      session.extents(0, BLOCK_BYTES),
    ]) {
      await expect(request).rejects.toMatchObject({ code: 'Fenced' })
    }
    expect(() => bench.sheep.sessions.get(session.id)).toThrow(expect.objectContaining({ code: 'Fenced' }))
    expect(() => bench.sheep.sessions.openExport(NAME_HASH)).toThrow(expect.objectContaining({ code: 'NoExport' }))
    expect(await bench.read(bench.session(vid), 0, BLOCK_BYTES)).toEqual(block(7))
  })

  it('opened again under a right wait for what was under way when the connection went', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('a')
    await bench.run(bench.sheep.putExport(right(vid)))
    const client = {}
    const before = await bench.run(bench.sheep.openExport(NAME_HASH, client, null))
    const order: string[] = []
    const written = answered((done) => before.write(0, block(1), true, done)).then(() => order.push('written'))
    const closed = bench.sheep.sessions.closeOf(client)
    const opened = bench.sheep.openExport(NAME_HASH, {}, null).then(() => order.push('opened'))
    await bench.run(Promise.all([written, closed, opened]))
    expect(order).toEqual(['written', 'opened'])
  })

  it('refuse what comes after fencing began, though earlier requests are still under way', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('a')
    await bench.run(bench.sheep.putExport(right(vid)))
    const session = bench.sheep.sessions.openExport(NAME_HASH)
    const early = answered((done) => session.write(0, block(1), true, done))
    const fenced = bench.sheep.removeExport('one')
    await bench.run(fenced.then(() => early))
    await expect(answered((done) => session.write(0, block(2), true, done))).rejects.toMatchObject({ code: 'Fenced' })
    expect(await bench.read(bench.session(vid), 0, BLOCK_BYTES)).toEqual(block(1))
  })

  it('under the old name of an attachment end when it gets a new one', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('a')
    await bench.run(bench.sheep.putExport(right(vid)))
    const old = bench.sheep.sessions.openExport(NAME_HASH)
    const newHash = 'cd'.repeat(32)
    await bench.run(bench.sheep.putExport(right(vid, { nameHash: newHash })))
    await expect(answered((done) => old.write(0, block(1), false, done))).rejects.toMatchObject({ code: 'Fenced' })
    await bench.write(bench.sheep.sessions.openExport(newHash), 0, block(2))
  })

  it('of one connection are bounded, and leave room for others', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('a')
    const { sessions } = bench.sheep
    const [greedy, other] = [{}, {}]
    for (let count = 0; count < 2048; count++) sessions.openAnonymous(vid, true, greedy)
    expect(() => sessions.openAnonymous(vid, true, greedy)).toThrow(expect.objectContaining({ code: 'Busy' }))
    sessions.openAnonymous(vid, true, other)
    sessions.openAnonymous(vid, true, null)
    await sessions.closeOf(greedy)
    expect(sessions.size).toBe(2)
    sessions.openAnonymous(vid, true, greedy)
  })

  it('of one attachment leave those of another alone', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('a')
    const otherHash = 'cd'.repeat(32)
    await bench.run(bench.sheep.putExport(right(vid)))
    await bench.run(bench.sheep.putExport(right(vid, { attachmentId: 'two', nameHash: otherHash })))
    const other = bench.sheep.sessions.openExport(otherHash)
    await bench.run(bench.sheep.removeExport('one'))
    await bench.write(other, 0, block(3))
  })

  it('cannot be opened under the name of another attachment', async () => {
    const bench = await SheepBench.open()
    const [a, b] = [await bench.create('a'), await bench.create('b')]
    await bench.run(bench.sheep.putExport(right(a)))
    const twice = bench.sheep.putExport(right(b, { attachmentId: 'two' }))
    await expect(bench.run(twice)).rejects.toMatchObject({ code: 'InvalidParameters' })
    expect(bench.sheep.sessions.openExport(NAME_HASH).vid).toBe(a)
  })

  it('under a read-only right read', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('a')
    await bench.run(bench.sheep.putExport(right(vid, { readOnly: true })))
    const session = bench.sheep.sessions.openExport(NAME_HASH)
    expect(await bench.read(session, 0, 512)).toEqual(Buffer.alloc(512))
    await bench.run(answered((done) => session.flush(done)))
    await expect(bench.write(session, 0, block(1))).rejects.toMatchObject({ code: 'ReadOnly' })
    await expect(bench.discard(session, 0, BLOCK_BYTES)).rejects.toMatchObject({ code: 'ReadOnly' })
  })

  it('without a right are refused on a VDI under an attachment, but for reading', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('a')
    await bench.run(bench.sheep.putExport(right(vid)))
    expect(() => bench.session(vid)).toThrow(expect.objectContaining({ code: 'VdiLocked' }))
    const reading = bench.sheep.sessions.openAnonymous(vid, true)
    await expect(bench.write(reading, 0, block(1))).rejects.toMatchObject({ code: 'ReadOnly' })
    await bench.run(bench.sheep.removeExport('one'))
    await bench.write(bench.session(vid), 0, block(1))
  })

  it('without a right that may write end when their VDI comes under an attachment', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('a')
    const writing = bench.session(vid)
    const reading = bench.sheep.sessions.openAnonymous(vid, true)
    const early = answered((done) => writing.write(0, block(1), false, done))
    await bench.run(Promise.all([bench.sheep.putExport(right(vid)), early]))
    await expect(bench.write(writing, 0, block(2))).rejects.toMatchObject({ code: 'Fenced' })
    expect(await bench.read(reading, 0, BLOCK_BYTES)).toEqual(block(1))
  })

  it('on a snapshot read what it froze', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('a')
    const session = bench.session(vid)
    await bench.write(session, 0, block(1))
    await bench.run(bench.sheep.snapshot(vid, 'tag'))
    await bench.write(session, 0, block(2))
    const frozen = bench.session(vid)
    expect(await bench.read(frozen, 0, BLOCK_BYTES)).toEqual(block(1))
    await expect(bench.write(frozen, 0, block(3))).rejects.toMatchObject({ code: 'ReadOnly' })
  })

  it('go on over a snapshot, with an export right that follows the working VDI', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('a')
    await bench.run(bench.sheep.putExport(right(vid)))
    const session = bench.sheep.sessions.openExport(NAME_HASH)
    const writes: Promise<void>[] = []
    const taken = bench.sheep.snapshot(vid, 'tag')
    for (let i = 0; i < 20; i++) {
      writes.push(answered((done) => session.write(i * BLOCK_BYTES, block(9), false, done)))
      await bench.step(1)
    }
    const working = await bench.run(taken)
    await bench.run(Promise.all(writes))
    expect(session.vid).toBe(working.vid)
    expect(await bench.read(session, 0, 20 * BLOCK_BYTES)).toEqual(Buffer.alloc(20 * BLOCK_BYTES, 9))
    await bench.run(bench.sheep.removeExport('one'))
    await expect(answered((done) => session.write(0, block(1), false, done))).rejects.toMatchObject({ code: 'Fenced' })
    expect((await bench.audit()).problems).toEqual([])
  })

  it('opened at any moment of a snapshot see one VDI with one sequencer', async () => {
    for (let moment = 0; moment < 40; moment++) {
      const bench = await SheepBench.open({ seed: moment })
      const vid = await bench.create('a')
      await bench.run(bench.sheep.putExport(right(vid)))
      const first = bench.sheep.sessions.openExport(NAME_HASH)
      await bench.write(first, 0, block(1))
      const taken = bench.sheep.snapshot(vid, 'tag')
      await bench.step(moment)
      // A client comes, another goes, and one looks at the VDI by its vid, which may be the snapshot's by now.
      const second = bench.sheep.sessions.openExport(NAME_HASH)
      const reader = bench.sheep.sessions.openAnonymous(vid, true)
      const isFrozen = bench.sheep.state.get(vid).snapshotAt > 0
      await bench.run(taken)
      // Each writes to an object that the other one has not seen; both must know both.
      await bench.write(second, OBJECT_BYTES, block(2))
      await bench.write(first, OBJECT_BYTES + BLOCK_BYTES, block(3))
      await bench.write(first, 0, block(4))
      for (const session of [first, second]) {
        expect(await bench.read(session, 0, BLOCK_BYTES)).toEqual(block(4))
        expect(await bench.read(session, OBJECT_BYTES, 2 * BLOCK_BYTES)).toEqual(Buffer.concat([block(2), block(3)]))
      }
      if (isFrozen) expect(await bench.read(reader, 0, BLOCK_BYTES)).toEqual(block(1))
      expect(await bench.read(bench.session(vid), 0, BLOCK_BYTES)).toEqual(block(1))
      expect((await bench.audit()).problems).toEqual([])
    }
  })

  it('that change hands at any moment of a snapshot lose nothing', async () => {
    for (let moment = 0; moment < 40; moment++) {
      const bench = await SheepBench.open({ seed: moment })
      const vid = await bench.create('a')
      await bench.run(bench.sheep.putExport(right(vid)))
      await bench.write(bench.sheep.sessions.openExport(NAME_HASH), 0, block(1))
      // Nothing is loaded after a clean start, so that the snapshot takes its time between freezing and its entry.
      await bench.run(bench.sheep.close())
      await bench.restart()
      const old = bench.sheep.sessions.openExport(NAME_HASH)
      const taken = bench.sheep.snapshot(vid, 'tag')
      await bench.step(moment)
      const closed = bench.sheep.sessions.close(old.id)
      await new Promise<void>((resolve) => setImmediate(resolve))
      const session = bench.sheep.sessions.openExport(NAME_HASH)
      const written = answered((done) => session.write(0, block(2), true, done))
      const working = await bench.run(taken)
      await bench.run(Promise.all([written, closed]))
      expect(session.vid).toBe(working.vid)
      expect(await bench.read(session, 0, BLOCK_BYTES)).toEqual(block(2))
      expect((await bench.audit()).problems).toEqual([])
      await bench.restart()
      expect(await bench.read(bench.sheep.sessions.openExport(NAME_HASH), 0, BLOCK_BYTES)).toEqual(block(2))
    }
  })

  it('see a VDI grow at once, also while a snapshot of it is taken', async () => {
    for (let moment = 0; moment < 30; moment++) {
      const bench = await SheepBench.open({ seed: moment })
      const vid = await bench.create('a', OBJECT_BYTES)
      const session = bench.session(vid)
      await bench.write(session, 0, block(1))
      const grown = bench.sheep.resizeVdi(vid, 2 * OBJECT_BYTES)
      const taken = bench.sheep.snapshot(vid, 'tag')
      await bench.step(moment)
      await bench.run(Promise.all([grown, taken]))
      expect(session.sizeBytes).toBe(2 * OBJECT_BYTES)
      await bench.write(session, 2 * OBJECT_BYTES - BLOCK_BYTES, block(5))
    }
  })

  it('that are open keep a VDI from being deleted', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('a')
    const session = bench.session(vid)
    await expect(bench.run(bench.sheep.deleteVdi(vid))).rejects.toMatchObject({ code: 'VdiInUse' })
    await bench.run(bench.sheep.sessions.close(session.id))
    await bench.run(bench.sheep.deleteVdi(vid))
    expect(() => bench.session(vid)).toThrow(expect.objectContaining({ code: 'NoVdi' }))
  })

  it('of a connection end with it, and no others', async () => {
    const bench = await SheepBench.open()
    const vid = await bench.create('a')
    const [here, there] = [{}, {}]
    const mine = bench.sheep.sessions.openAnonymous(vid, false, here)
    const other = bench.sheep.sessions.openAnonymous(vid, false, there)
    await bench.run(bench.sheep.sessions.closeOf(here))
    await expect(bench.write(mine, 0, block(1))).rejects.toMatchObject({ code: 'Fenced' })
    await bench.write(other, 0, block(1))
  })
})
