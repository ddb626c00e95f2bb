import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { runCommand } from '../tools/run-command.ts'

/** FS_IOC_SHUTDOWN of ext4, from fs/ext4/ext4.h of Linux, with EXT4_GOING_FLAGS_NOLOGFLUSH: all that follows fails with EIO. */
const SHUT_DOWN = `
import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))
`

/** A disk that can fail: a file system in memory, mounted at `mount`. */
export class Disk {
  readonly mount: string
  readonly #image: string

  private constructor(directory: string, name: string) {
    this.mount = path.join(directory, name)
    this.#image = path.join(directory, `${name}.memory`, 'image')
  }

  static async make(directory: string, name: string, mib: number): Promise<Disk> {
    const disk = new Disk(directory, name)
    const memory = path.dirname(disk.#image)
    for (const made of [memory, disk.mount]) mkdirSync(made)
    await runCommand(['mount', '-t', 'tmpfs', 'none', memory])
    await runCommand(['truncate', '-s', `${mib}M`, disk.#image])
    await disk.#mountNew()
    return disk
  }

  /** Whatever is asked of it fails from now on. */
  async fail(): Promise<void> {
    await runCommand(['python3', '-c', SHUT_DOWN, this.mount])
  }

  /** An empty one is in its place. Nobody may have a file open on the one that was there. */
  async replace(): Promise<void> {
    await runCommand(['umount', this.mount])
    await this.#mountNew()
  }

  async #mountNew(): Promise<void> {
    await runCommand(['mkfs.ext4', '-q', '-F', '-m', '0', this.#image])
    await runCommand(['mount', '-o', 'loop', this.#image, this.mount])
  }
}
