import { type DestinationStream, type Logger, pino } from 'pino'

export type Log = Logger

/** Keys whose values never reach a log line, at the top level or one or two levels down. */
const SECRET_KEYS = [
  'password',
  'token',
  'secret',
  'auth_key',
  'uri',
  'auth_password',
  '["x-auth-token"]',
  '["x-subject-token"]',
  '["x-service-token"]',
  'authorization',
]

/** JSON lines on standard error, so that standard output stays free for what a command prints. */
export function createLog(level: string, destination: DestinationStream = standardError()): Log {
  const paths = SECRET_KEYS.flatMap((key) => {
    const tail = key.startsWith('[') ? key : `.${key}`
    return [key, `*${tail}`, `*.*${tail}`]
  })
  return pino({ level, base: null, redact: { paths, censor: '[redacted]' } }, destination)
}

let opened: DestinationStream | null = null

/** One for all logs of the thread: each has something to do when the process exits. */
function standardError(): DestinationStream {
  opened ??= batched(pino.destination(2))
  return opened
}

/** Lines of a busy moment are written at once, at most this late. */
const DELAY_MS = 20
const BATCH_LENGTH_MAX = 64 * 1024
const WARNING = 40

/** Warnings, and whatever is worse, are written on the spot, and so is what came before them. */
export function batched(stream: DestinationStream & { flushSync(): void }): DestinationStream {
  let lines = ''
  let timer: NodeJS.Timeout | null = null
  const flush = () => {
    if (timer !== null) clearTimeout(timer)
    timer = null
    if (lines !== '') stream.write(lines)
    lines = ''
  }
  process.on('exit', () => {
    flush()
    stream.flushSync()
  })
  return {
    [Symbol.for('pino.metadata')]: true, // asks pino to say the level of each line
    lastLevel: 0,
    write(line: string) {
      lines += line
      if (this.lastLevel >= WARNING || lines.length > BATCH_LENGTH_MAX) flush()
      else timer ??= setTimeout(flush, DELAY_MS).unref()
    },
  } as DestinationStream & { lastLevel: number }
}
