import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { StoreErrorCode } from '../../../src/errors.ts'
import { seededSchedule } from '../../tools/memory-device.ts'
import { DF, FAST_ZERO, FUA, NbdClient, NbdError, NO_HOLE, REQ_ONE } from '../../tools/nbd-client.ts'
import { EXPORT_NAME, startServer, until } from './harness.ts'

const KIB = 1024
const MIB = 1024 * 1024

type Operation =
  | { kind: 'write'; offset: number; lengthBytes: number; fill: number; fua: boolean }
  | { kind: 'zeroes'; offset: number; lengthBytes: number; flags: number }
  | { kind: 'trim'; offset: number; lengthBytes: number; flags: number }
  | { kind: 'read'; offset: number; lengthBytes: number; flags: number }
  | { kind: 'status' | 'cache'; offset: number; lengthBytes: number }
  | { kind: 'flush' }

const SIZE_BYTES = 512 * KIB
const [EPERM, EIO, EINVAL, ENOSPC, ENOTSUP, ESHUTDOWN] = [1, 5, 22, 28, 95, 108]

describe('random requests leave what a plain buffer says', () => {
  test.each([
    ['structured replies, over a unix socket', 'unixPath', true],
    ['simple replies, over TCP', 'tcpAddress', false],
  ] as const)('%s', async (_title, door, structured) => {
    await fc.assert(
      fc.asyncProperty(fc.integer(), fc.array(batch(), { maxLength: 12 }), async (seed, batches) => {
        const { server, disk, ...harness } = await startServer({
          sizeBytes: SIZE_BYTES,
          ...(seed % 2 === 0 ? { schedule: seededSchedule(seed) } : {}),
        })
        const model = Buffer.alloc(SIZE_BYTES)
        let refused = 0
        const clients = await Promise.all(
          [1, 2].map(() => NbdClient.connect(harness[door], EXPORT_NAME, { structured })),
        )
        for (const operations of batches) {
          // Requests in flight together are not ordered, so those of a batch do not overlap unless they only read.
          const changes = operations.filter(isChange)
          for (const operation of changes) {
            if (isTooSlow(operation)) refused++
            else apply(model, operation)
          }
          await Promise.all(changes.map((operation, index) => run(clients[index % 2]!, operation, model)))
          const others = operations.filter((operation) => !isChange(operation))
          await Promise.all(others.map((operation, index) => run(clients[(index + 1) % 2]!, operation, model)))
        }
        expect((await clients[0]!.read(0, SIZE_BYTES)).equals(model)).toBe(true)
        await clients[1]!.flush()
        expect(disk.unflushedWrites).toBe(0)
        await Promise.all(clients.map((client) => client.disconnect()))
        await until(() => server.stats.connections === 0)
        expect(server.stats.errors).toBe(refused)
      }),
      { numRuns: 50 },
    )

    async function run(client: NbdClient, operation: Operation, model: Buffer): Promise<void> {
      if (operation.kind === 'flush') return client.flush()
      const { kind, offset, lengthBytes } = operation
      if (kind === 'write') return client.write(offset, pattern(operation), operation.fua ? FUA : 0)
      if (kind === 'cache') return client.cache(offset, lengthBytes)
      if (kind === 'zeroes') {
        const zeroed = client.writeZeroes(offset, lengthBytes, operation.flags)
        return isTooSlow(operation) ? expect(code(zeroed)).resolves.toBe(ENOTSUP) : zeroed
      }
      if (kind === 'trim') return client.trim(offset, lengthBytes, operation.flags)
      if (kind === 'read') {
        const data = await client.read(offset, lengthBytes, structured ? operation.flags : 0)
        expect(data.equals(model.subarray(offset, offset + lengthBytes))).toBe(true)
      } else if (structured) {
        let position = offset
        for (const extent of await client.blockStatus(offset, lengthBytes)) {
          const bytes = model.subarray(position, position + extent.lengthBytes)
          if ((extent.flags & 2) !== 0) expect(bytes.equals(Buffer.alloc(bytes.length))).toBe(true)
          position += extent.lengthBytes
        }
        expect(position).toBe(offset + lengthBytes)
      }
    }
  })

  /** Changes each in a stripe of its own, and anything that only reads. */
  function batch(): fc.Arbitrary<Operation[]> {
    const stripes = 8
    const stripeBytes = SIZE_BYTES / stripes
    const range = (from: number, lengthBytesMax: number) =>
      fc.tuple(fc.nat(lengthBytesMax - 1), fc.nat(lengthBytesMax - 1)).map(([one, other]) => ({
        offset: from + Math.min(one, other),
        lengthBytes: Math.abs(one - other) + 1,
      }))
    const blocks = (from: number, lengthBytesMax: number) =>
      range(from / 4096, lengthBytesMax / 4096).map(({ offset, lengthBytes }) => ({
        offset: offset * 4096,
        lengthBytes: lengthBytes * 4096,
      }))
    const change = fc
      .nat(stripes - 1)
      .chain((stripe) =>
        fc.tuple(
          fc.constantFrom('write', 'zeroes', 'trim'),
          fc.oneof(range(stripe * stripeBytes, stripeBytes), blocks(stripe * stripeBytes, stripeBytes)),
          fc.nat(255),
          fc.boolean(),
          fc.subarray([NO_HOLE, FAST_ZERO]),
        ),
      )
    const changes = fc.uniqueArray(change, {
      maxLength: stripes,
      selector: ([, { offset }]) => Math.floor(offset / stripeBytes),
    })
    const reads = fc.array(
      fc.oneof(
        fc
          .tuple(fc.constantFrom('status', 'cache'), range(0, SIZE_BYTES))
          .map(([kind, where]): Operation => ({ kind, ...where })),
        fc
          .tuple(range(0, SIZE_BYTES), fc.constantFrom(0, DF, FUA))
          .map(([where, flags]): Operation => ({ kind: 'read', ...where, flags })),
        fc.constant<Operation>({ kind: 'flush' }),
      ),
      { maxLength: 6 },
    )
    return fc.tuple(changes, reads).map(([changing, reading]) => [
      ...changing.map(([kind, where, fill, fua, zeroFlags]): Operation => {
        if (kind === 'write') return { kind, ...where, fill, fua }
        if (kind === 'trim') return { kind, ...where, flags: fua ? FUA : 0 }
        return { kind: 'zeroes', ...where, flags: zeroFlags.reduce((flags, flag) => flags | flag, fua ? FUA : 0) }
      }),
      ...reading,
    ])
  }

  /** Zeroes that were to be fast and would not be. */
  function isTooSlow(operation: Operation): boolean {
    if (operation.kind !== 'zeroes' || (operation.flags & FAST_ZERO) === 0) return false
    const isWhole = operation.offset % 4096 === 0 && operation.lengthBytes % 4096 === 0
    return !isWhole || (operation.flags & NO_HOLE) !== 0
  }

  function isChange(operation: Operation): boolean {
    return operation.kind === 'write' || operation.kind === 'zeroes' || operation.kind === 'trim'
  }

  function apply(model: Buffer, operation: Operation): void {
    if (operation.kind === 'write') pattern(operation).copy(model, operation.offset)
    else if (operation.kind === 'zeroes' || operation.kind === 'trim') {
      model.fill(0, operation.offset, operation.offset + operation.lengthBytes)
    }
  }

  function pattern({ offset, lengthBytes, fill }: { offset: number; lengthBytes: number; fill: number }): Buffer {
    const pattern = Buffer.alloc(lengthBytes, fill)
    for (let at = 0; at + 4 <= lengthBytes; at += 512) pattern.writeUInt32BE(offset + at, at) // shows misplaced bytes
    return pattern
  }
})

