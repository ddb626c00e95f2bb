import { readFileSync } from 'node:fs'
import http from 'node:http'
import { text } from 'node:stream/consumers'

const MICROVERSION = 'volume 3.65'
const POLL_MS = 20
/** The longer something takes, the longer the pauses become: asking costs the processor as much as a MiB of a backup. */
const POLL_SHARE = 0.04
const SETTLE_MS = 30_000

/** What the API answered with an error status. */
export class ApiError extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

export type ResourceKind = 'volume' | 'snapshot' | 'backup'

export interface Resource {
  id: string
  name: string
  status: string
  /** Of a snapshot: its volume. */
  volume_id?: string
  /** Of a volume: the snapshot that it was made from. */
  snapshot_id?: string | null
}

export interface Connected {
  id: string
  volumeId: string
  uri: string
  /** `host:port`, and the name of the export. */
  address: string
  name: string
  /** As the connection information says, which is all that Nova looks at. */
  isEncrypted: boolean
}

/**
 * The block storage API for tests that need volumes rather than the clients themselves. Each request has a connection of
 * its own and logs in again when its token is unknown, so that a restart of the server goes unnoticed. Rejects with an
 * ApiError when the server answered, with another error when it did not.
 */
export class CinderApi {
  readonly #account: Readonly<Record<string, string>>
  readonly #endpoint: string
  #token: Promise<string> | null = null

  /**
   * `account` is what an openrc exports, or the path of one. `endpoint`, which ends with `/v3`, is by default that of a server which
   * has its identity beside it.
   */
  constructor(account: string | Readonly<Record<string, string>>, endpoint?: string) {
    this.#account = typeof account === 'string' ? readOpenrc(account) : account
    this.#endpoint = endpoint ?? this.#account.OS_AUTH_URL!.replace('/identity/v3', '/v3')
  }

