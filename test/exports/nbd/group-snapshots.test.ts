import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import type { SnapshotRef, VolumeDriver, VolumeRef } from '../../../src/drivers/driver.ts'
import { createSheepdogDriver, sheepdogPool } from '../../../src/drivers/sheepdog/driver.ts'
import { createNbdServer } from '../../../src/exports/nbd/server.ts'
import { storeDirectory } from '../../../src/exports/store-directory.ts'
import { systemClock } from '../../../src/runtime/clock.ts'
import { createLog } from '../../../src/runtime/log.ts'
import { systemNetwork } from '../../../src/runtime/network.ts'
import { systemRandom } from '../../../src/runtime/random.ts'
import { VdiClient } from '../../../src/vdi/client.ts'
import { LiveSheep } from '../../tools/live-sheep.ts'
import { FUA, NbdClient } from '../../tools/nbd-client.ts'

const BLOCK_BYTES = 4096
const VOLUMES = 4
const SNAPSHOTS = 8
/** Blocks over which the counter goes, so that writes are to new and to old objects. */
const SLOTS = 12
const SLOT_BYTES = 1024 * 1024

/** Volumes of a real store, each connected through the gateway, as guests have them. */
async function connectedVolumes(): Promise<{ driver: VolumeDriver; volumes: VolumeRef[]; clients: NbdClient[] }> {
  const live = await LiveSheep.start()
  const vdis = new VdiClient(live.dial())
  const driver = createSheepdogDriver({
    vdis: new VdiClient(live.dial()),
    random: systemRandom,
    pool: sheepdogPool('pool'),
    gateway: async () => ({ scheme: 'nbd', host: '127.0.0.1', port: 1 }),
    drained: async () => {},
  })
  const server = createNbdServer({
    network: systemNetwork,
    clock: systemClock,
    log: createLog('silent'),
    exports: storeDirectory(vdis),
  })
  const directory = mkdtempSync(join(tmpdir(), 'nbd-groups-'))
  const socketPath = await server.listen(join(directory, 'nbd.sock'))
  onTestFinished(async () => {
    await server.close()
    vdis.close()
    await driver.stop()
    await live.stop()
    rmSync(directory, { recursive: true })
  })
  const volumes = Array.from({ length: VOLUMES }, () => ({ id: randomUUID(), sizeGib: 1 }))
  const clients: NbdClient[] = []
  for (const volume of volumes) {
    await driver.createVolume(volume)
    const info = await driver.createExport(volume, { id: randomUUID(), mode: 'rw', connector: {} })
    clients.push(await NbdClient.connect(socketPath, String(info.name)))
  }
  return { driver, volumes, clients }
}

/** The highest number that a snapshot holds in the counter's blocks. */
async function highest(driver: VolumeDriver, snapshot: SnapshotRef): Promise<number> {
  const data = await driver.openSnapshot(snapshot)
  const block = Buffer.alloc(4)
  let number = 0
  for (let slot = 0; slot < SLOTS; slot++) {
    await data.read(slot * SLOT_BYTES, block)
    number = Math.max(number, block.readUInt32LE())
  }
  await data.close()
  return number
}

test('snapshots of several volumes that are written to through NBD are of one moment', {
  timeout: 300_000,
}, async () => {
  const { driver, volumes, clients } = await connectedVolumes()
  let goesOn = true
  let answered = 0
  let sent = 0
  /** One number after the other, each once the one before it was answered, to one volume after the other. */
  const count = async () => {
    while (goesOn) {
      const number = ++sent
      const bytes = Buffer.alloc(BLOCK_BYTES)
      bytes.writeUInt32LE(number)
      const slot = Math.floor(number / VOLUMES) % SLOTS
      await clients[number % VOLUMES]!.write(slot * SLOT_BYTES, bytes, number % 5 === 0 ? FUA : 0)
      answered = number
    }
  }
  /** What else is in flight on each of them, beside the blocks of the counter. */
  const disturb = async (client: NbdClient) => {
    for (let i = 0; goesOn; i++) await client.write((i % SLOTS) * SLOT_BYTES + 2 * BLOCK_BYTES, Buffer.alloc(40_000, i))
  }
  const writers = Promise.all([count(), ...clients.map(disturb)])

  let lastBefore = 0
  for (let round = 0; round < SNAPSHOTS; round++) {
    const snapshots = volumes.map(({ id }) => ({ id: randomUUID(), volumeId: id, sizeGib: 1 }))
    const before = answered
    await driver.createGroupSnapshot(snapshots)
    const after = sent
    const numbers: number[] = []
    for (const snapshot of snapshots) numbers.push(await highest(driver, snapshot))
    const last = Math.max(...numbers)
    expect(last).toBeGreaterThanOrEqual(before) // everything that was answered is in it
    expect(last).toBeLessThanOrEqual(after)
    // And of what was not yet, nothing without what came before it: the numbers are the last ones of one counter.
    expect(numbers.toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: VOLUMES }, (_, back) => Math.max(0, last - VOLUMES + 1 + back)),
    )
    expect(numbers.every((number, index) => number === 0 || number % VOLUMES === index)).toBe(true)
    for (const snapshot of snapshots) await driver.deleteSnapshot(snapshot)
    if (round > 0) expect(last).toBeGreaterThan(lastBefore) // the writers went on
    lastBefore = last
  }
  goesOn = false
  await writers
  await Promise.all(clients.map((client) => client.disconnect()))
})
