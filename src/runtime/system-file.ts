import { close, fdatasync, fstat, ftruncate, read, write, writeSync, writevSync } from 'node:fs'
import { promisify } from 'node:util'
import { type DiskFile, WOULD_BLOCK } from './disk.ts'
import { readCached, seek } from './libc.ts'

const file = {
  read: promisify(read),
  write: promisify(write),
  datasync: promisify(fdatasync),
  truncate: promisify(ftruncate),
  stat: promisify(fstat),
  close: promisify(close),
}

const IOVECS_MAX = 1024

/** A file by its descriptor, since some are opened, read and written on the spot. */
export class SystemFile implements DiskFile {
  /** -1 once it is closed: the number may be another file's by then. */
  fd: number

  constructor(fd: number) {
    this.fd = fd
  }

  get #open(): number {
    if (this.fd < 0) throw Object.assign(new Error('EBADF: the file is closed'), { code: 'EBADF' })
    return this.fd
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    let done = 0
    while (done < target.length) {
      const { bytesRead } = await file.read(this.#open, target, done, target.length - done, position + done)
      if (bytesRead === 0) break
      done += bytesRead
    }
    return done
  }

  readNow(target: Uint8Array, position: number): number {
    const count = readCached(this.fd, target, position)
    return count === target.length ? count : WOULD_BLOCK
  }

  async write(source: Uint8Array, position: number): Promise<void> {
    let done = 0
    while (done < source.length) {
      const { bytesWritten } = await file.write(this.#open, source, done, source.length - done, position + done)
      done += bytesWritten
    }
  }

  writeNow(sources: readonly Uint8Array[], position: number): void {
    for (let first = 0; first < sources.length; first += IOVECS_MAX) {
      const batch = sources.slice(first, first + IOVECS_MAX)
      const length = batch.reduce((sum, source) => sum + source.length, 0)
      let written = writevSync(this.fd, batch, position)
      // A short write is rare (a signal, a full disk); the rest goes out in single writes, which say why.
      for (let skip = written, i = 0; written < length; i++) {
        const source = batch[i]!
        if (skip >= source.length) skip -= source.length
        else {
          for (let at = skip; at < source.length; ) {
            const count = writeSync(this.fd, source, at, source.length - at, position + written)
            at += count
            written += count
          }
          skip = 0
        }
      }
      position += length
    }
  }

  async sync(): Promise<void> {
    await file.datasync(this.#open)
  }

  async truncate(length: number): Promise<void> {
    await file.truncate(this.#open, length)
  }

  async size(): Promise<number> {
    return (await file.stat(this.#open)).size
  }

  async dataRanges(): Promise<{ position: number; length: number }[]> {
    const ranges: { position: number; length: number }[] = []
    for (let end = 0; ; ) {
      const start = seek(this.fd, end, 'data')
      if (start === null) return ranges
      end = seek(this.fd, start, 'hole') ?? start
      ranges.push({ position: start, length: end - start })
    }
  }

  async close(): Promise<void> {
    const { fd } = this
    this.fd = -1
    if (fd >= 0) await file.close(fd)
  }
}
