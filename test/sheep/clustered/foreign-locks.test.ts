import { describe, expect, it } from 'vitest'
import { FLAG, RESULT } from '../../../src/protocol/constants.ts'
import type { SheepRequest } from '../../../src/protocol/message.ts'
import { dataOid } from '../../../src/protocol/oid.ts'
import { OP } from '../../../src/protocol/opcodes.ts'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import { type BenchNode, benchWithOwner, type ClusterBench } from './cluster-bench.ts'
import { connectForeign, lockRequest, openAsQemu } from './foreign-connection.ts'

const release = (bench: ClusterBench): SheepRequest => ({
  opcode: OP.RELEASE_VDI,
  baseVdiId: stateAt(bench, 0).vdis.of('a')[0]!.vid,
})

const write = (vid: number, fill: number): SheepRequest => ({
  opcode: OP.WRITE_OBJ,
  flags: FLAG.WRITE,
  oid: dataOid(vid, 0),
  offset: 0,
  body: Buffer.alloc(BLOCK_BYTES, fill),
})

const read = (vid: number): SheepRequest => ({
  opcode: OP.READ_OBJ,
  oid: dataOid(vid, 0),
  offset: 0,
  dataLength: BLOCK_BYTES,
})

const stateAt = (bench: ClusterBench, at: number) => bench.nodes[at]!.running!.node.sheep.state

/** As QEMU opens it. */
async function qemuOpens(bench: ClusterBench, node: BenchNode) {
  const { io, locked } = openAsQemu(node, 'a')
  expect((await bench.run(locked)).result).toBe(RESULT.SUCCESS)
  return io
}

