import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import { parseAnswer, postJson, shown, unavailable } from '../../keystone/json-exchange.ts'
import { type HttpClient, HttpFailure, readBody } from '../../runtime/http-client.ts'
import type { Log } from '../../runtime/log.ts'
import { type KeyManager, type KeyOwner, keyManagerError } from './key-manager.ts'

/**
 * OpenStack's key manager, version 1 of its API. It is asked with the token of whoever asks for the volume, so that a key belongs to him and
 * his project, and Barbican's own rules say who reads it.
 *
 * Keys are made here and stored there in one request: an order, as upstream makes them, takes several and has to be waited for.
 */

const Stored = z.object({ secret_ref: z.string() })
const Secret = z.object({ algorithm: z.string().nullish(), status: z.string().nullish() })

const JSON_TYPE = 'application/json'
const PAYLOAD_TYPE = 'application/octet-stream'
/** Of an answer: a key has at most 64 bytes, and what is said of it some hundred. */
const ANSWER_BYTES_MAX = 64 * 1024
const WHO = 'The key manager'
const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/

export function createBarbican(options: {
  http: HttpClient
  /** Where it is, without `/v1`; asked for each time, since a catalog may change. */
  url(): Promise<string>
  timeoutMs: number
  log: Log
}): KeyManager {
  const { http, timeoutMs, log } = options

  const secretsUrl = async (): Promise<string> =>
    `${(await options.url()).replace(/\/+$/, '').replace(/\/v1$/, '')}/v1/secrets`

  async function ask(method: 'GET' | 'DELETE', token: string, path: string, accept: string) {
    const url = `${await secretsUrl()}/${path}`
    try {
      const answer = await http.request({ method, url, headers: { 'x-auth-token': token, accept }, timeoutMs })
      return { status: answer.status, body: await readBody(answer, ANSWER_BYTES_MAX) }
    } catch (error) {
      if (error instanceof HttpFailure) throw unavailable(WHO, error.message, error)
      throw error
    }
  }

  async function read(token: string, path: string, accept: string): Promise<Buffer> {
    const { status, body } = await ask('GET', token, path, accept)
    if (status >= 500) throw unavailable(WHO, `it answers with status ${status}`)
    if (status === 200) return body
    log.warn({ status, answer: plain(body) }, 'the key manager does not give a key')
    throw keyManagerError()
  }

  async function remove(token: string, id: string): Promise<void> {
    const { status, body } = await ask('DELETE', token, id, JSON_TYPE)
    if (status === 204 || status === 404) return
    throw new ServiceError('ServiceUnavailable', {
      reason: `${WHO} does not delete key ${id}: ${status} ${plain(body)}`,
    })
  }

  return {
    isElsewhere: true,
    store: async ({ token }, { algorithm, secret }) => {
      const answer = await postJson(http, WHO, {
        url: await secretsUrl(),
        headers: { 'x-auth-token': token },
        timeoutMs,
        document: {
          secret_type: 'symmetric',
          algorithm,
          bit_length: secret.length * 8,
          payload: secret.toString('base64'),
          payload_content_type: PAYLOAD_TYPE,
          payload_content_encoding: 'base64',
        },
      })
      const id = parseAnswer(Stored, answer)?.secret_ref.split('/').at(-1)
      if (answer.status !== 201 || id === undefined || !UUID.test(id)) {
        log.warn({ answer: shown(answer) }, 'the key manager does not keep a key')
        throw keyManagerError()
      }
      return { id, keep: async () => {}, discard: () => remove(token, id) }
    },
    read: async ({ token }: KeyOwner, id) => {
      if (!UUID.test(id)) throw keyManagerError()
      const document = await read(token, id, JSON_TYPE)
      const secret = parseAnswer(Secret, { status: 200, headers: {}, text: document.toString() })
      if (secret === null) throw keyManagerError()
      return { algorithm: secret.algorithm ?? 'aes', secret: await read(token, `${id}/payload`, PAYLOAD_TYPE) }
    },
    remove,
  }
}

const plain = (body: Buffer): string => body.toString().replace(/\s+/g, ' ').slice(0, 200)
