import { expect, it } from 'vitest'
import { FLAG, RESULT } from '../../../src/protocol/constants.ts'
import { dataOid } from '../../../src/protocol/oid.ts'
import { OP } from '../../../src/protocol/opcodes.ts'
import { runOperation } from '../../../src/sheep/ops.ts'
import type { SheepClient } from '../../../src/sheep/server.ts'
import { SheepBench } from '../sheep-bench.ts'

it('a client that is gone again before its old connection was over keeps neither a session nor the lock', async () => {
  const bench = await SheepBench.open()
  const { sheep } = bench
  const vid = await bench.create('a')
  const connect = (id: number): SheepClient => {
    const client = { id, peer: `10.0.0.1:${id}`, cut: () => {} }
    sheep.clientOpened(client)
    return client
  }
  const write = (client: SheepClient) =>
    new Promise<number>((resolve) => {
      const request = {
        opcode: OP.CREATE_AND_WRITE_OBJ,
        flags: FLAG.WRITE,
        oid: dataOid(vid, 0),
        body: Buffer.alloc(512, 1),
      }
      runOperation(sheep, { protoVer: 0, ...request }, client, ({ result = 0 }) => resolve(result))
    })
  const first = connect(1)
  await bench.run(sheep.locks.take('a', false, first))
  expect(await bench.run(write(first))).toBe(RESULT.SUCCESS)
  const early = write(first)
  const second = connect(2)
  const late = write(second) // waits for what the first has under way
  sheep.clientClosed(second)
  sheep.clientClosed(first)
  expect(await bench.run(Promise.all([early, late]))).toEqual([RESULT.SUCCESS, RESULT.FENCED])
  expect(sheep.sessions.size).toBe(0)
  expect(sheep.state.locks.has('a')).toBe(true)
  await bench.step(1000) // the time that it may take to connect again
  expect(sheep.state.locks.has('a')).toBe(false)
})
