import { describe, expect, it } from 'vitest'
import { dataOid } from '../../../src/protocol/oid.ts'
import { CopyHolder } from '../../../src/sheep/copies/copy-holder.ts'
import { EngineCopyStore } from '../../../src/sheep/copies/engine-copy-store.ts'
import type { CopyRequest } from '../../../src/sheep/copies/messages.ts'
import { BLOCK_BYTES, objectPath } from '../../../src/sheep/object-format.ts'
import { blocksOf, StoreBench } from '../store-bench.ts'
import { answerOf } from './answer-of.ts'

const VID = 7
const OID = dataOid(VID, 1)
const generation = { epoch: 1, index: 1, incarnation: 'a' }
const version = (sequence: number) => ({ generation, sequence })

/** A holder with an object of three blocks, the second of which is then damaged on the disk. */
async function damaged() {
  const bench = await StoreBench.open()
  const contents = { blocks: [{ first: 0, bytes: blocksOf(1, 2, 3) }], zeros: [] }
  const write = { ...contents, oid: OID, version: version(1), previous: null }
  await bench.clock.run(holderOf(bench).ask({ type: 'write', write, durable: true, watermark: null }))
  await bench.close()
  await bench.patch(objectPath(OID), BLOCK_BYTES, blocksOf(9))
  await bench.open()
  return bench
}

function holderOf(bench: StoreBench) {
  const store = new EngineCopyStore(bench.store)
  const holder = new CopyHolder(store)
  const ask = (request: Asked) => answerOf(holder, { ...request, vid: VID, generation } as CopyRequest)
  return { store, ask }
}

type Asked = CopyRequest extends infer R ? (R extends CopyRequest ? Omit<R, 'vid' | 'generation'> : never) : never

const read = (first: number, count: number) => ({ type: 'read', oid: OID, range: { first, count } }) as const

describe('a block of a copy that does not match its checksum', () => {
  it('is said to be rotten, and is not valid from then on, through a loss of power too; the others are', async () => {
    const bench = await damaged()
    expect(await bench.clock.run(holderOf(bench).ask(read(0, 3)))).toEqual({ refused: 'rotten' })
    await bench.restart('powerLoss')
    const { store, ask } = holderOf(bench)
    const valid = [
      { first: 0, count: 1 },
      { first: 2, count: 1022 },
    ]
    expect(store.stateOf(OID)).toEqual({ version: version(1), kind: 'full', valid })
    expect(await bench.clock.run(ask(read(1, 1)))).toEqual({ refused: 'rotten' })
    const rest = await bench.clock.run(ask(read(2, 2)))
    expect(rest).toMatchObject({
      result: { blocks: [{ first: 2, bytes: blocksOf(3) }], zeros: [{ first: 3, count: 1 }] },
    })
    expect(bench.failure).toBeNull()
  })

  it.each(['a fill', 'a write'])('is good again after %s', async (how) => {
    const bench = await damaged()
    const { store, ask } = holderOf(bench)
    await bench.clock.run(ask(read(1, 1)))
    const contents = { blocks: [{ first: 1, bytes: blocksOf(5) }], zeros: [] }
    const write = { ...contents, oid: OID, version: version(2), previous: version(1) }
    const request: Asked =
      how === 'a fill' ? { type: 'fill', oid: OID, contents } : { type: 'write', write, durable: true, watermark: null }
    expect(await bench.clock.run(ask(request))).toEqual({ refused: null, result: null })
    expect(store.stateOf(OID)?.valid).toEqual([{ first: 0, count: 1024 }])
    expect(await bench.clock.run(ask(read(0, 3)))).toMatchObject({ result: { blocks: [{ bytes: blocksOf(1, 5, 3) }] } })
  })
})