  /** Resolves with the answer's body; `path` is below `/v3`. */
  async request<T = unknown>(method: string, path: string, body?: unknown): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const headers = { 'x-auth-token': await this.token(), 'openstack-api-version': MICROVERSION }
      const answer = await send(method, this.#endpoint + path, headers, body)
      if (answer.status === 401 && attempt === 1) {
        this.#token = null
        continue
      }
      if (answer.status >= 400) throw new ApiError(answer.status, `${method} ${path}: ${answer.status} ${answer.body}`)
      return (answer.body === '' ? undefined : JSON.parse(answer.body)) as T
    }
  }

  async token(): Promise<string> {
    this.#token ??= this.#login()
    return this.#token.catch((error: unknown) => {
      this.#token = null
      throw error
    })
  }

  /** Answers the id; the volume is `creating`. */
  async createVolume(
    options: { name?: string; size?: number; snapshot_id?: string; source_volid?: string; volume_type?: string } = {},
  ): Promise<string> {
    const { volume } = await this.request<{ volume: Resource }>('POST', '/volumes', { volume: { size: 1, ...options } })
    return volume.id
  }

  /** Answers the id; the snapshot is `creating`. Attached volumes are taken too. */
  async createSnapshot(volumeId: string, name: string): Promise<string> {
    const body = { snapshot: { volume_id: volumeId, name, force: true } }
    const { snapshot } = await this.request<{ snapshot: Resource }>('POST', '/snapshots', body)
    return snapshot.id
  }

  async attach(volumeId: string, mode: 'rw' | 'ro' = 'rw'): Promise<Connected> {
    const connector = { host: 'test', ip: '127.0.0.1', mode }
    const body = { attachment: { volume_uuid: volumeId, connector, mode } }
    type Info = { uri: string; name: string; hosts: string[]; ports: string[]; encrypted: boolean }
    type Told = { attachment: { id: string; connection_info: Info } }
    const { attachment } = await this.request<Told>('POST', '/attachments', body)
    const { uri, name, hosts, ports, encrypted: isEncrypted } = attachment.connection_info
    await this.request('POST', `/attachments/${attachment.id}/action`, { 'os-complete': {} })
    return { id: attachment.id, volumeId, uri, name, address: `${hosts[0]}:${ports[0]}`, isEncrypted }
  }

  async detach(attachmentId: string): Promise<void> {
    await this.request('DELETE', `/attachments/${attachmentId}`)
  }

  async list(kind: ResourceKind): Promise<Resource[]> {
    return (await this.request<Record<string, Resource[]>>('GET', `/${kind}s/detail`))[`${kind}s`]!
  }

  async attachments(): Promise<{ id: string; status: string; volume_id: string }[]> {
    type Listed = { attachments: { id: string; status: string; volume_id: string }[] }
    return (await this.request<Listed>('GET', '/attachments/detail')).attachments
  }

  async delete(kind: ResourceKind, id: string): Promise<void> {
    await this.request('DELETE', `/${kind}s/${id}`)
  }

  /** Waits until the resource is in `status`. Rejects when it comes to rest in another. */
  async until(kind: ResourceKind, id: string, status: string): Promise<void> {
    const answer = await this.#poll(
      () => this.request<Record<string, Resource>>('GET', `/${kind}s/${id}`),
      (answer) => !isTransient(answer[kind]!.status),
    )
    const found = answer[kind]!.status
    if (found !== status) throw new Error(`${kind} ${id} is ${found} instead of ${status}`)
  }

  /** Waits until the resource is no more. */
  async untilGone(kind: ResourceKind, id: string): Promise<void> {
    await this.#poll(
      () => this.list(kind),
      (resources) => {
        const left = resources.find((resource) => resource.id === id)
        if (left !== undefined && !isTransient(left.status))
          throw new Error(`${kind} ${id} is ${left.status}, not gone`)
        return left === undefined
      },
    )
  }

  /** Everything there is, once nothing of it is on its way to another status. */
  async settled(): Promise<{ volumes: Resource[]; snapshots: Resource[] }> {
    return this.#poll(
      async () => ({ volumes: await this.list('volume'), snapshots: await this.list('snapshot') }),
      ({ volumes, snapshots }) => ![...volumes, ...snapshots].some(({ status }) => isTransient(status)),
    )
  }

  /** The API has no way to tell of a change, so this asks again and again. */
  async #poll<T>(ask: () => Promise<T>, isEnough: (answer: T) => boolean): Promise<T> {
    const start = Date.now()
    for (;;) {
      const answer = await ask()
      if (isEnough(answer)) return answer
      const waitedMs = Date.now() - start
      if (waitedMs > SETTLE_MS) throw new Error(`after ${SETTLE_MS} ms still ${JSON.stringify(answer)}`)
      await new Promise((resolve) => setTimeout(resolve, Math.max(POLL_MS, waitedMs * POLL_SHARE)))
    }
  }

  async #login(): Promise<string> {
    const { OS_AUTH_URL, OS_USERNAME, OS_PASSWORD, OS_PROJECT_NAME, OS_USER_DOMAIN_ID, OS_PROJECT_DOMAIN_ID } =
      this.#account
    const user = { name: OS_USERNAME, password: OS_PASSWORD, domain: { id: OS_USER_DOMAIN_ID } }
    const auth = {
      identity: { methods: ['password'], password: { user } },
      scope: { project: { name: OS_PROJECT_NAME, domain: { id: OS_PROJECT_DOMAIN_ID } } },
    }
    const { status, headers, body } = await send('POST', `${OS_AUTH_URL}/auth/tokens`, {}, { auth })
    if (status !== 201) throw new ApiError(status, `login: ${status} ${body}`)
    return String(headers['x-subject-token'])
  }
}

const isTransient = (status: string) =>
  /^(creating|deleting|downloading|uploading|attaching|detaching|extending|backing-up|restoring|restoring-backup)$/.test(
    status,
  )

/** The variables that the file exports. */
export function readOpenrc(path: string): Record<string, string> {
  const lines = readFileSync(path, 'utf8').matchAll(/^export (\w+)=(.*)$/gm)
  return Object.fromEntries([...lines].map(([, name, value]) => [name!, value!]))
}

async function send(
  method: string,
  url: string,
  headers: Record<string, string>,
  body: unknown,
): Promise<{ status: number; headers: http.IncomingHttpHeaders; body: string }> {
  const sent = body === undefined ? '' : JSON.stringify(body)
  const message = await new Promise<http.IncomingMessage>((resolve, reject) => {
    const json = body === undefined ? {} : { 'content-type': 'application/json' }
    const request = http.request(url, { method, agent: false, headers: { ...headers, ...json } }, resolve)
    request.once('error', reject)
    request.end(sent)
  })
  return { status: message.statusCode!, headers: message.headers, body: await text(message) }
}
