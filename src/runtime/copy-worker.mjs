/**
 * Thread that copies ranges between open files, writes to them, punches holes into them, and makes files. Plain JavaScript, so that the same file runs
 * from the sources and from the build. Messages in, each with an id:
 *
 *   { copies: Float64Array of (from fd, from position, to fd, to position, length) }
 *   { writes: Float64Array of (fd, position, length), bytes: the bytes of them all, one after the other }
 *   { punches: Float64Array of (fd, position, length) }: best effort
 *   { paths, mode }: files to be made, or emptied
 *
 * Messages out: { id, error: null | { message, code, syscall }, descriptors: of the files made, bytes: as they came }.
 */
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs'
import { parentPort } from 'node:worker_threads'
import koffi from 'koffi'

const fallocate = koffi.load('libc.so.6').func('int fallocate(int fd, int mode, int64_t offset, int64_t length)')
const PUNCH_HOLE_KEEP_SIZE = 2 | 1

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
      writeWhole(to, buffer, 0, got, toPosition + done)
      done += got
    }
  }
}

/**
 * @param {Float64Array} jobs
 * @param {Uint8Array} bytes
 */
function writeAll(jobs, bytes) {
  let offset = 0
  for (let at = 0; at < jobs.length; at += 3) {
    const [fd = -1, position = 0, length = 0] = jobs.subarray(at, at + 3)
    writeWhole(fd, bytes, offset, length, position)
    offset += length
  }
}

/**
 * @param {number} fd
 * @param {Uint8Array} bytes
 * @param {number} offset
 * @param {number} length
 * @param {number} position
 */
function writeWhole(fd, bytes, offset, length, position) {
  for (let done = 0; done < length; ) done += writeSync(fd, bytes, offset + done, length - done, position + done)
}

/** @param {Float64Array} jobs */
function punchAll(jobs) {
  for (let at = 0; at < jobs.length; at += 3) fallocate(jobs[at], PUNCH_HOLE_KEEP_SIZE, jobs[at + 1], jobs[at + 2])
}

/**
 * @param {readonly string[]} paths
 * @param {number} mode
 */
function createAll(paths, mode) {
  /** @type {number[]} */
  const descriptors = []
  try {
    for (const path of paths) {
      descriptors.push(openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC, mode))
    }
  } catch (error) {
    for (const descriptor of descriptors) closeSync(descriptor)
    throw error
  }
  return descriptors
}

parentPort?.on('message', ({ id, copies, writes, bytes, punches, paths, mode }) => {
  try {
    if (copies) copyAll(copies)
    if (writes) writeAll(writes, new Uint8Array(bytes))
    if (punches) punchAll(punches)
    const descriptors = paths ? createAll(paths, mode) : []
    parentPort?.postMessage({ id, error: null, descriptors, bytes }, bytes ? [bytes] : [])
  } catch (error) {
    const { message, code, syscall } = /** @type {NodeJS.ErrnoException} */ (error)
    parentPort?.postMessage({ id, error: { message, code, syscall }, descriptors: [] })
  }
})
