import assert from 'node:assert'
import { parentPort, workerData } from 'node:worker_threads'
import type { Config } from './config.ts'
import { ServiceError } from './errors.ts'
import type { VolumeCopies } from './services/volume-copies.ts'
import type { CopyAnswer, CopyQuestion } from './volume-copy-thread.ts'

/** The thread that copies volumes (see volume-copy-thread.ts). What it copies with is loaded for the first step: many a process never has one. */
const port = parentPort
assert(port !== null, 'volume-copy-worker runs as a worker thread')

const { config } = workerData as { config: Config }
let opened: Promise<VolumeCopies> | null = null

port.on('message', async (question: CopyQuestion) => {
  port.postMessage({ id: question.id, ...(await answer(question)) })
})

async function open(): Promise<VolumeCopies> {
  const { openVolumeCopies } = await import('./app-volume-copies.ts')
  return openVolumeCopies(config)
}

async function answer({ method, step }: CopyQuestion): Promise<CopyAnswer> {
  try {
    opened ??= open()
    const copies = await opened
    const copy = copies[method] as (step: CopyQuestion['step']) => Promise<unknown>
    return { result: await copy(step) }
  } catch (error) {
    if (error instanceof ServiceError) return { refusal: { code: error.code, params: error.params } }
    return { defect: error as Error }
  }
}
