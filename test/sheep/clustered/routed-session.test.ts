import { describe, expect, it } from 'vitest'
import type { SheepRequest } from '../../../src/protocol/message.ts'
import { OP } from '../../../src/protocol/opcodes.ts'
import { ChangeOrder } from '../../../src/sheep/clustered/change-order.ts'
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

const openedAt = (former: Place, next: Place, order = new ChangeOrder()) =>
  new RoutedSession(former, { reopen: async () => next, order, ended: () => {} })

it('what waits on the way to a former place keeps the number that the session has there', async () => {
  const [former, next] = [new Place(7), new Place(8)]
  const session = openedAt(former, next)
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

describe('a change', () => {
  const BLOCK = 4096
  const write = (offset: number, blocks = 1): SheepRequest => ({
    opcode: OP.WRITE_VDI,
    offset,
    body: Buffer.alloc(blocks * BLOCK),
  })
  const asked = ({ asked }: Place) => asked.map(({ request: { opcode, offset } }) => [opcode, offset])

  it('waits for the answer of an earlier one that overlaps it, and holds up nobody else', () => {
    const place = new Place(7)
    const session = openedAt(place, place)
    const answers: (number | undefined)[] = []
    const submit = (request: SheepRequest) => session.submit(request, () => answers.push(request.offset))
    submit(write(0, 2))
    submit({ opcode: OP.ZERO_VDI, offset: BLOCK, length: 2 * BLOCK })
    submit({ opcode: OP.DISCARD_VDI, offset: 2 * BLOCK, length: 2 * BLOCK })
    submit(write(3 * BLOCK + 1))
    submit({ opcode: OP.READ_VDI, offset: BLOCK, length: BLOCK })
    submit({ opcode: OP.FLUSH_VDI_SESSION })
    submit(write(8 * BLOCK))
    const first = [
      [OP.WRITE_VDI, 0],
      [OP.READ_VDI, BLOCK],
      [OP.FLUSH_VDI_SESSION, undefined],
      [OP.WRITE_VDI, 8 * BLOCK],
    ]
    expect(asked(place)).toEqual(first)
    for (const { reply } of [...place.asked]) reply({ result: 0 })
    expect(asked(place).slice(4)).toEqual([[OP.ZERO_VDI, BLOCK]])
    place.asked[4]!.reply({ result: 0 })
    expect(asked(place).slice(5)).toEqual([[OP.DISCARD_VDI, 2 * BLOCK]])
    place.asked[5]!.reply({ result: 0 })
    expect(asked(place).slice(6)).toEqual([[OP.WRITE_VDI, 3 * BLOCK + 1]])
    expect(answers).toEqual([0, BLOCK, undefined, 8 * BLOCK, BLOCK, 2 * BLOCK])
  })

  it('that is sent again to the next owner does not undo what came after it was read', async () => {
    const [former, next] = [new Place(7), new Place(8)]
    const session = openedAt(former, next)
    session.submit(write(0), () => {})
    former.asked[0]!.reply(null)
    session.submit(write(0, 2), () => {})
    await expect.poll(() => asked(next)).toEqual([[OP.WRITE_VDI, 0]])
    session.submit({ opcode: OP.DISCARD_VDI, offset: 0, length: BLOCK }, () => {})
    expect(next.asked).toHaveLength(1)
    next.asked[0]!.reply({ result: 0 })
    expect(next.asked[1]!.request.body).toHaveLength(2 * BLOCK)
    next.asked[1]!.reply({ result: 0 })
    expect(asked(next).slice(2)).toEqual([[OP.DISCARD_VDI, 0]])
  })

  it('through one of several sessions of an attachment is one for all, until that session ends', () => {
    const places = [new Place(7), new Place(8)] as const
    const order = new ChangeOrder()
    const [one, other] = places.map((place) => openedAt(place, place, order)) as [RoutedSession, RoutedSession]
    one.submit(write(0), () => {})
    other.submit(write(0), () => {})
    one.submit(write(0), () => {})
    expect(places.map(({ asked }) => asked.length)).toEqual([1, 0])
    one.end(1)
    expect(places.map(({ asked }) => asked.length)).toEqual([1, 1])
    places[1].asked[0]!.reply({ result: 0 })
    expect(order.size).toBe(0)
  })
})
