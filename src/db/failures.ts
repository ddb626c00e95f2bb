import { ServiceError } from '../errors.ts'

/** What a database client rejects with, sorted by what can be done about it. */

/** The statement may succeed when its whole transaction is run again: another one was in the way. */
export function isWorthRepeating(error: unknown): boolean {
  return ['40001', '40P01'].includes(codeOf(error)) // serialization failure, deadlock
}

/** Whether the statement failed because a row of that key exists. */
export function isUniqueViolation(error: unknown): boolean {
  return ['SQLITE_CONSTRAINT_UNIQUE', 'SQLITE_CONSTRAINT_PRIMARYKEY', '23505'].includes(codeOf(error))
}

/** Whether the statement failed because other rows refer to the row. */
export function isForeignKeyViolation(error: unknown): boolean {
  return ['SQLITE_CONSTRAINT_FOREIGNKEY', 'SQLITE_CONSTRAINT_TRIGGER', '23503'].includes(codeOf(error))
}

/**
 * An error in the service's words where the service has any: ServiceUnavailable when the database cannot be reached or
 * cannot work at present, InvalidInput for a value that none of its columns can hold. Others pass as they are.
 */
export function translate(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof ServiceError) return error
  const code = codeOf(error)
  const trouble = AWAY[code] ?? (isLostConnection(error, code) ? 'the connection to it was lost' : undefined)
  if (trouble !== undefined) {
    return new ServiceError(
      'ServiceUnavailable',
      { reason: `The database is not available: ${trouble}.` },
      { cause: error },
    )
  }
  if (UNFIT.has(code)) {
    return new ServiceError(
      'InvalidInput',
      { reason: 'A value is too long or too large to be kept.' },
      { cause: error },
    )
  }
  return error
}

/** By SQLSTATE, Node's code, or SQLite's. None of the texts tells where the database is, or as whom it is used. */
const AWAY: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nobody listens at its address',
  ENOENT: 'its socket does not exist',
  ENOTFOUND: 'its host name is not known',
  EAI_AGAIN: 'its host name cannot be looked up',
  EHOSTUNREACH: 'its host cannot be reached',
  ENETUNREACH: 'its network cannot be reached',
  ETIMEDOUT: 'it does not answer',
  EIO: 'its disk failed',
  ENOSPC: 'its disk is full',
  '28000': 'it refuses the user',
  '28P01': 'it refuses the password',
  '3D000': 'it does not exist on its server',
  '25006': 'it is read-only',
  '53100': 'its disk is full',
  '53200': 'it is out of memory',
  '53300': 'it has too many connections',
  '57P01': 'it is being stopped',
  '57P02': 'it crashed',
  '57P03': 'it is starting or stopping',
  SQLITE_BUSY: 'another process holds it',
  SQLITE_BUSY_SNAPSHOT: 'another process holds it',
  SQLITE_FULL: 'its disk is full',
  SQLITE_READONLY: 'its file is read-only',
}

/** Values that PostgreSQL refuses: too long, out of range, not of the type, not UTF-8. The API's schemas refuse them first. */
const UNFIT: ReadonlySet<string> = new Set(['22001', '22003', '22P02', '22021'])

function isLostConnection(error: Error, code: string): boolean {
  if (code.startsWith('08') || code.startsWith('SQLITE_IOERR')) return true
  if (code === 'ECONNRESET' || code === 'EPIPE' || error.name === 'KnexTimeoutError') return true
  return /Connection terminated|connection error|timeout expired|Query read timeout|Client was closed/.test(
    error.message,
  )
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}
