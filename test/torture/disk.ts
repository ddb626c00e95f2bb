import assert from 'node:assert'
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { runCommand } from '../tools/run-command.ts'

/** FS_IOC_SHUTDOWN of ext4, from fs/ext4/ext4.h of Linux, with EXT4_GOING_FLAGS_NOLOGFLUSH: all that follows fails with EIO. */
const SHUT_DOWN = `
import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))
`

/** A file system in memory, mounted at `mount`. */
export class Disk {
  readonly mount: string
  /** Of one that can fail. */
  readonly #image: string | null

  private constructor(mount: string, image: string | null) {
    this.mount = mount
    this.#image = image
  }

  /** One that can fail takes a loop device. */
  static async make(directory: string, name: string, mib: number, canFail: boolean): Promise<Disk> {
    const mount = path.join(directory, name)
    mkdirSync(mount)
    if (!canFail) {
      await runCommand(['mount', '-t', 'tmpfs', '-o', `size=${mib}m,mode=755`, 'none', mount])
      return new Disk(mount, null)
    }
    const memory = path.join(directory, `${name}.memory`)
    mkdirSync(memory)
    await runCommand(['mount', '-t', 'tmpfs', 'none', memory])
    const image = path.join(memory, 'image')
    await runCommand(['truncate', '-s', `${mib}M`, image])
    await mountNew(image, mount)
    return new Disk(mount, image)
  }

  /** Whatever is asked of it fails from now on. */
  async fail(): Promise<void> {
    assert(this.#image, `${this.mount} cannot fail`)
    await runCommand(['python3', '-c', SHUT_DOWN, this.mount])
  }

  /** Whatever is to be written there waits from now on; what was written can be read. */
  async hang(): Promise<void> {
    assert(this.#image, `${this.mount} cannot hang`)
    await runCommand(['fsfreeze', '--freeze', this.mount])
  }

  async goOn(): Promise<void> {
    await runCommand(['fsfreeze', '--unfreeze', this.mount])
  }

  /** An empty one is in its place. Nobody may have a file open on the one that was there. */
  async replace(): Promise<void> {
    assert(this.#image, `${this.mount} cannot be replaced`)
    await runCommand(['umount', this.mount])
    await mountNew(this.#image, this.mount)
  }
}

async function mountNew(image: string, mount: string): Promise<void> {
  await runCommand(['mkfs.ext4', '-q', '-F', '-m', '0', image])
  await runCommand(['mount', '-o', 'loop', image, mount])
}
