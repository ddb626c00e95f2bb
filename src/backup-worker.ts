import assert from 'node:assert'
import { parentPort, workerData } from 'node:worker_threads'
import type { BackupAnswer, BackupQuestion } from './backup-thread.ts'
import type { Config } from './config.ts'
import { ServiceError } from './errors.ts'
import type { BackupCopies } from './services/backup/copies.ts'

/** The thread of backups (see backup-thread.ts). What it copies with is loaded for the first step: many a process never has one. */
const port = parentPort
assert(port !== null, 'backup-worker runs as a worker thread')

const { config } = workerData as { config: Config }
let opened: Promise<BackupCopies> | null = null

port.on('message', async ({ id, ...question }: BackupQuestion & { id: number }) => {
  port.postMessage({ id, ...(await answer(question)) })
})

async function open(): Promise<BackupCopies> {
  try {
    const { openBackupCopies } = await import('./app-backup-copies.ts')
    return await openBackupCopies(config)
  } catch (error) {
    opened = null // the next step tries again
    throw error
  }
}

async function answer(question: BackupQuestion): Promise<BackupAnswer> {
  try {
    opened ??= open()
    const copies = await opened
    const result = 'backUp' in question ? copies.backUp(question.backUp) : copies.restore(question.restore)
    return { result: await result }
  } catch (error) {
    if (error instanceof ServiceError) return { refusal: { code: error.code, params: error.params } }
    return { defect: error as Error }
  }
}
