import type { z } from 'zod'
import { ServiceError } from '../errors.ts'
import { type HttpClient, HttpFailure, type HttpRequest, type HttpResponse, readBody } from '../runtime/http-client.ts'

/** Small documents to and from another service of the cloud. */
export interface JsonAnswer {
  status: number
  headers: HttpResponse['headers']
  text: string
}

/** Of an answer: a catalog of a large cloud has some hundred KiB. */
const ANSWER_BYTES_MAX = 4 * 1024 * 1024
const SHOWN_CHARACTERS = 200

type Exchange = Omit<HttpRequest, 'method' | 'body'>
type Message = Exchange & { document: unknown }

/** Rejects with ServiceUnavailable when `who` cannot be reached, or says that it cannot answer. */
export function postJson(http: HttpClient, who: string, message: Message): Promise<JsonAnswer> {
  return sendJson(http, who, 'POST', message)
}

/** As `postJson`, to change what is there. */
export function putJson(http: HttpClient, who: string, message: Message): Promise<JsonAnswer> {
  return sendJson(http, who, 'PUT', message)
}

function sendJson(
  http: HttpClient,
  who: string,
  method: 'POST' | 'PUT',
  { document, headers, ...rest }: Message,
): Promise<JsonAnswer> {
  return exchange(http, who, {
    ...rest,
    method,
    headers: { 'content-type': 'application/json', ...headers },
    body: Buffer.from(JSON.stringify(document)),
  })
}

/** As `postJson`, for what is there already. */
export function getJson(http: HttpClient, who: string, request: Exchange): Promise<JsonAnswer> {
  return exchange(http, who, { ...request, method: 'GET' })
}

async function exchange(http: HttpClient, who: string, { headers, ...rest }: HttpRequest): Promise<JsonAnswer> {
  try {
    const answer = await http.request({ ...rest, headers: { accept: 'application/json', ...headers } })
    const text = (await readBody(answer, ANSWER_BYTES_MAX)).toString()
    if (answer.status < 500) return { status: answer.status, headers: answer.headers, text }
    throw unavailable(who, `it answers with status ${answer.status}`)
  } catch (error) {
    if (error instanceof HttpFailure) throw unavailable(who, error.message, error)
    throw error
  }
}

export function unavailable(who: string, reason: string, cause?: unknown): ServiceError {
  return new ServiceError('ServiceUnavailable', { reason: `${who} is not available: ${reason}.` }, { cause })
}

/** Null for what is no document of that kind. */
export function parseAnswer<S extends z.ZodType>(schema: S, { text }: JsonAnswer): z.output<S> | null {
  try {
    return schema.parse(JSON.parse(text))
  } catch {
    return null
  }
}

/** What a message may show of an answer. */
export function shown({ status, text }: JsonAnswer): string {
  return `${status} ${text.replace(/\s+/g, ' ').slice(0, SHOWN_CHARACTERS)}`.trim()
}
