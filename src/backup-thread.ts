import { Worker } from 'node:worker_threads'
import type { Config } from './config.ts'
import { ServiceError } from './errors.ts'
import type { BackUpStep, BackupCopies, RestoreStep } from './services/backup/copies.ts'

export type BackupQuestion = { backUp: BackUpStep } | { restore: RestoreStep }
/** A ServiceError crosses as what it is made of; anything else as it is. */
export type BackupAnswer = { result: unknown } | { refusal: Pick<ServiceError, 'code' | 'params'> } | { defect: Error }

interface Waiting {
  resolve(result: unknown): void
  reject(error: unknown): void
}

export interface BackupThread extends BackupCopies {
  close(): Promise<void>
}

/**
 * Copies backups on a thread of their own. When it ends, the steps that it was at fail as when a backend is away: they are tried again, on
 * a new one.
 *
 * Its heap is next to empty. Memory of chunks counts as a part of the heap that knows it, and every few tens of MiB of it have that heap
 * looked through: in the service's this took more of the processors than hashing and compressing. A thread has the priority of the one
 * that starts it, so this one is started before that of the API yields.
 */
export function startBackupThread(config: Config): BackupThread {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
  const script = new URL(`./backup-worker.${extension}`, import.meta.url)
  const waiting = new Map<number, Waiting>()
  let nextId = 1
  let worker: Worker | null = start()

  function start(): Worker {
    const started = new Worker(script, { workerData: { config } })
    started.unref() // a step keeps the process, an idle thread does not
    started.on('message', ({ id, ...answer }: BackupAnswer & { id: number }) => settle(id, answer))
    let why = 'it was closed'
    started.on('error', (error: Error) => {
      why = error.message
    })
    started.on('exit', () => {
      const reason = `the thread of backups has ended: ${why}`
      for (const { reject } of waiting.values()) reject(new ServiceError('ServiceUnavailable', { reason }))
      waiting.clear()
      worker = null
    })
    return started
  }

  function settle(id: number, answer: BackupAnswer): void {
    const waiter = waiting.get(id)
    waiting.delete(id)
    if (waiting.size === 0) worker?.unref()
    if ('result' in answer) waiter?.resolve(answer.result)
    else if ('refusal' in answer) waiter?.reject(new ServiceError(answer.refusal.code, answer.refusal.params))
    else waiter?.reject(answer.defect)
  }

  function ask<T>(question: BackupQuestion): Promise<T> {
    const id = nextId++
    return new Promise<unknown>((resolve, reject) => {
      waiting.set(id, { resolve, reject })
      worker ??= start()
      worker.ref()
      worker.postMessage({ id, ...question })
    }) as Promise<T>
  }

  return {
    backUp: (step) => ask({ backUp: step }),
    restore: (step) => ask({ restore: step }),
    close: async () => {
      await worker?.terminate()
    },
  }
}
