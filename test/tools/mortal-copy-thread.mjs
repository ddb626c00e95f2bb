/*
 * Loaded into a `collie serve` before anything else (see Collie.preload). The thread that copies volumes ends as by a defect, when it next
 * makes a file durable, or encrypts, while there is `end-copy-thread` in the data directory, which it removes: what it was at is half done then.
 */
import crypto from 'node:crypto'
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { isMainThread, workerData } from 'node:worker_threads'

const isCopyThread = !isMainThread && /\bvolume-copy-worker\.[jt]s$/.test(process.argv[1] ?? '')

if (isCopyThread) {
  const order = `${workerData.config.data_dir}/end-copy-thread`
  /** Whether it ends now, with the turn of the event loop. */
  const isEnding = () => {
    if (!fs.existsSync(order)) return false
    fs.unlinkSync(order)
    process.nextTick(() => {
      throw new Error('a test has ended it')
    })
    return true
  }
  const { fdatasync } = fs
  const { createCipheriv } = crypto
  Object.assign(fs, {
    /** @type {(fd: number, done: fs.NoParamCallback) => void} */
    fdatasync: (fd, done) => {
      if (!isEnding()) fdatasync(fd, done)
    },
  })
  Object.assign(crypto, {
    /** @type {(...args: Parameters<typeof createCipheriv>) => ReturnType<typeof createCipheriv>} */
    createCipheriv: (...args) => {
      isEnding()
      return createCipheriv(...args)
    },
  })
  syncBuiltinESMExports()
}