describe('payloads of every size', () => {
  test.each([1, 4096, 65_535, 65_536, 256 * KIB, MIB, 32 * MIB])('%d bytes', async (lengthBytes) => {
    const harness = await startServer({ sizeBytes: 40 * MIB })
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    const data = Buffer.alloc(lengthBytes, 'sheep and dogs ')
    await client.write(12_345, data)
    expect((await client.read(12_345, lengthBytes)).equals(data)).toBe(true)
    expect(await client.read(12_345 + lengthBytes, 1)).toEqual(Buffer.alloc(1))
    await client.disconnect()
  })
})

describe('durability', () => {
  test.each([
    ['a write', (client: NbdClient, flags: number) => client.write(0, Buffer.alloc(8), flags)],
    ['zeroes', (client: NbdClient, flags: number) => client.writeZeroes(0, 4096, flags)],
    ['a trim', (client: NbdClient, flags: number) => client.trim(0, 4096, flags)],
  ])('%s with FUA is durable, without it after a flush on another connection', async (_title, change) => {
    const harness = await startServer()
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    const other = await NbdClient.connect(harness.tcpAddress, EXPORT_NAME)
    await change(client, FUA)
    expect(harness.disk.unflushedWrites).toBe(0)
    await change(client, 0)
    expect(harness.disk.unflushedWrites).toBe(1)
    await other.flush()
    expect(harness.disk.unflushedWrites).toBe(0)
  })
})

