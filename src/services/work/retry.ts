import { AssertionError } from 'node:assert/strict'
import { ServiceError, type ServiceErrorCode } from '../../errors.ts'

export interface WorkSettings {
  /** Units that run at the same time; more wait in the database. */
  concurrency: number
  /** Attempts at one step before it is given up. */
  attemptsMax: number
  /** The same while the backend cannot be reached at all: long enough for it to be started again. */
  outageAttemptsMax: number
  /** An attempt that takes longer counts as failed, though the backend may still end it. */
  attemptTimeoutMs: number
  /** Wait before the second attempt; each further wait is twice as long, up to `backoffMaxMs`. */
  backoffMs: number
  backoffMaxMs: number
  /** How often a process says that it is alive, where several work on one database. */
  heartbeatMs: number
  /** A process that has been silent for so long is given up, and others take its work over. */
  deadAfterMs: number
}

export const DEFAULT_WORK: WorkSettings = {
  concurrency: 32,
  attemptsMax: 5,
  outageAttemptsMax: 30,
  attemptTimeoutMs: 60_000,
  backoffMs: 200,
  backoffMaxMs: 10_000,
  heartbeatMs: 1000,
  deadAfterMs: 8000,
}

/** Errors that another attempt may not meet. Anything else that the driver contract names stays true when repeated. */
const TRANSIENT: ReadonlySet<ServiceErrorCode> = new Set<ServiceErrorCode>([
  'BackendFailure',
  'ImageCopyFailure',
  'ResultNotRecorded',
])

/** The same of what cannot be reached at all. */
const OUTAGES: ReadonlySet<ServiceErrorCode> = new Set<ServiceErrorCode>([
  'ServiceUnavailable',
  'GlanceConnectionFailed',
])

/** What a driver says may be of any length. */
const REASON_CHARACTERS_MAX = 2000

export function isWorthRepeating(error: ServiceError, attempt: number, settings: WorkSettings): boolean {
  return (TRANSIENT.has(error.code) || OUTAGES.has(error.code)) && attempt < attemptsMax(error, settings)
}

/** The attempts at a step after which it is abandoned when giving it up fails as well. */
export function attemptsBeforeAbandon(error: ServiceError, settings: WorkSettings): number {
  return attemptsMax(error, settings) + settings.attemptsMax
}

function attemptsMax(error: ServiceError, settings: WorkSettings): number {
  return OUTAGES.has(error.code) ? settings.outageAttemptsMax : settings.attemptsMax
}

/** Wait after the failed attempt number `attempt`, counted from 1. */
export function backoffMs(attempt: number, settings: WorkSettings): number {
  return Math.min(settings.backoffMs * 2 ** (attempt - 1), settings.backoffMaxMs)
}

/** Whatever was thrown, as an error of the service whose message any database takes. */
export function toServiceError(error: unknown): ServiceError {
  if (error instanceof ServiceError) {
    if (error.message === storable(error.message)) return error
    const params = Object.entries(error.params).map(([key, value]) => [key, storable(String(value))] as const)
    return new ServiceError(error.code, Object.fromEntries(params), { cause: error.cause ?? error })
  }
  const reason = error instanceof Error ? error.message : String(error)
  return toServiceError(new ServiceError('BackendFailure', { reason }, { cause: error }))
}

/** Whether the program itself is wrong: something that must always hold does not. */
export function isBug(error: ServiceError): boolean {
  return error.cause instanceof AssertionError
}

/** PostgreSQL has no place for a NUL, and neither it nor SQLite for half a character. */
function storable(text: string): string {
  return Buffer.from(text.replaceAll('\0', '').slice(0, REASON_CHARACTERS_MAX)).toString()
}
