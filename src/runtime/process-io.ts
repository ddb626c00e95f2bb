import { readFileSync } from 'node:fs'

const SIGNAL_NUMBERS = { SIGINT: 2, SIGTERM: 15, SIGPIPE: 13 } as const
type Signal = keyof typeof SIGNAL_NUMBERS

/** What a shell says of a process that the signal has ended. */
const endedBy = (signal: Signal): number => 128 + SIGNAL_NUMBERS[signal]

/** Why work that is interruptible ended early: on a signal, or because nobody reads its output any more. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted'
  readonly exitCode: number

  constructor(signal: Signal) {
    super(signal === 'SIGPIPE' ? 'nobody reads the output any more' : 'interrupted')
    this.exitCode = endedBy(signal)
  }
}

/** Standard input, output and error of this process, and the signals that end it; for the command line. */
export function processIo() {
  let isInterruptible = false
  // Who reads only the head of what is printed has what he wanted. Node ignores SIGPIPE, which would end a program in C.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
    if (!isInterruptible) process.exit(endedBy('SIGPIPE'))
  })

  return {
    readFile: (path: string) => readFileSync(path, 'utf8'),
    out: (text: string) => void process.stdout.write(`${text}\n`),
    err: (text: string) => void process.stderr.write(`${text}\n`),
    terminal: process.stderr.isTTY
      ? { columns: () => process.stderr.columns, draw: (text: string) => void process.stderr.write(text) }
      : null,

    async *input(): AsyncGenerator<Buffer> {
      for await (const chunk of process.stdin) yield chunk as Buffer
    },

    /** Resolves when the kernel has the bytes. */
    output: (bytes: Buffer): Promise<void> =>
      new Promise((resolve, reject) => {
        process.stdout.write(bytes, (error) => {
          if (!error) resolve()
          else reject((error as NodeJS.ErrnoException).code === 'EPIPE' ? new Interrupted('SIGPIPE') : error)
        })
      }),

    async interruptible<T>(work: (interrupted: AbortSignal) => Promise<T>): Promise<T> {
      const controller = new AbortController()
      const onSignal = (signal: 'SIGINT' | 'SIGTERM') => {
        if (controller.signal.aborted) process.exit(endedBy(signal))
        controller.abort(new Interrupted(signal))
      }
      const signals = ['SIGINT', 'SIGTERM'] as const
      for (const signal of signals) process.on(signal, onSignal)
      isInterruptible = true
      try {
        return await work(controller.signal)
      } finally {
        isInterruptible = false
        for (const signal of signals) process.off(signal, onSignal)
      }
    },
  }
}