describe('the lock of a client whose gateway does not own the VDI', () => {
  it('lives as long as its connection for I/O, also when nothing is sent over it', async () => {
    const { bench } = await benchWithOwner()
    await qemuOpens(bench, bench.nodes[1]!)
    await bench.pass(15_000)
    expect(stateAt(bench, 0).locks.has('a')).toBe(true)
  })

  it('outlives a link that broke while its client asked for nothing', async () => {
    const { bench, vid } = await benchWithOwner()
    const io = await qemuOpens(bench, bench.nodes[1]!)
    expect((await bench.run(io.ask({ ...write(vid, 1), opcode: OP.CREATE_AND_WRITE_OBJ }))).result).toBe(RESULT.SUCCESS)
    bench.network.reset(bench.nodes[1]!.name)
    await bench.pass(15_000)
    expect(stateAt(bench, 0).locks.has('a')).toBe(true)
  })

  it('ends when the client has gone', async () => {
    const { bench } = await benchWithOwner()
    const io = await qemuOpens(bench, bench.nodes[1]!)
    await bench.pass(15_000)
    io.close()
    await bench.until(() => !stateAt(bench, 0).locks.has('a'), 25_000)
  })

  it('ends when the gateway has gone with its clients', async () => {
    const { bench } = await benchWithOwner()
    await qemuOpens(bench, bench.nodes[1]!)
    await bench.pass(15_000)
    await bench.kill(bench.nodes[1]!)
    await bench.until(() => !stateAt(bench, 0).locks.has('a'), 40_000)
  })

  it('ends when the gateway is put out, of which nobody learns by the link', async () => {
    const { bench, vid } = await benchWithOwner()
    const io = await qemuOpens(bench, bench.nodes[1]!)
    expect((await bench.run(io.ask({ ...write(vid, 1), opcode: OP.CREATE_AND_WRITE_OBJ }))).result).toBe(RESULT.SUCCESS)
    bench.stop(bench.nodes[1]!)
    await bench.until(() => !stateAt(bench, 0).locks.has('a'), 30_000)
  })

  it('is not kept alive by another client of the same gateway', async () => {
    const { bench, vid } = await benchWithOwner()
    const other = await bench.run(bench.vdis(0).create('b', 100 * BLOCK_BYTES))
    const io = await qemuOpens(bench, bench.nodes[1]!)
    const neighbour = connectForeign(bench.nodes[1]!)
    const creating = { ...write(other, 1), opcode: OP.CREATE_AND_WRITE_OBJ }
    expect((await bench.run(neighbour.ask(creating))).result).toBe(RESULT.SUCCESS)
    expect((await bench.run(neighbour.ask(read(vid)))).result).toBe(RESULT.NO_OBJ)
    io.close()
    await bench.until(() => !stateAt(bench, 0).locks.has('a'), 25_000)
  })

  it('goes from a client to the next one of the same gateway, when it is released', async () => {
    const { bench, vid } = await benchWithOwner()
    const gateway = bench.nodes[1]!
    const io = await qemuOpens(bench, gateway)
    expect((await bench.run(io.ask(read(vid)))).result).toBe(RESULT.NO_OBJ)
    expect((await bench.run(connectForeign(gateway).ask(release(bench)))).result).toBe(RESULT.SUCCESS)
    expect(stateAt(bench, 0).locks.has('a')).toBe(false)
    const next = await qemuOpens(bench, gateway)
    next.close()
    await bench.until(() => !stateAt(bench, 0).locks.has('a'), 25_000) // the first one is connected still
    io.close()
  })

  it('lives on at the next owner, also when nothing is sent', async () => {
    const { bench, vid } = await benchWithOwner()
    await qemuOpens(bench, bench.nodes[1]!)
    await bench.kill(bench.nodes[0]!)
    await bench.until(() => stateAt(bench, 2).members.length === 2)
    expect((await bench.run(connectForeign(bench.nodes[2]!).ask(read(vid)))).result).toBe(RESULT.NO_OBJ)
    expect(bench.nodes[2]!.running!.node.store.owns(vid)).toBe(true)
    await bench.pass(30_000)
    expect(stateAt(bench, 2).locks.has('a')).toBe(true)
  })

  it('lets him write to the next owner', async () => {
    const { bench, vid } = await benchWithOwner()
    const io = await qemuOpens(bench, bench.nodes[0]!)
    expect((await bench.run(io.ask({ ...write(vid, 1), opcode: OP.CREATE_AND_WRITE_OBJ }))).result).toBe(RESULT.SUCCESS)
    expect((await bench.run(io.ask(write(vid, 2)))).result).toBe(RESULT.SUCCESS)
    bench.cutOff(bench.nodes[0]!)
    await bench.until(() => stateAt(bench, 1).members.length === 2)
    expect((await bench.run(connectForeign(bench.nodes[1]!).ask(read(vid)))).result).toBe(RESULT.SUCCESS)
    expect(bench.nodes[1]!.running!.node.store.owns(vid)).toBe(true)
    bench.heal()
    await bench.allIn()
    expect((await bench.run(io.ask(write(vid, 3)))).result).toBe(RESULT.SUCCESS)
  })

  it.each([0, 1])('ends when its connection for I/O has gone before it was granted: gateway %i', async (at) => {
    const { bench } = await benchWithOwner()
    const { io, locked } = openAsQemu(bench.nodes[at]!, 'a')
    io.close()
    expect((await bench.run(locked)).result).toBe(RESULT.SUCCESS)
    await bench.until(() => !stateAt(bench, 0).locks.has('a'), 25_000)
  })

  it.each([0, 1])('is not taken for a client that has gone while it waited for an owner: gateway %i', async (at) => {
    const { bench } = await benchWithOwner()
    const gateway = bench.nodes[at]!
    bench.cutOff(gateway)
    await bench.pass(15_000)
    const client = connectForeign(gateway)
    void client.ask(lockRequest('a'))
    await bench.pass(100)
    client.close()
    bench.heal()
    await bench.allIn()
    await bench.pass(5000)
    await bench.until(() => bench.nodes.every((_, each) => !stateAt(bench, each).locks.has('a')), 25_000)
  })

  it('is not that of a client any more from whom it was taken, also over another link', async () => {
    const { bench, vid } = await benchWithOwner()
    const gateway = bench.nodes[1]!
    const io = await qemuOpens(bench, gateway)
    const creating = { ...write(vid, 1), opcode: OP.CREATE_AND_WRITE_OBJ }
    expect((await bench.run(io.ask(creating))).result).toBe(RESULT.SUCCESS)
    await bench.run(bench.nodes[0]!.running!.node.sheep.unlock('a'))
    const next = await qemuOpens(bench, gateway)
    expect((await bench.run(next.ask(write(vid, 2)))).result).toBe(RESULT.SUCCESS)
    bench.network.reset(gateway.name)
    await bench.pass(2000)
    expect((await bench.run(io.ask(write(vid, 3)))).result).toBe(RESULT.VDI_LOCKED)
    expect((await bench.run(next.ask(write(vid, 4)))).result).toBe(RESULT.SUCCESS)
  })
})
