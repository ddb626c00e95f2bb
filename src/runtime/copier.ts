import { Worker } from 'node:worker_threads'
import type { Copy, FileRange, Write } from './disk.ts'
import type { SystemFile } from './system-file.ts'
import { asBefore } from './thread-priority.ts'

/** `syscall` says whether reading or writing failed. */
interface CopyError {
  message: string
  code?: string
  syscall?: string
}

/** What the thread answers: the descriptors of files that it was to make. */
interface CopyAnswer {
  id: number
  error: CopyError | null
  descriptors: number[]
  /** What came with the question and can be used again. */
  bytes?: ArrayBuffer
}

/** What runs beside this thread. */
export const COPY_THREAD = new URL('./copy-worker.mjs', import.meta.url)

/**
 * Hands copies, writes, punches and the making of files to a thread; started at the first use. When the thread ends, nobody knows
 * what of its work was done: that fails, and so does all that comes after it. The errors bear no code, as no disk is to blame.
 */
export class Copier {
  readonly #script: URL
  #worker: Worker | null = null
  #ended: Error | null = null
  /** Memory that has been to the thread and back: new memory costs more than what is written from it. */
  #spare: ArrayBuffer | null = null
  #nextId = 1
  readonly #waiting = new Map<number, { resolve: (descriptors: number[]) => void; reject: (error: Error) => void }>()

  constructor(script: URL) {
    this.#script = script
  }

  /** Makes files, empty ones; resolves with their descriptors. */
  async create(paths: readonly string[], mode: number): Promise<number[]> {
    return paths.length === 0 ? [] : this.#ask({ paths, mode })
  }

  async write(writes: readonly Write[]): Promise<void> {
    if (writes.length === 0) return
    const length = writes.reduce((sum, { bytes }) => sum + bytes.length, 0)
    const spare = this.#spare !== null && this.#spare.byteLength >= length ? this.#spare : new ArrayBuffer(length)
    this.#spare = null
    const bytes = new Uint8Array(spare)
    const jobs = new Float64Array(writes.length * 3)
    let end = 0
    writes.forEach((write, i) => {
      jobs.set([(write.to as SystemFile).fd, write.position, write.bytes.length], i * 3)
      bytes.set(write.bytes, end)
      end += write.bytes.length
    })
    await this.#ask({ writes: jobs, bytes: spare }, [jobs.buffer, spare])
  }

  async copy(copies: readonly Copy[]): Promise<void> {
    if (copies.length === 0) return
    const jobs = new Float64Array(copies.length * 5)
    copies.forEach(({ from, fromPosition, to, toPosition, length }, i) => {
      jobs.set([(from as SystemFile).fd, fromPosition, (to as SystemFile).fd, toPosition, length], i * 5)
    })
    await this.#ask({ copies: jobs }, [jobs.buffer])
  }

  async punch(ranges: readonly FileRange[]): Promise<void> {
    if (ranges.length === 0) return
    const jobs = new Float64Array(ranges.length * 3)
    ranges.forEach(({ file, position, length }, i) => {
      jobs.set([(file as SystemFile).fd, position, length], i * 3)
    })
    await this.#ask({ punches: jobs }, [jobs.buffer])
  }

  #ask(work: object, moved: ArrayBuffer[] = []): Promise<number[]> {
    if (this.#ended) return Promise.reject(this.#ended)
    const id = this.#nextId++
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      const thread = this.#thread()
      thread.ref() // what waits for it keeps the process; an idle thread does not
      thread.postMessage({ id, ...work }, moved)
    })
  }

  #thread(): Worker {
    if (this.#worker) return this.#worker
    const options = {
      stdout: false,
      stderr: false,
      trackUnmanagedFds: false, // the files that it makes are not its own
    }
    const worker = asBefore(() => new Worker(this.#script, options))
    worker.on('message', ({ id, error, descriptors, bytes }: CopyAnswer) => {
      this.#spare = bytes ?? this.#spare
      const waiter = this.#waiting.get(id)
      this.#waiting.delete(id)
      if (this.#waiting.size === 0) worker.unref()
      if (error) waiter?.reject(Object.assign(new Error(error.message), { code: error.code, syscall: error.syscall }))
      else waiter?.resolve(descriptors)
    })
    worker.on('error', (error) => this.#end(`the copying thread has failed: ${error.message}`))
    worker.on('exit', (code) => this.#end(`the copying thread has ended with code ${code}`))
    this.#worker = worker
    return worker
  }

  #end(why: string): void {
    this.#ended ??= new Error(why)
    for (const waiter of this.#waiting.values()) waiter.reject(this.#ended)
    this.#waiting.clear()
  }

  async close(): Promise<void> {
    await this.#worker?.terminate()
  }
}
