import { createSecureContext } from 'node:tls'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect } from 'vitest'
import { createNbdServer } from '../../../src/exports/nbd/server.ts'
import { createLog } from '../../../src/runtime/log.ts'
import { ManualClock } from '../../tools/manual-clock.ts'
import { MemoryDevice, MemoryDisk, mulberry32, seededSchedule } from '../../tools/memory-device.ts'
import { MEMORY_TLS_HELLO, type MemoryClient, MemoryNetwork } from '../../tools/memory-network.ts'
import { hex } from './bytes.ts'
import { EXPORT_NAME, RIGHT_ID } from './harness.ts'

const MIB = 1024 * 1024
const CLIENTS_AT_A_TIME = 16
/** The pool of buffers, and the disk behind the server. */
const GROWTH_BYTES_MAX = 48 * MIB
const OPT = '49484156454f5054'
const NAME = '00000006 633066666565'
const BASE_ALLOCATION = '0000000f 626173653a616c6c6f636174696f6e'
const HELLO = '00000003'
const GO = `${OPT} 00000007 0000000e ${NAME} 0001 0003`
const STRUCTURED = `${OPT} 00000008 00000000`
const STARTTLS = `${OPT} 00000005 00000000`
const TLS = MEMORY_TLS_HELLO.toString('hex')
const SELECT = `${OPT} 0000000a 00000021 ${NAME} 00000001 ${BASE_ALLOCATION}`
const WRITE_8 = '25609513 0001 0001 0000000000000001 0000000000000ffc 00000008 4142434445464748'
const READ_8 = '25609513 0004 0000 0000000000000002 0000000000000ffc 00000008'
const READ_1_MIB = '25609513 0000 0000 0000000000000003 0000000000000000 00100000'
const STATUS = '25609513 0008 0007 0000000000000004 0000000000000000 00200000'
const ZEROES = '25609513 0010 0006 0000000000000005 0000000000001000 00002000'
const TRIM = '25609513 0001 0004 0000000000000006 0000000000000007 00002000'
const CACHE = '25609513 0000 0005 0000000000000007 0000000000000000 00200000'
const FLUSH = '25609513 0000 0003 0000000000000008 0000000000000000 00000000'
const DISC = '25609513 0000 0002 0000000000000009 0000000000000000 00000000'
const REFUSED = '25609513 8000 0001 000000000000000a 0000000000000000 00000003 414243'

/** Sessions as a client of good manners has them, message by message: what mutation starts from. */
const SESSIONS: readonly (readonly Buffer[])[] = [
  [HELLO, GO, READ_8, WRITE_8, READ_8, FLUSH, DISC],
  [HELLO, STRUCTURED, SELECT, GO, WRITE_8, STATUS, ZEROES, STATUS, TRIM, CACHE, READ_1_MIB, READ_8, DISC],
  ['00000001', `${OPT} 00000001 00000006 633066666565`, READ_8, REFUSED, WRITE_8, FLUSH, DISC],
  [HELLO, `${OPT} 00000003 00000000`, `${OPT} 00000006 0000000c ${NAME} 0000`, `${OPT} 00000002 00000000`],
  [HELLO, STRUCTURED, STARTTLS, TLS, STRUCTURED, SELECT, GO, WRITE_8, STATUS, READ_8, DISC],
  [HELLO, STARTTLS, TLS, `${OPT} 00000001 00000006 633066666565`, READ_8, FLUSH, DISC],
  [HELLO, STRUCTURED, `${OPT} 00000009 0000000e ${NAME} 00000000`, GO, READ_1_MIB, READ_1_MIB, READ_1_MIB, STATUS],
].map((session) => session.map((message) => hex(message)))

/**
 * Sends `inputs` broken sessions to a server and proves after each few that it has forgotten them, and in the end that
 * it keeps no memory for them and still serves. The same seed sends the same bytes.
 */
