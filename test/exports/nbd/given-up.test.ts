import { describe, expect, test } from 'vitest'
import type { NbdLimits } from '../../../src/exports/nbd/limits.ts'
import { NbdClient } from '../../tools/nbd-client.ts'
import { EXPORT_NAME, gate, quiet, startServer, until } from './harness.ts'

const KIB = 1024
/** The rest of them has room in any socket. */
const WRITE_BYTES = 8 * KIB
const WRITES = 4

/** The first two are read, and at most those are begun: the others lie in the socket. */
const LIMITS: [string, Partial<NbdLimits>][] = [
  ['requests in flight', { requestsMax: 2 }],
  ['bytes in flight', { requestBytesMax: WRITE_BYTES }],
  ['memory', { ownBytes: KIB, commonBytesMax: 10 * KIB }],
]
const CASES = LIMITS.flatMap(([title, limits]) =>
  (['unixPath', 'tcpAddress'] as const).map((door) => [title, door, limits] as const),
)

/** A client with writes of ones that a server has taken in part, because its device answers none before it is let. */
async function heldBack(door: 'unixPath' | 'tcpAddress', limits: Partial<NbdLimits>) {
  const device = gate()
  const harness = await startServer({ schedule: device.schedule, limits })
  const begun = () => harness.server.stats.requests
  const client = await NbdClient.connect(harness[door], EXPORT_NAME)
  const write = (at: number) =>
    client.write(at * WRITE_BYTES, Buffer.alloc(WRITE_BYTES, 1)).then(
      () => 'done',
      () => 'lost',
    )
  const writes = [0, 1].map(write)
  await until(() => device.heldCount > 0)
  await quiet(begun)
  for (let at = 2; at < WRITES; at++) writes.push(write(at))
  await quiet(begun)
  expect(begun()).toBeLessThan(WRITES)
  return { harness, device, client, writes, begun, door: harness[door] }
}

describe.each(CASES)('a client that is held back by its %s (%s)', (_title, name, limits) => {
  test('and has given up has nothing done that was not begun, behind what it sends again', async () => {
    const { harness, device, client, writes, begun, door } = await heldBack(name, limits)
    client.destroy()
    expect(await Promise.all(writes)).toEqual(Array(WRITES).fill('lost'))
    const fresh = await NbdClient.connect(door, EXPORT_NAME)
    const again = Array.from({ length: WRITES }, (_, at) => fresh.write(at * WRITE_BYTES, Buffer.alloc(512, 2)))
    await quiet(begun)
    device.release()
    await Promise.all(again)
    await until(() => harness.server.stats.connections === 1)
    for (let at = 0; at < WRITES; at++)
      expect((await fresh.read(at * WRITE_BYTES, 512)).equals(Buffer.alloc(512, 2))).toBe(true)
  })

  test('and has said goodbye has all done that it asked for before', async () => {
    const { harness, device, client, writes, begun, door } = await heldBack(name, limits)
    client.sayGoodbye()
    await quiet(begun)
    device.release()
    await Promise.all(writes)
    await until(() => harness.server.stats.connections === 0)
    const later = await NbdClient.connect(door, EXPORT_NAME)
    for (let at = 0; at < WRITES; at++)
      expect((await later.read(at * WRITE_BYTES, WRITE_BYTES)).equals(Buffer.alloc(WRITE_BYTES, 1))).toBe(true)
  })
})
