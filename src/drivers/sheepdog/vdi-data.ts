import type { Device, Done, Extent } from '../../vdi/device.ts'
import type { DataExtent, VolumeData } from '../driver.ts'

/** The bytes of an open VDI, with promises: whoever moves megabytes at a time can afford them. */
export function createVdiData(device: Device, translate: <T>(work: Promise<T>) => Promise<T>): VolumeData {
  const ended = (start: (done: Done) => void) =>
    translate(
      new Promise<void>((resolve, reject) => {
        start((error) => (error ? reject(error) : resolve()))
      }),
    )
  return {
    get sizeBytes() {
      return device.sizeBytes
    },
    extents: async (offset, lengthBytes) => toDataExtents(await translate(device.extents(offset, lengthBytes))),
    marks: (offset, lengthBytes) => translate(device.marks(offset, lengthBytes)),
    read: (offset, target) => ended((done) => device.read(offset, target, done)),
    write: (offset, source) => ended((done) => device.write(offset, source, { fua: false }, done)),
    discard: (offset, lengthBytes) => ended((done) => device.discard(offset, lengthBytes, done)),
    flush: () => ended((done) => device.flush(done)),
    close: () => device.close(),
  }
}

function toDataExtents(extents: readonly Extent[]): DataExtent[] {
  return extents.map(({ lengthBytes, kind }) => ({ lengthBytes, kind: kind === 'data' ? 'data' : 'hole' }))
}
