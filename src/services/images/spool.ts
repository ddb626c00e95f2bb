import { ServiceError } from '../../errors.ts'
import type { Disk } from '../../runtime/disk.ts'
import type { Random } from '../../runtime/random.ts'

/**
 * Where images lie that cannot be written to a volume as they come. One process uses it at a time: files that an earlier one left
 * are removed at the start, and nothing else that is there.
 */
export interface Spool {
  start(): Promise<void>
  /** Room for so much, or null while others have it. Throws ImageTooBig for what there never is room for. */
  reserve(imageId: string, lengthBytes: number): Promise<SpoolRoom | null>
}

export interface SpoolRoom {
  /** A file of that name among those of this room, and its path for other programs. */
  place(name: string): { file: string; path: string }
  readonly disk: Disk
  /** Gives the room back and removes the files. */
  release(): Promise<void>
}

export interface SpoolOptions {
  disk: Disk
  /** The root of the disk. */
  directory: string
  bytesMax: number
  random: Random
}

const OWN_FILE = /^image-[0-9a-f-]{36}\.\w+$/

export function createSpool({ disk, directory, bytesMax, random }: SpoolOptions): Spool {
  let reservedBytes = 0
  return {
    start: async () => {
      await disk.makeDirectory('.')
      for (const name of await disk.list('.')) if (OWN_FILE.test(name)) await disk.unlink(name)
    },
    reserve: async (imageId, lengthBytes) => {
      if (lengthBytes > bytesMax) {
        throw tooBig(imageId, `it needs ${lengthBytes} bytes to be converted, and no more than ${bytesMax} may be used`)
      }
      if (reservedBytes + lengthBytes > bytesMax) return null
      reservedBytes += lengthBytes
      try {
        const { freeBytes } = await disk.space()
        if (freeBytes <= lengthBytes) {
          throw tooBig(
            imageId,
            `There is no space on ${directory} to convert image. Requested: ${lengthBytes}, available: ${freeBytes}.`,
          )
        }
      } catch (error) {
        reservedBytes -= lengthBytes
        throw error
      }
      const id = random.uuid()
      const files = new Set<string>()
      return {
        disk,
        place: (name) => {
          const file = `image-${id}.${name}`
          files.add(file)
          return { file, path: `${directory}/${file}` }
        },
        release: async () => {
          reservedBytes -= lengthBytes
          for (const file of files) await disk.unlink(file)
        },
      }
    },
  }
}

function tooBig(imageId: string, reason: string): ServiceError {
  return new ServiceError('ImageTooBig', { image_id: imageId, reason })
}
