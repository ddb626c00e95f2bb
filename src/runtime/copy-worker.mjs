/**
 * Thread that copies ranges between open files. Plain JavaScript, so that the same file runs from the sources and from
 * the build. Messages in: { id, jobs: Float64Array of (from fd, from position, to fd, to position, length) };
 * messages out: { id, error: null | { message, code } }.
 */
import { readSync, writeSync } from 'node:fs'
import { parentPort } from 'node:worker_threads'

const WINDOW_BYTES = 1024 * 1024
const buffer = Buffer.allocUnsafeSlow(WINDOW_BYTES)

/** @param {Float64Array} jobs */
function copyAll(jobs) {
  for (let at = 0; at < jobs.length; at += 5) {
    const [from = -1, fromPosition = 0, to = -1, toPosition = 0, length = 0] = jobs.subarray(at, at + 5)
    for (let done = 0; done < length; ) {
      const want = Math.min(WINDOW_BYTES, length - done)
      const got = readSync(from, buffer, 0, want, fromPosition + done)
      if (got === 0) throw new Error('copy source ended early')
      for (let put = 0; put < got; ) put += writeSync(to, buffer, put, got - put, toPosition + done + put)
      done += got
    }
  }
}

parentPort?.on('message', ({ id, jobs }) => {
  try {
    copyAll(jobs)
    parentPort?.postMessage({ id, error: null })
  } catch (error) {
    const { message, code, syscall } = /** @type {NodeJS.ErrnoException} */ (error)
    parentPort?.postMessage({ id, error: { message, code, syscall } })
  }
})
