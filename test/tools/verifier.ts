import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'

export interface VerifierOptions {
  seed: number
  /** Kept from one process to the next. */
  ledgerPath: string
  sizeBytes: number
}

export interface ExportAddress {
  /** `host:port` */
  address: string
  name: string
}

/** Counted since the start of the process. */
export interface Tally {
  /** Acknowledged ones. */
  writes: number
  flushes: number
  reads: number
  sectorsChecked: number
  /** Writes that were in flight when the server went away. */
  unanswered: number
}

export type Order =
  | { verb: 'run'; at: ExportAddress }
  | { verb: 'checkSnapshot'; snapshot: string; at: ExportAddress }
  | { verb: 'mark' | 'unmark' | 'dropMark'; snapshot: string }
  | { verb: 'pause' | 'marks' | 'tally' }

export type Answer = { id: number; result: unknown } | { id: number; error: string } | { failure: string }

const PROGRAM = path.join(import.meta.dirname, 'crash-verifier.ts')

/** The process of crash-verifier.ts, seen from the one that kills servers. Every method rejects once a write is lost. */
export class Verifier {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, { resolve: (result: never) => void; reject: (error: Error) => void }>()
  #lastId = 0
  #failure: Error | null = null

  constructor(options: VerifierOptions) {
    this.#child = fork(PROGRAM, [JSON.stringify(options)], { execArgv: ['--import', 'tsx'] })
    this.#child.on('message', (answer: Answer) => this.#receive(answer))
    this.#child.on('exit', (code, signal) => this.#fail(new Error(`the verifier ended with ${code ?? signal}`)))
  }

  /** Checks the disk and starts to write to it. False when the server went away before the disk was checked. */
  run = (at: ExportAddress) => this.#order<boolean>({ verb: 'run', at })
  /** Ends the writing with everything answered. */
  pause = () => this.#order<void>({ verb: 'pause' })
  /** From here on the snapshot may be taken, and until `unmark`. */
  mark = (snapshot: string) => this.#order<void>({ verb: 'mark', snapshot })
  unmark = (snapshot: string) => this.#order<void>({ verb: 'unmark', snapshot })
  dropMark = (snapshot: string) => this.#order<void>({ verb: 'dropMark', snapshot })
  marks = () => this.#order<{ name: string; isOpen: boolean }[]>({ verb: 'marks' })
  /** Checks a disk made from the snapshot. False when the server went away. */
  checkSnapshot = (snapshot: string, at: ExportAddress) => this.#order<boolean>({ verb: 'checkSnapshot', snapshot, at })
  tally = () => this.#order<Tally>({ verb: 'tally' })

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await ended
  }

  #order<T>(order: Order): Promise<T> {
    if (this.#failure !== null) return Promise.reject(this.#failure)
    const id = ++this.#lastId
    return new Promise<T>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      this.#child.send({ id, order })
    })
  }

  #receive(answer: Answer): void {
    if ('failure' in answer) return this.#fail(new Error(answer.failure))
    const waiting = this.#waiting.get(answer.id)!
    this.#waiting.delete(answer.id)
    if ('error' in answer) waiting.reject(new Error(answer.error))
    else waiting.resolve(answer.result as never)
  }

  #fail(error: Error): void {
    this.#failure ??= error
    for (const { reject } of this.#waiting.values()) reject(this.#failure)
    this.#waiting.clear()
  }
}
