/*
 * Loaded into a `collie serve` before anything else (see Collie.preload). The thread of backups ends as by a defect, when it next makes a
 * file durable while there is `end-backup-thread` in the data directory, which it removes: what it was at is half done then.
 */
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { isMainThread, workerData } from 'node:worker_threads'

const isBackupThread = !isMainThread && /\bbackup-worker\.[jt]s$/.test(process.argv[1] ?? '')

if (isBackupThread) {
  const order = `${workerData.config.data_dir}/end-backup-thread`
  const { fdatasync } = fs
  /** @type {(fd: number, done: fs.NoParamCallback) => void} */
  const syncOrEnd = (fd, done) => {
    if (!fs.existsSync(order)) return fdatasync(fd, done)
    fs.unlinkSync(order)
    process.nextTick(() => {
      throw new Error('a test has ended it')
    })
  }
  Object.assign(fs, { fdatasync: syncOrEnd })
  syncBuiltinESMExports()
}
