import { Worker } from 'node:worker_threads'
import type { Config } from './config.ts'
import { ServiceError } from './errors.ts'
import type { VolumeCopies } from './services/volume-copies.ts'

type CopyMethod = keyof VolumeCopies
type CopyStep<M extends CopyMethod> = Parameters<VolumeCopies[M]>[0]

export interface CopyQuestion<M extends CopyMethod = CopyMethod> {
  id: number
  method: M
  step: CopyStep<M>
}
/** A ServiceError crosses as what it is made of; anything else as it is. */
export type CopyAnswer = { result: unknown } | { refusal: Pick<ServiceError, 'code' | 'params'> } | { defect: Error }

interface Waiting {
  resolve(result: unknown): void
  reject(error: unknown): void
}

export interface VolumeCopyThread extends VolumeCopies {
  close(): Promise<void>
}

/**
 * Copies backups and volumes that get another encryption on a thread of their own. When it ends, the steps that it was at fail as when a
 * backend is away: they are tried again, on a new one.
 *
 * Its heap is next to empty. Memory of chunks counts as a part of the heap that knows it, and every few tens of MiB of it have that heap
 * looked through: in the service's this took more of the processors than hashing and compressing. A thread has the priority of the one
 * that starts it, so this one is started before that of the API yields.
 */
export function startVolumeCopyThread(config: Config): VolumeCopyThread {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
  const script = new URL(`./volume-copy-worker.${extension}`, import.meta.url)
  const waiting = new Map<number, Waiting>()
  let nextId = 1
  let worker: Worker | null = start()

  function start(): Worker {
    const started = new Worker(script, { workerData: { config } })
    started.unref() // a step keeps the process, an idle thread does not
    started.on('message', ({ id, ...answer }: CopyAnswer & { id: number }) => settle(id, answer))
    let why = 'it was closed'
    started.on('error', (error: Error) => {
      why = error.message
    })
    started.on('exit', () => {
      const reason = `the thread that copies volumes has ended: ${why}`
      for (const { reject } of waiting.values()) reject(new ServiceError('ServiceUnavailable', { reason }))
      waiting.clear()
      worker = null
    })
    return started
  }

  function settle(id: number, answer: CopyAnswer): void {
    const waiter = waiting.get(id)
    waiting.delete(id)
    if (waiting.size === 0) worker?.unref()
    if ('result' in answer) waiter?.resolve(answer.result)
    else if ('refusal' in answer) waiter?.reject(new ServiceError(answer.refusal.code, answer.refusal.params))
    else waiter?.reject(answer.defect)
  }

  function ask<M extends CopyMethod>(method: M, step: CopyStep<M>): ReturnType<VolumeCopies[M]> {
    const id = nextId++
    return new Promise<unknown>((resolve, reject) => {
      waiting.set(id, { resolve, reject })
      worker ??= start()
      worker.ref()
      const question: CopyQuestion<M> = { id, method, step }
      worker.postMessage(question)
    }) as ReturnType<VolumeCopies[M]>
  }

  return {
    backUp: (step) => ask('backUp', step),
    restore: (step) => ask('restore', step),
    copyGuest: (step) => ask('copyGuest', step),
    close: async () => {
      await worker?.terminate()
    },
  }
}
