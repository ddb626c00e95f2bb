import assert from 'node:assert'
import { SeededRandom } from '../sim/random.ts'
import { FUA, NbdClient, NbdError } from './nbd-client.ts'
import type { Answer, ExportAddress, Order, Tally, VerifierOptions } from './verifier.ts'
import { contentOf, SECTOR_BYTES, WriteLedger } from './write-ledger.ts'

/**
 * A process that writes to an export, survives the death of the server, and afterwards finds out whether every write that
 * was acknowledged is there (see verifier.ts, which starts it). What it knows is in its ledger, so it may be killed too.
 */

const MIB = 1024 * 1024
const OBJECT_BYTES = 4 * MIB
const SPOTS = 16
const SPOT_BYTES = MIB
const DEPTH_MAX = 32
const CONNECTIONS = 2
const WRITE_BYTES_MAX = 256 * 1024
/** What a server says that is about to end. */
const ESHUTDOWN = 108

const options: VerifierOptions = JSON.parse(process.argv[2]!)
const random = new SeededRandom(options.seed)
const ledger = WriteLedger.open(options.ledgerPath, options.sizeBytes)
const busy = new Uint8Array(options.sizeBytes / SECTOR_BYTES)
const tally: Tally = { writes: 0, flushes: 0, reads: 0, sectorsChecked: 0, unanswered: 0 }

/** Where it writes: around borders of objects, all over the disk. Byte offsets. */
const spots = Array.from({ length: SPOTS }, (_, i) => {
  const objects = options.sizeBytes / OBJECT_BYTES
  return Math.floor(((i + 1) * objects) / (SPOTS + 1)) * OBJECT_BYTES - SPOT_BYTES / 2
})

let load: Promise<unknown> = Promise.resolve()
let isPausing = false
let clients: NbdClient[] = []

const carryOut = async (order: Order): Promise<unknown> => {
  switch (order.verb) {
    case 'run':
      return run(order.at)
    case 'pause':
      return pause()
    case 'mark':
      return ledger.mark(order.snapshot)
    case 'unmark':
      return ledger.unmark(order.snapshot)
    case 'dropMark':
      return ledger.dropMark(order.snapshot)
    case 'marks':
      return ledger.marks
    case 'checkSnapshot':
      return checkSnapshot(order.snapshot, order.at)
    case 'tally':
      return tally
  }
}

process.on('message', ({ id, order }: { id: number; order: Order }) => {
  void carryOut(order).then(
    (result) => tell({ id, result }),
    (error: Error) => tell({ id, error: error.message }),
  )
})
process.on('disconnect', () => process.exit())

/** Checks the whole disk, then keeps writing. False when the connection was lost before it was checked. */
async function run(at: ExportAddress): Promise<boolean> {
  await load
  isPausing = false
  const isChecked = await unlessDisconnected(async () => {
    clients = []
    for (let i = 0; i < CONNECTIONS; i++) clients.push(await NbdClient.connect(at.address, at.name))
    await readSpots(clients[0]!, (sector, content) => ledger.check(sector, content))
    ledger.forgetInFlight()
    busy.fill(0)
  })
  if (!isChecked) return false
  const workers = Array.from({ length: 1 + random.below(DEPTH_MAX) }, (_, i) => work(clients[i % CONNECTIONS]!))
  load = Promise.all(workers).catch((error: Error) => tell({ failure: error.message }))
  return true
}

/** Ends the load with nothing in flight and nothing unflushed. */
async function pause(): Promise<void> {
  isPausing = true
  await load
  await clients[0]!.flush()
  await Promise.all(clients.map((client) => client.disconnect()))
  assert(ledger.inFlight === 0)
}

async function work(client: NbdClient): Promise<void> {
  while (!isPausing) {
    const isConnected = await unlessDisconnected(() => step(client))
    if (isConnected) continue
    for (const other of clients) other.destroy()
    return
  }
}

async function step(client: NbdClient): Promise<void> {
  const chance = random.next()
  if (chance < 0.02) {
    await client.flush()
    tally.flushes++
    return
  }
  const range = takeRange()
  if (range === null) return new Promise((resolve) => setImmediate(resolve))
  const { firstSector, sectors } = range
  const [offset, lengthBytes] = [firstSector * SECTOR_BYTES, sectors * SECTOR_BYTES]
  if (chance < 0.1) {
    ledger.check(firstSector, await client.read(offset, lengthBytes))
    tally.reads++
  } else {
    const kind = chance < 0.18 ? 'zeros' : 'data'
    const flags = random.chance(0.1) ? FUA : 0
    const number = ledger.sent(kind, firstSector, sectors)
    tally.unanswered++
    if (kind === 'data') await client.write(offset, contentOf(number, firstSector, sectors), flags)
    else if (random.chance(0.5)) await client.trim(offset, lengthBytes, flags)
    else await client.writeZeroes(offset, lengthBytes, flags)
    ledger.acknowledged(number)
    tally.unanswered--
    tally.writes++
  }
  busy.fill(0, firstSector, firstSector + sectors)
}

/** Sectors that no request in flight covers; null when the dice fell on such. */
function takeRange(): { firstSector: number; sectors: number } | null {
  const alignment = random.chance(0.6) ? 8 : 1
  const longest = random.chance(0.15) ? WRITE_BYTES_MAX / SECTOR_BYTES : 8
  const sectors = alignment * (1 + random.below(longest / alignment))
  const withinSpot = random.below((SPOT_BYTES / SECTOR_BYTES - sectors) / alignment + 1) * alignment
  const firstSector = random.pick(spots) / SECTOR_BYTES + withinSpot
  for (let sector = firstSector; sector < firstSector + sectors; sector++) if (busy[sector] === 1) return null
  busy.fill(1, firstSector, firstSector + sectors)
  return { firstSector, sectors }
}

/** Holds a disk made from the snapshot against its mark. False when the connection was lost. */
async function checkSnapshot(snapshot: string, at: ExportAddress): Promise<boolean> {
  const check = ledger.snapshotCheck(snapshot)
  return unlessDisconnected(async () => {
    const client = await NbdClient.connect(at.address, at.name)
    await readSpots(client, check.check)
    check.finish()
    await client.disconnect()
  })
}

async function readSpots(client: NbdClient, check: (firstSector: number, content: Buffer) => void): Promise<void> {
  await Promise.all(
    spots.map(async (offset) => {
      check(offset / SECTOR_BYTES, await client.read(offset, SPOT_BYTES))
      tally.sectorsChecked += SPOT_BYTES / SECTOR_BYTES
    }),
  )
}

/** False when the work ended because the server went away. */
async function unlessDisconnected(work: () => Promise<void>): Promise<boolean> {
  try {
    await work()
    return true
  } catch (error) {
    const isGone = error instanceof NbdError ? error.code === ESHUTDOWN : isLostConnection(error as Error)
    if (isGone) return false
    throw error instanceof NbdError
      ? new Error(`the server answered with error ${error.code}: ${error.message}`)
      : error
  }
}

function isLostConnection(error: Error): boolean {
  const code = (error as NodeJS.ErrnoException).code
  return (
    code === 'ECONNREFUSED' || code === 'ECONNRESET' || code === 'EPIPE' || error.message.startsWith('the stream ended')
  )
}

function tell(answer: Answer): void {
  process.send!(answer)
}
