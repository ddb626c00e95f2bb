import { expect, it } from 'vitest'
import { FLAG, RESULT } from '../../../src/protocol/constants.ts'
import type { SheepRequest } from '../../../src/protocol/message.ts'
import { vmstateOid } from '../../../src/protocol/oid.ts'
import { OP } from '../../../src/protocol/opcodes.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../../src/sheep/object-format.ts'
import type { Reply } from '../../../src/sheep/server.ts'
import { ClusterBench } from './cluster-bench.ts'

const VDI_BYTES = 2 * OBJECT_BYTES

/** As QEMU asks for it, by way of one node. */
function ask(bench: ClusterBench, at: number, request: SheepRequest): Promise<Reply> {
  const { node } = bench.nodes[at]!.running!
  const client = { id: at, peer: '127.0.0.1', cut: () => {} }
  return bench.run(new Promise<Reply>((resolve) => node.handle(request, client, resolve)))
}

const write = (bench: ClusterBench, at: number, oid: bigint, offset: number, body: Buffer, creates = false) =>
  ask(bench, at, {
    opcode: creates ? OP.CREATE_AND_WRITE_OBJ : OP.WRITE_OBJ,
    flags: FLAG.WRITE,
    ...{ oid, offset, body, dataLength: body.length },
  })

const read = (bench: ClusterBench, at: number, oid: bigint, offset: number, dataLength: number) =>
  ask(bench, at, { opcode: OP.READ_OBJ, oid, offset, dataLength })

const audit = (bench: ClusterBench, at: number) => bench.run(bench.nodes[at]!.running!.node.sheep.audit({}))

it('machine state is on as many nodes as the rest of its VDI, and goes with the snapshot that has it', async () => {
  const bench = await ClusterBench.open(1, 3)
  const vid = await bench.run(bench.vdis(0).create('vm', VDI_BYTES))
  const isKnown = (of: number) => bench.nodes.every(({ running }) => running!.node.sheep.state.vdis.has(of))
  await bench.until(() => isKnown(vid))
  const [first, third] = [vmstateOid(vid, 0), vmstateOid(vid, 2)]
  const bytes = Buffer.from('memory of a machine'.repeat(1000))

  // At any alignment, by way of any node; the objects below are there as well.
  expect((await write(bench, 1, third, 777, bytes, true)).result).toBe(RESULT.SUCCESS)
  expect((await write(bench, 2, first, BLOCK_BYTES - 1, Buffer.from('ab'))).result).toBe(RESULT.SUCCESS)
  expect((await read(bench, 0, third, 777, bytes.length)).body).toEqual(bytes)
  expect((await read(bench, 1, first, BLOCK_BYTES - 2, 4)).body).toEqual(Buffer.from('\0ab\0'))
  expect((await read(bench, 1, vmstateOid(vid, 3), 0, 1)).result).toBe(RESULT.NO_OBJ)
  // What is created anew has nothing of what was there.
  expect((await write(bench, 0, third, 780, Buffer.from('x'), true)).result).toBe(RESULT.SUCCESS)
  expect((await read(bench, 1, third, 777, 5)).body).toEqual(Buffer.from('\0\0\0x\0'))
  expect((await write(bench, 1, third, 777, bytes, true)).result).toBe(RESULT.SUCCESS)

  const current = await bench.run(bench.vdis(1).snapshot(vid, 'saved'))
  await bench.until(() => isKnown(current))
  expect((await write(bench, 1, first, 0, Buffer.from('late'))).result).toBe(RESULT.READONLY)
  expect((await read(bench, 1, vmstateOid(current, 0), 0, 1)).result).toBe(RESULT.NO_OBJ)
  expect(await audit(bench, 0)).toMatchObject({ sound: true, problemsTotal: 0, objects: 2 + 3 })

  // Whoever owned it is lost, with its disk.
  const owner = bench.nodes.findIndex(({ running }) => running!.node.store.owns(vid))
  const others = [0, 1, 2].filter((at) => at !== owner)
  const viewOf = (at: number) => bench.nodes[at]!.running!.node.sheep.state.view
  await bench.until(() => bench.isHome() && viewOf(owner).voters.length === 3)
  bench.kill(bench.nodes[owner]!, true)
  await bench.until(() => others.every((at) => viewOf(at).members.length === 2))
  for (const at of others) expect((await read(bench, at, third, 777, bytes.length)).body).toEqual(bytes)
  await bench.start(bench.nodes[owner]!)
  await bench.until(() => bench.nodes.every((node) => bench.isIn(node)) && bench.isClean() && bench.isHome(), 120_000)
  expect(await audit(bench, others[0]!)).toMatchObject({ sound: true, problemsTotal: 0, objects: 2 + 3 })

  await bench.run(bench.vdis(others[0]!).remove('vm', 'saved'))
  await bench.run(bench.vdis(others[1]!).remove('vm'))
  await bench.until(() => bench.objects().length === 0)
})

it('machine state that is about to be made when a node comes is where it belongs when it is made', async () => {
  const bench = await ClusterBench.open(1, 4, { copies: 1, rebalanceDelayMs: 1000 })
  const state = bench.nodes[0]!.running!.node.sheep.state
  await bench.until(() => state.view.voters.length === 3)
  const late = bench.nodes.find(({ running }) => !state.view.voters.includes(running!.node.store.member.life.node))!
  bench.kill(late)
  await bench.until(() => state.members.length === 3 && state.view.away === undefined)
  const vid = await bench.run(bench.vdis(bench.nodes[0] === late ? 1 : 0).create('vm', VDI_BYTES))
  const owner = bench.nodes.findIndex((node) => node !== late && node.running!.node.store.owns(vid))
  const { store } = bench.nodes[owner]!.running!.node
  await bench.until(() => bench.isHome())

  const propose = store.propose.bind(store)
  let letPass = () => {}
  const passes = new Promise<void>((resolve) => (letPass = resolve))
  store.propose = async (entry) => {
    if (entry.type === 'vmstate') await passes // the objects are there, and the log says nothing of them yet
    return propose(entry)
  }
  const indices = Array.from({ length: 12 }, (_, index) => index)
  const isWritten = write(bench, owner, vmstateOid(vid, indices.length - 1), 0, Buffer.from('end'), true)
  await bench.start(late)
  await bench.until(() => bench.isIn(late))
  await bench.pass(5000) // for all else to be where it belongs
  letPass()
  expect((await isWritten).result).toBe(RESULT.SUCCESS)
  await bench.pass(5000)
  await bench.until(() => bench.isHome())
  for (const index of indices)
    expect([index, (await read(bench, owner, vmstateOid(vid, index), 0, 1)).result]).toEqual([index, RESULT.SUCCESS])
})
