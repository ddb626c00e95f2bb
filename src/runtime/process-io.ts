import { readFileSync } from 'node:fs'

/** Standard input, output and error of this process, and the signals that end it; for the command line. */

const BROKEN_PIPE = 128 + 13
const SIGNALS = { SIGINT: 2, SIGTERM: 15 } as const

// Who reads only the head of what is printed has what he wanted; a program in C would be ended by SIGPIPE.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(BROKEN_PIPE)
  throw error
})

async function* input(): AsyncGenerator<Buffer> {
  for await (const chunk of process.stdin) yield chunk as Buffer
}

/** Resolves when the kernel has the bytes. */
function output(bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(bytes, (error) => (error ? reject(error) : resolve()))
  })
}

async function interruptible<T>(work: (interrupted: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController()
  const onSignal = (name: keyof typeof SIGNALS) => {
    if (controller.signal.aborted) process.exit(128 + SIGNALS[name])
    controller.abort(new Interrupted(128 + SIGNALS[name]))
  }
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, onSignal)
  try {
    return await work(controller.signal)
  } finally {
    for (const name of ['SIGINT', 'SIGTERM'] as const) process.off(name, onSignal)
  }
}

/** Why the signal of `interruptible` was aborted. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted'
  /** What a shell says of a process that the signal has ended. */
  readonly exitCode: number

  constructor(exitCode: number) {
    super('interrupted')
    this.exitCode = exitCode
  }
}

export const processIo = {
  readFile: (path: string) => readFileSync(path, 'utf8'),
  out: (text: string) => void process.stdout.write(`${text}\n`),
  err: (text: string) => void process.stderr.write(`${text}\n`),
  input,
  output,
  interruptible,
  terminal: process.stderr.isTTY
    ? {
        get columns() {
          return process.stderr.columns
        },
        draw: (line: string) => void process.stderr.write(line),
      }
    : null,
}
