import { expect, test } from 'vitest'
import { REFRESH_MS } from '../../../src/exports/qos/throttles.ts'
import type { ExportLimits } from '../../../src/vdi/export-limits.ts'
import { ManualClock } from '../../tools/manual-clock.ts'
import { NbdClient, NO_HOLE } from '../../tools/nbd-client.ts'
import { EXPORT_NAME, type Harness, quiet, RIGHT_ID, startServer, until } from './harness.ts'

const KIB = 1024
const MIB = 1024 * 1024

interface Limited extends Harness {
  clock: ManualClock
  setLimits(limits: ExportLimits | null): void
  /** Requests that were started. */
  started(): number
}

/** A server whose time stands still until it is advanced, with one limited export. */
async function limitedServer(limits: ExportLimits | null): Promise<Limited> {
  const clock = new ManualClock()
  const harness = await startServer({ sizeBytes: 64 * MIB, clock })
  const setLimits = (changed: ExportLimits | null) => {
    harness.rights.set(EXPORT_NAME, { ...harness.rights.get(EXPORT_NAME)!, limits: changed })
  }
  setLimits(limits)
  return { ...harness, clock, setLimits, started: () => harness.server.stats.requests }
}

const connect = ({ unixPath }: Harness) => NbdClient.connect(unixPath, EXPORT_NAME)
const reads = (client: NbdClient, count: number, bytes = 4 * KIB) =>
  Array.from({ length: count }, (_, at) => client.read(at * bytes, bytes))

/** Lets time pass bit by bit, with what it brings about. */
async function pass({ clock, started }: Limited, ms: number, stepMs = 100): Promise<void> {
  for (let passed = 0; passed < ms; passed += stepMs) {
    clock.advance(stepMs)
    await quiet(started)
  }
}

test('a limited export answers as many requests as it may, and the rest later, in order', async () => {
  const harness = await limitedServer({ totalIops: { perSecond: 10 } })
  const client = await connect(harness)
  const order: number[] = []
  const all = reads(client, 30).map((read, at) => read.then(() => order.push(at)))
  await quiet(harness.started)
  expect(harness.started()).toBe(2) // a tenth of a second's worth, and one
  await pass(harness, 1000)
  expect(harness.started()).toBe(12)
  await pass(harness, 2000)
  await Promise.all(all)
  expect(order).toEqual([...all.keys()])
})

test('what it does not read stays with the client: neither memory nor requests pile up', async () => {
  const harness = await limitedServer({ writeBytes: { perSecond: MIB } })
  const client = await connect(harness)
  const writes = Array.from({ length: 20 }, (_, at) => client.write(at * MIB, Buffer.alloc(MIB, at)))
  await quiet(harness.started)
  expect(harness.started()).toBe(1)
  expect(harness.server.stats).toMatchObject({ commonBytes: 0, waitingConnections: 0 })
  await pass(harness, 20_000, 1000)
  await Promise.all(writes)
  expect((await client.read(19 * MIB, 1))[0]).toBe(19)
})

test('a client that waits for its turn is not taken for one that is stuck', async () => {
  const harness = await limitedServer({ totalBytes: { perSecond: KIB } })
  const client = await connect(harness)
  const first = client.write(0, Buffer.alloc(MIB))
  const second = client.write(MIB, Buffer.alloc(MIB))
  await first
  await pass(harness, 1_000_000, 20_000)
  expect(harness.server.stats).toMatchObject({ connections: 1, stuckConnections: 0 })
  harness.clock.advance(30_000)
  await second
})

test('connections of one export share its limits and take turns; another export has its own', async () => {
  const harness = await limitedServer({ readIops: { perSecond: 20 } })
  harness.rights.set('other', { ...harness.rights.get(EXPORT_NAME)!, id: 'attachment-2', limits: null })
  const clients = await Promise.all([1, 2, 3].map(() => connect(harness)))
  const answered = clients.map(() => 0)
  clients.forEach((client, at) => {
    for (const read of reads(client, 100, at === 0 ? 256 * KIB : 512)) read.then(() => answered[at]!++).catch(() => {}) // the last ones are cut off with the server
  })
  await quiet(harness.started)
  const atOnce = [...answered] // what the slack had for whoever came first
  await pass(harness, 3000)
  const free = await NbdClient.connect(harness.unixPath, 'other')
  await Promise.all(reads(free, 500, 512))
  const sum = answered.reduce((all, one) => all + one, 0)
  expect(sum).toBeGreaterThanOrEqual(60)
  expect(sum).toBeLessThanOrEqual(65)
  const inTurn = answered.map((count, at) => count - atOnce[at]!)
  expect(Math.max(...inTurn) - Math.min(...inTurn)).toBeLessThanOrEqual(1)
})

