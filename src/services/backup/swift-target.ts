import { createHash } from 'node:crypto'
import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import { createObjectRequests, type ObjectAnswer, type ObjectPorts } from './object-requests.ts'
import { createObjectTarget, type ObjectStore } from './object-target.ts'
import type { SwiftLogin } from './swift-login.ts'
import type { BackupTarget } from './target.ts'

export interface SwiftOptions {
  /** Made when it is not there. */
  container: string
  timeoutMs: number
  /** Names in one answer; 1000 when absent. */
  listedMax?: number
}

const LISTED_MAX = 1000

const Listing = z.array(z.union([z.object({ name: z.string() }), z.object({ subdir: z.string() })]))

/**
 * Backups in a container of Swift. A put carries the MD5 of its bytes, so that Swift refuses what arrives otherwise; what is got is
 * checked by who reads it.
 *
 * Source: OpenStack Object Storage API v1 ("Show container details and list objects", "Create or replace object").
 */
export function createSwiftTarget(
  ports: ObjectPorts & { close(): void },
  login: SwiftLogin,
  { container, timeoutMs, listedMax = LISTED_MAX }: SwiftOptions,
): BackupTarget {
  const requests = createObjectRequests(ports, { who: 'Swift', timeoutMs })

  /** With the token that there is, and with a new one when that is not taken any more. */
  async function send(
    method: 'GET' | 'PUT' | 'DELETE',
    path: string,
    { headers = {}, body }: { headers?: Record<string, string>; body?: Buffer } = {},
  ): Promise<ObjectAnswer> {
    const once = async () => {
      let used = ''
      const answer = await requests.send(async () => {
        const { url, token } = await login.enter()
        used = token
        const message = { method, url: `${url}/${path}`, headers: { ...headers, 'x-auth-token': token } }
        return body === undefined ? message : { ...message, body }
      })
      if (answer.status === 401) login.forget(used)
      return answer
    }
    const answer = await once()
    return answer.status === 401 ? once() : answer
  }

  const place = encodeURIComponent(container)
  const pathOf = (key: string) => `${place}/${key.split('/').map(encodeURIComponent).join('/')}`

  async function putObject(key: string, body: Buffer): Promise<ObjectAnswer> {
    const etag = createHash('md5').update(body).digest('hex')
    return send('PUT', pathOf(key), { headers: { etag, 'content-type': 'application/octet-stream' }, body })
  }

  const store: ObjectStore = {
    service: 'cinder.backup.drivers.collie.swift',
    put: async (key, bytes) => {
      let answer = await putObject(key, bytes)
      if (answer.status === 404) {
        const made = await send('PUT', place)
        if (made.status !== 201 && made.status !== 202) throw refusal(made, `make container ${container}`)
        answer = await putObject(key, bytes)
      }
      if (answer.status !== 201) throw refusal(answer, `put ${key} into container ${container}`)
    },
    get: async (key) => {
      const answer = await send('GET', pathOf(key))
      if (answer.status === 200) return answer.body
      if (answer.status === 404) return null
      throw refusal(answer, `get ${key} from container ${container}`)
    },
    list: async (prefix, after) => {
      const words = { format: 'json', delimiter: '/', limit: String(listedMax), prefix }
      const query = new URLSearchParams(after === null ? words : { ...words, marker: after })
      const answer = await send('GET', `${place}?${query}`)
      if (answer.status === 404 || answer.status === 204) return { keys: [], next: null }
      if (answer.status !== 200) throw refusal(answer, `list container ${container}`)
      const keys = parseListing(answer).map((item) => ('name' in item ? item.name : item.subdir))
      return { keys, next: keys.length < listedMax ? null : keys.at(-1)! }
    },
    remove: async (key) => {
      const answer = await send('DELETE', pathOf(key))
      if (answer.status !== 204 && answer.status !== 404)
        throw refusal(answer, `delete ${key} in container ${container}`)
    },
    close: ports.close,
  }
  return createObjectTarget(store)
}

function parseListing({ body }: ObjectAnswer): z.output<typeof Listing> {
  try {
    return Listing.parse(JSON.parse(body.toString()))
  } catch (error) {
    const reason = 'the backup target answers a list of names that is none: what backup_swift leads to is no Swift'
    throw new ServiceError('BackendFailure', { reason }, { cause: error })
  }
}

const ADVICE: Readonly<Record<number, string>> = {
  401: 'the token of the account in backup_swift is not taken',
  403: 'the account in backup_swift may not do that (Swift asks for a role such as `member` in its project)',
  413: 'the quota of the account or of backup_swift.container is used up',
  422: 'it arrived damaged',
  507: 'Swift is full',
}

function refusal({ status }: ObjectAnswer, what: string): ServiceError {
  const advice = ADVICE[status]
  const reason = `the backup target could not ${what}: ${advice === undefined ? '' : `${advice}; `}Swift answers status ${status}`
  return new ServiceError('BackendFailure', { reason })
}
