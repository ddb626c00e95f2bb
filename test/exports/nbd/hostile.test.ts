import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { expect, onTestFinished, test } from 'vitest'
import { loadTlsIdentity } from '../../../src/runtime/tls.ts'
import { makeCertificates } from '../../tools/certificates.ts'
import { connectSocket, NbdClient } from '../../tools/nbd-client.ts'
import { hex } from './bytes.ts'
import { EXPORT_NAME, startServer, until } from './harness.ts'

const MIB = 1024 * 1024
const OPTION_MAGIC = hex('49484156454f5054')
const REQUEST_MAGIC = hex('25609513')
const NAME = Buffer.from(EXPORT_NAME)
/** Client flags and EXPORT_NAME: the shortest way into the transmission phase. */
const ENTER = hex('00000003 49484156454f5054 00000001 00000006 633066666565')
const STARTTLS = hex('49484156454f5054 00000005 00000000')

const anyBytes = fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes))
const number = fc.oneof(fc.constantFrom(0, 1, 2, 4, 28, 4096, 0x7fff_ffff, 0xffff_ffff), fc.nat(64), fc.nat(33 * MIB))

/** Something like an option: the right magic, a real or unreal number, a length that may lie. */
const option = fc
  .tuple(fc.nat(13), fc.option(number), fc.oneof(anyBytes, namedData()))
  .map(([type, lie, data]) => Buffer.concat([OPTION_MAGIC, uint32(type), uint32(lie ?? data.length), data]))

/** Something like a request: any command and flags, ranges and lengths out of all proportion, payloads cut short. */
const request = fc
  .tuple(
    fc.nat(9),
    fc.constantFrom(0, 1, 2, 4, 8, 0xffff),
    number,
    fc.constantFrom(0, 0, 0, 1, 0xffff_ffff),
    number,
    fc.oneof({ weight: 4, arbitrary: fc.constant(Buffer.alloc(0)) }, anyBytes),
  )
  .map(([type, flags, low, high, length, payload]) =>
    Buffer.concat([
      REQUEST_MAGIC,
      uint32(flags * 65_536 + type),
      Buffer.alloc(8, type),
      uint32(high),
      uint32(low),
      uint32(length),
      payload,
    ]),
  )

const conversation = fc.oneof(
  fc.array(anyBytes, { maxLength: 4 }),
  fc.array(fc.oneof(option, anyBytes), { maxLength: 8 }).map((options) => [uint32(3), ...options]),
  fc.array(anyBytes, { maxLength: 4 }).map((rest) => [Buffer.concat([uint32(3), STARTTLS]), ...rest]),
  fc.array(request, { maxLength: 12 }).map((requests) => [ENTER, ...requests]),
)

test('whatever a client sends, the server lives, forgets it, and keeps no memory for it', async () => {
  const certificates = await makeCertificates()
  onTestFinished(() => certificates.remove())
  const identity = loadTlsIdentity(certificates.server)
  const harness = await startServer({ sizeBytes: 40 * MIB, tls: { identity, isRequired: false } })
  const collectGarbage = exposeGarbageCollector()
  const witness = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
  collectGarbage()
  const beforeBytes = process.memoryUsage().arrayBuffers

  await fc.assert(
    fc.asyncProperty(conversation, fc.boolean(), async (messages, abrupt) => {
      const socket = await connectSocket(harness.unixPath)
      socket.on('error', () => {})
      socket.resume()
      const over = new Promise((resolve) => socket.once('close', resolve))
      for (const message of messages) {
        socket.write(message)
        await new Promise((resolve) => setImmediate(resolve))
      }
      if (abrupt) socket.destroy()
      else socket.end()
      await over
      await until(() => harness.server.stats.connections === 1)
      await witness.flush()
    }),
    { numRuns: 300 },
  )

  collectGarbage()
  expect(process.memoryUsage().arrayBuffers - beforeBytes).toBeLessThan(80 * MIB) // the disk itself and the pool
})

/** Data as INFO and META_CONTEXT options have it, with the name of the export. */
function namedData(): fc.Arbitrary<Buffer> {
  return fc
    .tuple(fc.constantFrom(NAME.length, 0, 3, 0xffff_ffff), number, anyBytes)
    .map(([length, count, tail]) => Buffer.concat([uint32(length), NAME, uint32(count), tail]))
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value >>> 0)
  return bytes
}

function exposeGarbageCollector(): () => void {
  setFlagsFromString('--expose_gc')
  return runInNewContext('gc') as () => void
}
