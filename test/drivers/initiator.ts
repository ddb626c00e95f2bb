import type { Device, Done } from '../../src/vdi/device.ts'
import type { Initiator } from './contract.ts'

const finished = (run: (done: Done) => void) =>
  new Promise<void>((resolve, reject) => run((error) => (error ? reject(error) : resolve())))

/** A device of the VDI client, as the suite uses it. */
export function initiatorOn(device: Device): Initiator {
  return {
    read: async (offset, lengthBytes) => {
      const target = Buffer.alloc(lengthBytes)
      await finished((done) => device.read(offset, target, done))
      return target
    },
    write: (offset, data) => finished((done) => device.write(offset, data, { fua: true }, done)),
    close: () => device.close(),
  }
}
