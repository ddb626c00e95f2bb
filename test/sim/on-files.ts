import type { Disk, DiskFile } from '../../src/runtime/disk.ts'

/** A disk whose files are replaced by what `wrap` makes of them, in whichever way they are opened. */
export function onFiles(wrap: (path: string, file: DiskFile) => DiskFile): (disk: Disk) => Disk {
  return (disk) => ({
    ...disk,
    open: async (path, options) => wrap(path, await disk.open(path, options)),
    openNow: (path) => {
      const file = disk.openNow(path)
      return file && wrap(path, file)
    },
    createNow: (path) => wrap(path, disk.createNow(path)),
    createMany: async (paths) => (await disk.createMany(paths)).map((file, i) => wrap(paths[i]!, file)),
  })
}