describe('what a whole copy cannot read any more', () => {
  const contentsOf = (byte: number) => ({ blocks: [{ first: 1, bytes: blocksOf(byte) }], zeros: [] })
  const mend = (byte: number): Asked => ({ type: 'mend', oid: OID, contents: contentsOf(byte) })

  it('is put in again, durably, by bytes that match its checksum, and by no others', async () => {
    const bench = await damaged()
    const before = holderOf(bench)
    expect(await bench.clock.run(before.ask(mend(2)))).toEqual({ refused: null, result: false }) // it is not known to be rotten
    await bench.clock.run(before.ask(read(1, 1)))
    await bench.restart('powerLoss')
    const { store, ask } = holderOf(bench)
    expect(await bench.clock.run(ask(mend(3)))).toEqual({ refused: null, result: false })
    expect(await bench.clock.run(ask(read(1, 1)))).toEqual({ refused: 'rotten' })
    expect(await bench.clock.run(ask(mend(2)))).toEqual({ refused: null, result: true })
    expect(store.stateOf(OID)).toEqual({ version: version(1), kind: 'full', valid: [{ first: 0, count: 1024 }] })
    await bench.restart('powerLoss')
    const rest = await bench.clock.run(holderOf(bench).ask(read(0, 3)))
    expect(rest).toMatchObject({ result: { blocks: [{ bytes: blocksOf(1, 2, 3) }] } })
    expect(bench.failure).toBeNull()
  })

  it('is not put in when it was written meanwhile', async () => {
    const bench = await damaged()
    const { ask } = holderOf(bench)
    await bench.clock.run(ask(read(1, 1)))
    const write = { ...contentsOf(7), oid: OID, version: version(2), previous: version(1) }
    const written = ask({ type: 'write', write, durable: true, watermark: null })
    expect(await bench.clock.run(ask(mend(2)))).toEqual({ refused: null, result: false })
    await bench.clock.run(written)
    expect(await bench.clock.run(ask(read(1, 1)))).toMatchObject({ result: contentsOf(7) })
  })

  it('is not put in where the copy lacks it, whatever lies there', async () => {
    const bench = await damaged()
    const { ask } = holderOf(bench)
    const adoption = { oid: OID, version: version(2), kind: 'partial' as const, valid: [{ first: 0, count: 1 }] }
    await bench.clock.run(ask({ type: 'adopt', adoption }))
    expect(await bench.clock.run(ask(mend(2)))).toEqual({ refused: null, result: false })
  })

  it('is among what another one is left with, valid or not', async () => {
    const bench = await damaged()
    const { ask } = holderOf(bench)
    const adoption = { oid: OID, version: version(2), kind: 'partial' as const, valid: [{ first: 0, count: 1 }] }
    await bench.clock.run(ask({ type: 'adopt', adoption }))
    const blocks = [1, 3].map((byte) => ({ first: byte - 1, bytes: blocksOf(byte) }))
    const remains = await bench.clock.run(ask({ type: 'remains', oid: OID, range: { first: 0, count: 9 } }))
    expect(remains).toEqual({ refused: null, result: { blocks, zeros: [] } })
    expect(await bench.clock.run(ask({ type: 'remains', oid: OID + 1n, range: { first: 0, count: 9 } }))).toMatchObject(
      {
        result: { blocks: [] },
      },
    )
  })
})

describe('what a copy inherits', () => {
  it('is said with its base, also by a copy that was filled with it', async () => {
    const bench = await StoreBench.open()
    const { ask } = holderOf(bench)
    const base = dataOid(6, 1)
    const inherited = { base, ranges: [{ first: 1, count: 1023 }] }
    const contents = { blocks: [{ first: 0, bytes: blocksOf(1) }], zeros: [], inherited }
    const write = { ...contents, oid: OID, version: version(1), previous: null }
    await bench.clock.run(ask({ type: 'write', write, durable: true, watermark: null }))
    await bench.restart('powerLoss')
    const answer = await bench.clock.run(holderOf(bench).ask(read(0, 3)))
    expect(answer).toMatchObject({ result: { zeros: [], inherited: { base, ranges: [{ first: 1, count: 2 }] } } })

    const other = await StoreBench.open({ seed: 2 })
    const target = holderOf(other)
    const adoption = { oid: OID, version: version(2), kind: 'partial' as const, valid: [] }
    await other.clock.run(target.ask({ type: 'adopt', adoption }))
    await other.clock.run(target.ask({ type: 'fill', oid: OID, contents }))
    await other.clock.run(target.ask({ type: 'sync' }))
    await other.restart('powerLoss')
    const filled = holderOf(other)
    expect(filled.store.stateOf(OID)?.kind).toBe('full')
    expect(await other.clock.run(filled.ask(read(0, 3)))).toEqual(answer)
  })
})