export async function fuzzServer(inputs: number, seed: number): Promise<void> {
  const random = mulberry32(seed)
  const network = new MemoryNetwork()
  const clock = new ManualClock()
  const disk = new MemoryDisk(4 * MIB)
  let opened = 0
  const server = createNbdServer({
    network,
    clock,
    log: createLog('silent'),
    exports: {
      lookup: async (name) => {
        if (name !== EXPORT_NAME) return undefined
        const open = async () => new MemoryDevice(disk, ++opened % 2 === 0 ? { schedule: seededSchedule(opened) } : {})
        return { id: RIGHT_ID, readOnly: false, open }
      },
    },
    tls: { identity: { context: createSecureContext(), asksForCertificate: false }, isRequired: false },
    limits: { ownBytes: 4096, commonBytesMax: MIB, requestsMax: 4, stuckMs: 60_000, stuckUnderPressureMs: 1000 },
  })
  await server.listen('memory')
  const collectGarbage = exposeGarbageCollector()
  let keptBytes = 0
  let securedCount = 0
  try {
    for (let sent = 0; sent < inputs; sent += CLIENTS_AT_A_TIME) {
      const clients = Array.from({ length: CLIENTS_AT_A_TIME }, () => network.dial())
      const sessions = clients.map((client) => misbehave(client, mutate(random), random))
      for (let left = CLIENTS_AT_A_TIME; left > 0; ) {
        left = sessions.filter((session) => !session.next().done).length
        await new Promise((resolve) => setImmediate(resolve))
      }
      clock.advance(random() < 0.2 ? 2000 : 100)
      for (const client of clients) client.close()
      for (let turns = 0; server.stats.connections > 0; turns++) {
        if (turns > 10_000) throw new Error(`seed ${seed}: ${server.stats.connections} sessions do not end`)
        await new Promise((resolve) => setImmediate(resolve))
      }
      securedCount += clients.filter(({ isSecured }) => isSecured).length
      expect(server.stats).toMatchObject({ commonBytes: 0, waitingConnections: 0, stalls: 0 })
      if (sent === 64 * CLIENTS_AT_A_TIME) keptBytes = await memoryAfter(collectGarbage, 0)
    }
    const boundBytes = keptBytes + GROWTH_BYTES_MAX
    if (keptBytes > 0) expect(await memoryAfter(collectGarbage, boundBytes)).toBeLessThan(boundBytes)
    expect(server.stats.requests).toBeGreaterThan(inputs / 2)
    expect(securedCount).toBeGreaterThan(inputs / 50)
    await serves(network.dial())
  } finally {
    await server.close()
  }
}

/** A session with some of its bytes changed, left out, repeated or made up. */
function mutate(random: () => number): Buffer[] {
  const below = (limit: number) => Math.floor(random() * limit)
  const messages = [...SESSIONS[below(SESSIONS.length)]!]
  for (let count = below(4); count > 0; count--) {
    // Mostly behind the handshake: what breaks it ends the session.
    const at = Math.max(below(messages.length), random() < 0.7 ? messages.length - below(6) : 0)
    const message = Buffer.from(messages[at] ?? Buffer.alloc(0))
    switch (below(7)) {
      case 0: // one bit
        if (message.length > 0) message[below(message.length)]! ^= 1 << below(8)
        messages[at] = message
        break
      case 1: // a number that matters
        if (message.length >= 4) message.writeUInt32BE(NUMBERS[below(NUMBERS.length)]!, below(message.length - 3))
        messages[at] = message
        break
      case 2: // cut short
        messages[at] = message.subarray(0, below(message.length + 1))
        break
      case 3:
        messages.splice(at, 1)
        break
      case 4:
        messages.splice(at, 0, message)
        break
      case 5:
        messages.splice(at, 0, Buffer.from(Array.from({ length: below(64) }, () => below(256))))
        break
      default: // messages of another session
        messages.splice(at, 0, ...SESSIONS[below(SESSIONS.length)]!.slice(below(4), below(8)))
    }
  }
  return messages
}

const NUMBERS = [0, 1, 2, 7, 0xff, 0xffff, 4096, 0x0020_0000, 0x0200_0000, 0x0200_0001, 0x7fff_ffff, 0xffff_ffff]

/** Sends the messages one by one, or in pieces that have nothing to do with them; yields where time may pass. */
function* misbehave(client: MemoryClient, messages: Buffer[], random: () => number): Generator<void> {
  let stream = Buffer.concat(messages)
  const reads = random() < 0.8
  if (!reads) client.stopReading()
  if (random() < 0.3) {
    for (const message of messages) {
      client.send(message)
      yield
    }
    stream = Buffer.alloc(0)
  }
  for (let at = 0; at < stream.length; ) {
    const end = at + 1 + Math.floor(random() * (random() < 0.5 ? 40 : stream.length))
    client.send(stream.subarray(at, end))
    at = end
    if (random() < 0.3) yield
    if (random() < 0.02) client.close()
  }
  yield
  if (!reads && random() < 0.5) client.resumeReading()
  yield
}

/** A client of good manners is served. */
async function serves(client: MemoryClient): Promise<void> {
  for (const message of [...SESSIONS[0]!.slice(0, 2), hex(WRITE_8), hex(READ_8.replace('0004', '0000'))]) {
    client.send(message)
    for (let turns = 0; turns < 20; turns++) await new Promise((resolve) => setImmediate(resolve))
  }
  const reply = hex('67446698 00000000 0000000000000002 4142434445464748')
  expect(client.take().subarray(-reply.length).toString('hex')).toBe(reply.toString('hex'))
  client.close()
}

/** What is in use when all that nobody needs is gone. Large buffers go some turns after they were found to be garbage. */
async function memoryAfter(collectGarbage: () => void, enoughBytes: number): Promise<number> {
  let usedBytes = Number.POSITIVE_INFINITY
  for (let rounds = 0; rounds < 10 && usedBytes > enoughBytes; rounds++) {
    collectGarbage()
    await new Promise((resolve) => setImmediate(resolve))
    const { heapUsed, arrayBuffers } = process.memoryUsage()
    usedBytes = heapUsed + arrayBuffers
  }
  return usedBytes
}

function exposeGarbageCollector(): () => void {
  setFlagsFromString('--expose_gc')
  return runInNewContext('gc') as () => void
}