describe('block status', () => {
  test('tells data, zeroes and holes, or the first of them', async () => {
    const harness = await startServer()
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    await client.write(0, Buffer.alloc(64 * KIB, 1))
    await client.writeZeroes(64 * KIB, 64 * KIB, NO_HOLE)
    const all = [
      { lengthBytes: 64 * KIB, flags: 0 },
      { lengthBytes: 64 * KIB, flags: 2 },
      { lengthBytes: 896 * KIB, flags: 3 },
    ]
    expect(await client.blockStatus(0, MIB)).toEqual(all)
    expect(await client.blockStatus(0, MIB, REQ_ONE)).toEqual(all.slice(0, 1))
    expect(await client.blockStatus(63 * KIB, 2 * KIB)).toEqual([
      { lengthBytes: KIB, flags: 0 },
      { lengthBytes: KIB, flags: 2 },
    ])
  })

  test('of a huge range is told at once when it is all the same, else in parts', async () => {
    const harness = await startServer({ sizeBytes: 4096 * MIB })
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    const whole = 4096 * MIB - 4096
    expect(await client.blockStatus(0, whole)).toEqual([{ lengthBytes: whole, flags: 3 }])
    for (let block = 0; block < 10_000; block += 2) harness.disk.copyIn(block * 4096, Buffer.alloc(4096, 1))
    const extents = await client.blockStatus(0, whole)
    expect(extents).toHaveLength(4096)
    expect(extents.slice(0, 2)).toEqual([
      { lengthBytes: 4096, flags: 0 },
      { lengthBytes: 4096, flags: 3 },
    ])
  })
})

describe('fast zeroes', () => {
  test('clear whole blocks, and whatever would move bytes fails without a change', async () => {
    const harness = await startServer()
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    const data = Buffer.alloc(64 * KIB, 7)
    await client.write(0, data)
    await client.writeZeroes(4 * KIB, 8 * KIB, FAST_ZERO | FUA)
    data.fill(0, 4 * KIB, 12 * KIB)
    await expect(code(client.writeZeroes(16 * KIB, 4 * KIB, FAST_ZERO | NO_HOLE))).resolves.toBe(ENOTSUP)
    await expect(code(client.writeZeroes(16 * KIB + 512, 4 * KIB, FAST_ZERO))).resolves.toBe(ENOTSUP)
    await expect(code(client.writeZeroes(MIB, 4 * KIB, FAST_ZERO))).resolves.toBe(ENOSPC)
    expect((await client.read(0, data.length)).equals(data)).toBe(true)
  })
})

describe('a hint to cache', () => {
  test('reads the range and answers without data', async () => {
    const harness = await startServer({ sizeBytes: 4 * MIB, schedule: seededSchedule(5) })
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    const before = harness.disk.requests
    await Promise.all([client.cache(0, 4 * MIB), client.cache(1, 1), client.cache(4 * MIB - 1, 1)])
    expect(harness.disk.requests - before).toBe(3 + 16 + 2)
    expect(harness.server.stats.bytesRead).toBe(0)
  })

  test('of more than anybody reads at once touches no more than that', async () => {
    const harness = await startServer({ sizeBytes: 4096 * MIB })
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    await client.cache(0, 4096 * MIB - 1)
    expect(harness.disk.requests).toBe(1 + 128)
  })

  test('fails where a read would', async () => {
    const harness = await startServer()
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    await expect(code(client.cache(0, MIB + 1))).resolves.toBe(EINVAL)
    harness.disk.failure = 'CorruptBlock'
    await expect(code(client.cache(0, MIB))).resolves.toBe(EIO)
  })

  test('ends with its connection', async () => {
    const held: (() => void)[] = []
    const harness = await startServer({ sizeBytes: 32 * MIB, schedule: (action) => held.push(action) })
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    const lost = expect(client.cache(0, 32 * MIB)).rejects.toThrow()
    await until(() => held.length === 1)
    client.destroy()
    await lost
    while (harness.server.stats.connections > 0) {
      for (const action of held.splice(0)) action()
      await new Promise((resolve) => setImmediate(resolve))
    }
    expect(harness.disk.requests).toBeLessThan(100)
  })
})

