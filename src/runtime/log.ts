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
export function createLog(level: string, destination: DestinationStream = pino.destination(2)): Log {
  const paths = SECRET_KEYS.flatMap((key) => {
    const tail = key.startsWith('[') ? key : `.${key}`
    return [key, `*${tail}`, `*.*${tail}`]
  })
  return pino({ level, base: null, redact: { paths, censor: '[redacted]' } }, destination)
}