test('flushes, questions for extents and refused requests cost nothing; holes are operations without bytes', async () => {
  const harness = await limitedServer({ totalIops: { perSecond: 1 }, writeBytes: { perSecond: 1000 } })
  const client = await connect(harness)
  await client.write(0, Buffer.alloc(1))
  await Promise.all(Array.from({ length: 50 }, () => client.flush()))
  await Promise.all(Array.from({ length: 50 }, () => client.blockStatus(0, MIB)))
  await Promise.all(Array.from({ length: 50 }, () => expect(client.read(0, 33 * MIB)).rejects.toThrow()))
  const changes = [client.trim(0, MIB), client.writeZeroes(0, MIB), client.writeZeroes(0, 2000, NO_HOLE)]
  await pass(harness, 2000)
  await Promise.all(changes.slice(0, 2))
  await pass(harness, 1000)
  await changes[2]
  const after = client.write(0, Buffer.alloc(1))
  const started = harness.started()
  await pass(harness, 1000)
  expect(harness.started()).toBe(started) // the zeros that take up room counted with their bytes
  await pass(harness, 1500)
  await after
})

test('new limits reach those who are connected, in both directions', async () => {
  const harness = await limitedServer(null)
  const client = await connect(harness)
  await Promise.all(reads(client, 300))
  harness.setLimits({ readIops: { perSecond: 10 } })
  await pass(harness, REFRESH_MS)
  const before = harness.started()
  const slow = reads(client, 200)
  await quiet(harness.started)
  await pass(harness, 1000)
  expect(harness.started() - before).toBeLessThanOrEqual(13)
  harness.setLimits({ readIops: { perSecond: 20 } })
  await pass(harness, REFRESH_MS)
  harness.setLimits(null)
  await pass(harness, REFRESH_MS)
  await Promise.all(slow)
})

test('a limited connection is cut off, and closes, like any other', async () => {
  const harness = await limitedServer({ totalIops: { perSecond: 1 } })
  const [client, other] = [await connect(harness), await connect(harness)]
  const lost = reads(client, 20).map((read) => read.then(() => 'done').catch(() => 'lost'))
  await quiet(harness.started)
  harness.rights.delete(EXPORT_NAME)
  await harness.server.cutOff(RIGHT_ID)
  expect(await Promise.all(lost)).toContain('lost')
  await Promise.all([client.closed, other.closed])
  await until(() => harness.server.stats.connections === 0)
})

test.each(['unixPath', 'tcpAddress'] as const)(
  'what a client left behind that has gone does not run after what it sent again on another connection (%s)',
  async (door) => {
    const harness = await limitedServer({ totalIops: { perSecond: 10 } })
    const old = await NbdClient.connect(harness[door], EXPORT_NAME)
    const lost = Array.from({ length: 50 }, () => old.write(0, Buffer.alloc(512, 1)).catch(() => 'lost'))
    await quiet(harness.started)
    expect(harness.started()).toBe(2)
    old.destroy()
    expect(await Promise.all(lost)).toContain('lost')
    await quiet(harness.started)
    const fresh = await NbdClient.connect(harness[door], EXPORT_NAME)
    const again = fresh.write(0, Buffer.alloc(512, 2))
    await pass(harness, 2000)
    await again
    expect(harness.started()).toBe(3)
    expect((await fresh.read(0, 512)).equals(Buffer.alloc(512, 2))).toBe(true)
    await until(() => harness.server.stats.connections === 1)
  },
)

test('all that a client asked for before it said goodbye is done, though it is held back', async () => {
  const harness = await limitedServer({ totalIops: { perSecond: 10 } })
  const client = await connect(harness)
  const writes = Array.from({ length: 20 }, (_, at) => client.write(at * 512, Buffer.alloc(512, 1)).catch(() => {}))
  await quiet(harness.started)
  client.sayGoodbye()
  await pass(harness, 3000)
  await Promise.all(writes)
  expect(harness.server.stats.bytesWritten).toBe(20 * 512)
  await until(() => harness.server.stats.connections === 0)
})
