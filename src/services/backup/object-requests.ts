import { ServiceError } from '../../errors.ts'
import type { Clock } from '../../runtime/clock.ts'
import {
  type HttpClient,
  HttpFailure,
  type HttpRequest,
  type HttpResponse,
  readBody,
} from '../../runtime/http-client.ts'
import type { Random } from '../../runtime/random.ts'

/** Requests to an object store, each small enough to be held in memory and such that it may be repeated. */
export interface ObjectRequests {
  /**
   * Sends what `prepare` makes, anew for each attempt, and answers what the store says unless that is that it cannot answer now.
   * Rejects with ServiceUnavailable when it still cannot after some attempts.
   */
  send(prepare: () => Promise<Omit<HttpRequest, 'timeoutMs'>>): Promise<ObjectAnswer>
}

export interface ObjectAnswer {
  status: number
  headers: HttpResponse['headers']
  body: Buffer
}

/** What an object store is reached by. */
export interface ObjectPorts {
  http: HttpClient
  clock: Pick<Clock, 'now' | 'sleep'>
  random: Random
}

/** Attempts at one request; the work that it is part of is repeated after that, with longer waits. */
const ATTEMPTS = 4
/** Wait before the second attempt; each further wait is twice as long. All are cut at random, so that many do not come back at once. */
const WAIT_MS = 250
/** Of an answer: an object has little more than 4 MiB, and a page of names less. */
const ANSWER_BYTES_MAX = 16 * 1024 * 1024
const TOO_MANY_REQUESTS = 429
const REQUEST_TIMEOUT = 408

export function createObjectRequests(
  { http, clock, random }: ObjectPorts,
  { who, timeoutMs }: { who: string; timeoutMs: number },
): ObjectRequests {
  async function attempt(request: Omit<HttpRequest, 'timeoutMs'>): Promise<ObjectAnswer> {
    const response = await http.request({ ...request, timeoutMs })
    const answer = {
      status: response.status,
      headers: response.headers,
      body: await readBody(response, ANSWER_BYTES_MAX),
    }
    if (answer.status < 500 && answer.status !== TOO_MANY_REQUESTS && answer.status !== REQUEST_TIMEOUT) return answer
    throw new HttpFailure(`it answers with status ${answer.status}`)
  }

  return {
    send: async (prepare) => {
      for (let attempts = 1; ; attempts++) {
        const request = await prepare()
        try {
          return await attempt(request)
        } catch (error) {
          if (!(error instanceof HttpFailure)) throw error
          if (attempts === ATTEMPTS) {
            const reason = `the backup target, ${who}, is not available: ${error.message}`
            throw new ServiceError('ServiceUnavailable', { reason }, { cause: error })
          }
          await clock.sleep(WAIT_MS * 2 ** (attempts - 1) * (0.5 + random.bytes(1)[0]! / 512))
        }
      }
    },
  }
}
