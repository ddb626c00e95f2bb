import { STATUS_CODES } from 'node:http'
import { ServiceError } from '../errors.ts'

/** A refusal of the identity API, with its status and the sentence for the client. */
export class KeystoneError extends Error {
  override readonly name = 'KeystoneError'
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

/** Keystone's form of an error. Only what was thrown as a refusal says why; the rest is a 500 without details. */
export function identityError(error: unknown): {
  status: number
  body: { error: { code: number; message: string; title: string } }
} {
  const { status, message } = refusalOf(error) ?? {
    status: 500,
    message: 'An unexpected error prevented the server from fulfilling your request.',
  }
  return { status, body: { error: { code: status, message, title: STATUS_CODES[status] ?? 'Error' } } }
}

function refusalOf(error: unknown): { status: number; message: string } | null {
  if (error instanceof KeystoneError) return error
  if (error instanceof ServiceError) {
    return { status: error.code === 'ServiceUnavailable' ? 503 : 400, message: error.message }
  }
  // Fastify's own refusals: a body that is too large, of another type, or not JSON.
  if (
    error instanceof Error &&
    'statusCode' in error &&
    typeof error.statusCode === 'number' &&
    error.statusCode < 500
  ) {
    return { status: error.statusCode, message: error.message }
  }
  return null
}
