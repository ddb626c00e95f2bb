import { expect, it } from 'vitest'
import type { SheepRequest } from '../../../src/protocol/message.ts'
import { OP } from '../../../src/protocol/opcodes.ts'
import { type OpenPlace, RoutedSession } from '../../../src/sheep/clustered/routed-session.ts'
import type { Reply } from '../../../src/sheep/server.ts'

/** Keeps what it is asked, as the way to another node does that is full. */
class Place implements OpenPlace {
  readonly asked: { request: SheepRequest; reply: (response: Reply | null) => void }[] = []
  readonly vdiSize = 4096
  readonly opening = 0
  readonly session: number

  constructor(session: number) {
    this.session = session
  }

  run(request: SheepRequest, reply: (response: Reply | null) => void): void {
    this.asked.push({ request, reply })
  }
}

it('what waits on the way to a former place keeps the number that the session has there', async () => {
  const [former, next] = [new Place(7), new Place(8)]
  const session = new RoutedSession(former, { reopen: async () => next, ended: () => {} })
  const answers: Reply[] = []
  for (const offset of [0, 4096])
    session.submit({ opcode: OP.WRITE_VDI, session: 1, offset }, (reply) => answers.push(reply))
  former.asked[0]!.reply(null)
  await expect.poll(() => next.asked.length).toBe(2)
  expect(former.asked.map(({ request }) => request.session)).toEqual([7, 7])
  expect(next.asked.map(({ request }) => [request.session, request.offset])).toEqual([
    [8, 0],
    [8, 4096],
  ])
  for (const { reply } of next.asked) reply({ result: 0 })
  for (const { reply } of former.asked) reply({ result: 1 })
  expect(answers).toEqual([{ result: 0 }, { result: 0 }])
})
