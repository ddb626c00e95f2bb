import { createMemoryBackend, createMemoryDriver, openMemoryExport } from '../../src/drivers/memory.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { type DriverHarness, describeDriverContract } from './contract.ts'

async function makeHarness(): Promise<DriverHarness> {
  const backend = createMemoryBackend(1024, { copiesMax: 3 })
  let driver = createMemoryDriver(backend, systemRandom)
  await driver.start()
  /** An initiator of the suite's own, in and out again. */
  const through = async (volumeId: string) => {
    const attachment = { id: systemRandom.uuid(), mode: 'rw' as const, connector: {} }
    return openMemoryExport(backend, await driver.createExport({ id: volumeId, sizeGib: 0 }, attachment))
  }
  return {
    get driver() {
      return driver
    },
    read: async (volumeId, offset, lengthBytes) => (await through(volumeId)).read(offset, lengthBytes),
    write: async (volumeId, offset, data) => (await through(volumeId)).write(offset, data),
    connect: async (info) => ({ ...openMemoryExport(backend, info), close: async () => {} }),
    copiesOf: async (volumeId) => backend.volumes.get(volumeId)!.copies,
    restart: async () => {
      driver = createMemoryDriver(backend, systemRandom)
      await driver.start()
    },
    used: async () => backend.volumes.size + backend.snapshots.size,
    stop: () => driver.stop(),
  }
}

describeDriverContract('the memory driver', makeHarness)
