import { describe, expect, it } from 'vitest'
import { RESULT } from '../../../src/protocol/constants.ts'
import type { SheepRequest } from '../../../src/protocol/message.ts'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import type { Reply } from '../../../src/sheep/server.ts'
import { ClusterBench } from './cluster-bench.ts'

/* What `dog` is told by a node of several: bodies byte by byte, at the offsets of upstream's structs. */
const NODE_BYTES = 80
const ROOM = 491_568
const MIB = 1024 * 1024

const ask = (bench: ClusterBench, at: number, request: SheepRequest) =>
  bench.run(new Promise<Reply>((resolve) => bench.nodes[at]!.running!.node.handle(request, null, resolve)))

/** Address, port, points on the ring, zone, and whether there is room, of each node in an array of sd_node. */
function nodesIn(body: Buffer) {
  const count = Math.floor(body.length / NODE_BYTES)
  const nodes = Array.from({ length: count }, (_, at) => body.subarray(at * NODE_BYTES, (at + 1) * NODE_BYTES))
  const told = nodes.map((node) => ({
    address: [...node.subarray(36, 40)].join('.'),
    port: node.readUInt16LE(40),
    vnodes: node.readUInt16LE(64),
    zone: node.readUInt32LE(68),
    hasRoom: node.readBigUInt64LE(72) > 0n,
  }))
  return told.sort((a, b) => a.zone - b.zone)
}

const expected = (zones: readonly number[], hasRoom = true) =>
  zones.map((zone) => ({ address: `10.0.0.${zone}`, port: 7000, vnodes: 512, zone, hasRoom }))

describe('dog, of a store of three nodes', () => {
  it('is told by each of them where all are, and what they have', async () => {
    const bench = await ClusterBench.open(1, 3)
    for (const at of [0, 1, 2]) {
      const { result, nrNodes, body } = await ask(bench, at, { opcode: 0x82, dataLength: ROOM })
      expect([result, nrNodes]).toEqual([RESULT.SUCCESS, 3])
      expect(nodesIn(body!)).toEqual(expected([1, 2, 3]))
      expect((await ask(bench, at, { opcode: 0xcd })).nrNodes).toBe(512)
      const info = await ask(bench, at, { opcode: 0xbe, dataLength: ROOM })
      expect(info.body!.readUInt16LE(2)).toBe(3)
      expect(nodesIn(info.body!.subarray(48, 48 + 3 * NODE_BYTES))).toEqual(expected([1, 2, 3]))
    }
  })

  it('is told who was in former epochs, and how far what is missing has been brought home', async () => {
    const bench = await ClusterBench.open(2, 3)
    const vid = await bench.run(bench.vdis(0).create('a', 100 * MIB))
    const device = await bench.run(bench.vdis(0).open(vid, { readOnly: false }))
    const first = bench.nodes[0]!.running!.node.sheep.state
    await bench.until(() => bench.isClean() && first.view.voters.length === 3) // members come to vote one after the other
    const { epoch } = first
    bench.kill(bench.nodes[2]!)
    const { state } = bench.nodes[1]!.running!.node.sheep
    const zones = () => state.members.map(({ zone }) => zone).sort()
    await bench.until(() => zones().join() === '1,2' && bench.isIn(bench.nodes[0]!))
    await bench.run(bench.write(device, 0, Buffer.alloc(BLOCK_BYTES, 1)))
    const former = await ask(bench, 1, { opcode: 0xa2, tgtEpoch: epoch, dataLength: ROOM })
    expect(nodesIn(former.body!.subarray(0, 3 * NODE_BYTES)).map(({ zone }) => zone)).toEqual([1, 2, 3])
    const now = await ask(bench, 1, { opcode: 0xa2, tgtEpoch: state.epoch, dataLength: ROOM })
    expect(nodesIn(now.body!.subarray(0, 2 * NODE_BYTES))).toEqual(expected([1, 2]))
    await bench.start(bench.nodes[2]!)
    const recovery = async () => (await ask(bench, 0, { opcode: 0x97, dataLength: 24 })).body!
    await bench.until(() => bench.isIn(bench.nodes[2]!))
    const during = await recovery()
    if (during[0] === 1) expect([during.readUInt32LE(4), during.readBigUInt64LE(16)]).toEqual([1, 1n])
    await bench.until(() => bench.isClean())
    expect((await recovery())[0]).toBe(0)
  })
})
