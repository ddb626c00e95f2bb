/**
 * What a request for copies costs the processor, the sender's side and the holder's together (they are in one process), with a holder
 * that does nothing. Over TCP on loopback, sealed.
 *
 * Usage: npx tsx bench/links.ts [--seconds 2] [--json] [--help]
 */
import { systemClock } from '../src/runtime/clock.ts'
import { createLog } from '../src/runtime/log.ts'
import { type Connection, systemNetwork } from '../src/runtime/network.ts'
import { systemRandom } from '../src/runtime/random.ts'
import type { CopyAnswer, CopyRequest } from '../src/sheep/copies/messages.ts'
import { COPY, copyHandler } from '../src/sheep/copies/wire.ts'
import type { AnyHandler } from '../src/sheep/peer/kind.ts'
import { LinkError } from '../src/sheep/peer/kind.ts'
import { type PeerAddress, PeerLinks } from '../src/sheep/peer/links.ts'
import { PeerNetwork } from '../src/sheep/peer/peer-network.ts'
import { readOptions } from './options.ts'

const { seconds, json } = readOptions(import.meta.filename, { seconds: 2 })
const generation = { epoch: 3, index: 12_345, incarnation: '0123456789abcdef' }
const version = (sequence: number) => ({ generation, sequence })

function writeOf(bytes: Buffer, sequence: number): CopyRequest {
  const oid = 0x0012345600000007n
  const blocks = [{ first: 0, bytes }]
  const write = { oid, version: version(sequence), previous: version(sequence - 1), blocks, zeros: [] }
  return { vid: 0x123456, generation, type: 'write', write, durable: false, watermark: null }
}

function readOf(blocks: number): CopyRequest {
  return { vid: 0x123456, generation, type: 'read', oid: 0x0012345600000007n, range: { first: 0, count: blocks } }
}

async function node(name: string, handlers: readonly AnyHandler[]): Promise<{ links: PeerLinks; at: PeerAddress }> {
  const network = new PeerNetwork({
    network: systemNetwork,
    clock: systemClock,
    random: systemRandom,
    key: Buffer.alloc(32, 1),
  })
  const self = { node: name, incarnation: 'now' }
  const log = createLog('silent')
  const links = new PeerLinks({ network, clock: systemClock, log, cluster: 'bench', self, handlers })
  const accept = { node: (connection: Connection) => links.accept(connection), other: () => {} }
  const { address } = await network.listen('127.0.0.1:0', accept)
  return { links, at: { ...self, address } }
}

const data = systemRandom.bytes(1 << 20)
const holder = {
  answer: (request: CopyRequest, reply: (answer: CopyAnswer) => void): void => {
    if (request.type !== 'read') return reply({ refused: null, result: null })
    const bytes = data.subarray(0, request.range.count * 4096)
    reply({ refused: null, result: { blocks: [{ first: 0, bytes }], zeros: [] } })
  },
}
const a = await node('a', [])
const b = await node('b', [copyHandler(holder)])
a.links.setPeers([b.at])

/** Microseconds of the processor for one request. */
const costs: { name: string; depth: number; userUs: number; systemUs: number }[] = []

async function measure(name: string, depth: number, requestOf: (sequence: number) => CopyRequest): Promise<void> {
  let sequence = 0
  let isOver = false
  const one = (done: () => void) => {
    if (isOver) return done()
    a.links.ask(b.at, COPY, requestOf(++sequence), (outcome) => {
      if (outcome instanceof LinkError) throw outcome
      one(done)
    })
  }
  const run = async (forMs: number) => {
    isOver = false
    sequence = 0
    const timer = systemClock.timer(forMs, () => {
      isOver = true
    })
    await Promise.all(Array.from({ length: depth }, () => new Promise<void>((resolve) => one(resolve))))
    timer.cancel()
  }
  await run(500)
  const before = process.cpuUsage()
  await run(seconds * 1000)
  const { user, system } = process.cpuUsage(before)
  costs.push({ name, depth, userUs: user / sequence, systemUs: system / sequence })
}

for (const depth of [1, 16, 64])
  await measure('write 4 KiB', depth, (sequence) => writeOf(data.subarray(0, 4096), sequence))
for (const depth of [1, 16]) await measure('read 4 KiB', depth, () => readOf(1))
for (const depth of [1, 8]) await measure('write 1 MiB', depth, (sequence) => writeOf(data, sequence))
for (const depth of [1, 8]) await measure('read 1 MiB', depth, () => readOf(256))
if (json) console.log(JSON.stringify(costs, null, 2))
else
  for (const { name, depth, userUs, systemUs } of costs) {
    const [all, user, system] = [userUs + systemUs, userUs, systemUs].map((us) => us.toFixed(1).padStart(7))
    console.log(`${name.padEnd(14)} depth ${String(depth).padStart(2)}  ${all} µs (user ${user}, system ${system})`)
  }
a.links.close()
b.links.close()
process.exit(0)
