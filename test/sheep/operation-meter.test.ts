import { expect, it } from 'vitest'
import { RESULT } from '../../src/protocol/constants.ts'
import { OP } from '../../src/protocol/opcodes.ts'
import { OperationMeter } from '../../src/sheep/operation-meter.ts'
import type { Reply } from '../../src/sheep/server.ts'
import { SimClock } from '../sim/clock.ts'
import { SeededRandom } from '../sim/random.ts'

function setUp() {
  const sim = new SimClock(new SeededRandom(1))
  const clock = sim.mount()
  const meter = new OperationMeter(clock)
  const replies: Reply[] = []
  const counts = () => new Map([...meter.counts()].map((each) => [each.operation, each]))
  const pass = (ms: number) => sim.run(clock.sleep(ms))
  return { meter, counts, replies, pass, reply: (response: Reply) => replies.push(response) }
}

it('counts time, bytes and errors of each operation, and hands the reply on', async () => {
  const { meter, counts, replies, pass, reply } = setUp()
  const answered = meter.watch({ opcode: OP.READ_VDI, length: 10 }, reply)
  expect(meter.inFlight).toBe(1)
  await pass(3)
  answered({ result: RESULT.SUCCESS, body: Buffer.alloc(10) })
  expect(meter.inFlight).toBe(0)
  meter.watch({ opcode: OP.WRITE_VDI, body: Buffer.alloc(7) }, reply)({ result: RESULT.SUCCESS })
  meter.watch({ opcode: OP.WRITE_VDI, body: Buffer.alloc(7) }, reply)({ result: RESULT.NO_SPACE })
  meter.watch({ opcode: OP.DISCARD_VDI, length: 4096 }, reply)({ result: RESULT.SUCCESS })
  expect(replies.map(({ result }) => result)).toEqual([0, 0, RESULT.NO_SPACE, 0])

  const read = counts().get('READ_VDI')!
  expect([read.seconds.count, read.seconds.sum, read.bytes]).toEqual([1, 0.003, 10])
  const write = counts().get('WRITE_VDI')!
  expect([write.seconds.count, write.bytes, [...write.errors]]).toEqual([2, 7, [['NO_SPACE', 1]]])
  expect(counts().get('DISCARD_VDI')!.bytes).toBe(4096)
})

it('has one name for all opcodes without one, so that clients cannot make up new ones', () => {
  const { meter, counts, reply } = setUp()
  for (let opcode = 0; opcode < 256; opcode++) meter.watch({ opcode }, reply)({ result: RESULT.INVALID_PARMS })
  const names = [...counts().keys()]
  expect(names.filter((name) => name !== 'unknown' && !(name in OP))).toEqual([])
  expect(names).toHaveLength(Object.keys(OP).length + 1)
  expect(counts().get('unknown')!.seconds.count).toBe(256 - Object.keys(OP).length)
})
