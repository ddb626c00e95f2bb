import { describe, expect, it, vi } from 'vitest'
import { FLAG, RESULT } from '../../../src/protocol/constants.ts'
import type { SheepRequest } from '../../../src/protocol/message.ts'
import { dataOid } from '../../../src/protocol/oid.ts'
import { OP } from '../../../src/protocol/opcodes.ts'
import type { ClusteredSheep } from '../../../src/sheep/clustered/clustered-sheep.ts'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import { runSeeds } from '../../sim/seeds.ts'
import { benchWithOwner } from './cluster-bench.ts'
import { connectForeign, openAsQemu } from './foreign-connection.ts'
import { QemuModel } from './qemu-model.ts'

const write = (vid: number, fill: number): SheepRequest => ({
  opcode: OP.CREATE_AND_WRITE_OBJ,
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

describe('what a client of the original protocol asks of a gateway that does not own the VDI', () => {
  it('is answered when the owner ends', async () => {
    const { bench, vid } = await benchWithOwner()
    const { io, locked } = openAsQemu(bench.nodes[1]!, 'a')
    expect((await bench.run(locked)).result).toBe(RESULT.SUCCESS)
    expect((await bench.run(io.ask(write(vid, 1)))).result).toBe(RESULT.SUCCESS)
    const written = io.ask(write(vid, 2))
    const found = io.ask(read(vid))
    await bench.pass(1)
    bench.kill(bench.nodes[0]!)
    expect((await bench.run(written)).result).toBe(RESULT.SUCCESS)
    expect((await bench.run(found)).result).toBe(RESULT.SUCCESS)
    expect((await bench.run(io.ask(read(vid)))).body).toEqual(Buffer.alloc(BLOCK_BYTES, 2))
  })

  it('is done once, or twice one after the other, when the link to the owner breaks', async () => {
    const { bench, vid } = await benchWithOwner()
    const { io, locked } = openAsQemu(bench.nodes[1]!, 'a')
    expect((await bench.run(locked)).result).toBe(RESULT.SUCCESS)
    for (let fill = 1; fill < 20; fill++) {
      const written = [io.ask(write(vid, fill)), io.ask(write(vid, 100 + fill))] // the second waits for the first
      await bench.pass(fill % 4)
      bench.network.reset(bench.nodes[1]!.name)
      for (const { result } of await bench.run(Promise.all(written))) expect(result).toBe(RESULT.SUCCESS)
      expect((await bench.run(io.ask(read(vid)))).body).toEqual(Buffer.alloc(BLOCK_BYTES, 100 + fill))
    }
  })

  it('is not done after what another client did, who has had the lock meanwhile', async () => {
    const { bench, vid } = await benchWithOwner()
    const gateway = bench.nodes[1]!
    const { io, locked } = openAsQemu(gateway, 'a')
    expect((await bench.run(locked)).result).toBe(RESULT.SUCCESS)
    expect((await bench.run(io.ask(write(vid, 1)))).result).toBe(RESULT.SUCCESS)
    bench.cutOff(gateway)
    let late = -1
    void io.ask(write(vid, 2)).then(({ result }) => {
      late = result
    })
    bench.network.reset(gateway.name) // as the owner learns by keepalive
    await bench.until(() => bench.nodes[0]!.running!.node.sheep.state.locks.size === 0)
    const other = openAsQemu(bench.nodes[0]!, 'a')
    expect((await bench.run(other.locked)).result).toBe(RESULT.SUCCESS)
    expect((await bench.run(other.io.ask(write(vid, 3)))).result).toBe(RESULT.SUCCESS)
    const release = { opcode: OP.RELEASE_VDI, baseVdiId: vid }
    expect((await bench.run(connectForeign(bench.nodes[0]!).ask(release))).result).toBe(RESULT.SUCCESS)
    bench.heal()
    await bench.allIn()
    await bench.pass(5000)
    expect(late).toBe(RESULT.VDI_LOCKED)
    expect((await bench.run(other.io.ask(read(vid)))).body).toEqual(Buffer.alloc(BLOCK_BYTES, 3))
  })

  it('is not done when it comes from a former life of its node', async () => {
    const { bench } = await benchWithOwner()
    const [{ store }, { store: there }] = bench.nodes.map(({ running }) => running!.node) as [
      ClusteredSheep,
      ClusteredSheep,
    ]
    const gatewayOf = vi.spyOn(store.member, 'gatewayOf')
    gatewayOf.mockReturnValue(there.member.life)
    expect(store.knowsGatewayOf({})).toBe(true)
    gatewayOf.mockReturnValue({ ...there.member.life, incarnation: 'before' })
    expect(store.knowsGatewayOf({})).toBe(false)
  })

  it('is lost in no fault, and none is seen', async () => {
    await runSeeds('test/sheep/clustered/foreign-faults.test.ts', 6, async (seed) => {
      const { writes, reads } = await QemuModel.run(seed, { faults: 8, operations: 300 })
      expect(writes + reads).toBeGreaterThan(250)
    })
  })
})