describe('an export that grows', () => {
  test('is used in its new length at once, and told so to new connections', async () => {
    const harness = await startServer({ sizeBytes: MIB })
    const old = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    await expect(code(old.write(MIB, Buffer.alloc(1)))).resolves.toBe(ENOSPC)
    harness.disk.grow(3 * MIB)
    await old.write(MIB - 1, Buffer.from('across'))
    expect((await old.read(MIB - 1, 2 * MIB)).toString('latin1', 0, 6)).toBe('across')
    await old.writeZeroes(2 * MIB, MIB)
    await old.trim(2 * MIB, MIB)
    await old.cache(2 * MIB, MIB)
    expect(await old.blockStatus(2 * MIB, MIB)).toEqual([{ lengthBytes: MIB, flags: 3 }])
    const again = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    expect([old.sizeBytes, again.sizeBytes]).toEqual([MIB, 3 * MIB])
  })
})

describe('errors', () => {
  test.each([
    ['structured', true],
    ['simple', false],
  ])('%s replies carry them, and the connection goes on', async (_title, structured) => {
    const harness = await startServer()
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME, { structured })
    await expect(code(client.read(MIB, 1))).resolves.toBe(EINVAL)
    await expect(code(client.write(MIB - 1, Buffer.alloc(2)))).resolves.toBe(ENOSPC)
    await expect(code(client.writeZeroes(MIB - 1, 2))).resolves.toBe(ENOSPC)
    await expect(code(client.trim(MIB - 1, 2))).resolves.toBe(EINVAL)
    await expect(code(client.read(0, 32 * MIB + 1))).resolves.toBe(EINVAL)
    await expect(code(client.write(0, Buffer.alloc(32 * MIB + 1)))).resolves.toBe(EINVAL)
    await expect(code(client.send(42, 0, 0, 0))).resolves.toBe(EINVAL)
    expect(await client.read(MIB - 1, 1)).toEqual(Buffer.alloc(1))
    expect(harness.server.stats.errors).toBe(7)
  })

  test('writing to a read-only export is not permitted', async () => {
    const harness = await startServer({ readOnly: true })
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    await expect(code(client.write(0, Buffer.alloc(100_000)))).resolves.toBe(EPERM)
    await expect(code(client.trim(0, 512))).resolves.toBe(EPERM)
    await expect(code(client.writeZeroes(0, 512))).resolves.toBe(EPERM)
    await client.flush()
    expect(await client.read(0, 512)).toEqual(Buffer.alloc(512))
  })

  test.each<[StoreErrorCode, number]>([
    ['NoSpace', ENOSPC],
    ['DiskFailed', EIO],
    ['CorruptBlock', EIO],
    ['Fenced', ESHUTDOWN],
    ['Stopping', ESHUTDOWN],
  ])('the store says %s', async (failure, expected) => {
    const harness = await startServer({ schedule: seededSchedule(1) })
    const client = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    harness.disk.failure = failure
    const answers = [
      client.read(0, 4096),
      client.read(0, MIB),
      client.write(0, Buffer.alloc(4096)),
      client.trim(0, 4096, FUA),
      client.blockStatus(0, MIB),
      client.flush(),
    ]
    expect(await Promise.all(answers.map(code))).toEqual(answers.map(() => expected))
    harness.disk.failure = undefined
    expect(await client.read(0, 4096)).toEqual(Buffer.alloc(4096))
  })
})

async function code(answer: Promise<unknown>): Promise<number | undefined> {
  const error = await answer.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  return error instanceof NbdError ? error.code : undefined
}
