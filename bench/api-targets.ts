import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { readOpenrc } from '../test/tools/cinder-api.ts'
import type { Collie } from '../test/tools/collie.ts'
import { HttpClient } from './http-client.ts'

const POLL_MS = 1

/** The block storage API as a client with a token sees it; each call is one request unless it says otherwise. */
export class VolumeApi {
  readonly #client: HttpClient

  private constructor(client: HttpClient) {
    this.#client = client
  }

  /** Logs in with the credentials that the running node left in its data directory. */
  static async login(collie: Collie): Promise<VolumeApi> {
    const openrc = readOpenrc(path.join(collie.dataDir, 'openrc'))
    const user = { name: openrc.OS_USERNAME, password: openrc.OS_PASSWORD, domain: { id: openrc.OS_USER_DOMAIN_ID } }
    const project = { name: openrc.OS_PROJECT_NAME, domain: { id: openrc.OS_PROJECT_DOMAIN_ID } }
    const answer = await fetch(`${openrc.OS_AUTH_URL}/auth/tokens`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        auth: { identity: { methods: ['password'], password: { user } }, scope: { project } },
      }),
    })
    const token = answer.headers.get('x-subject-token')
    if (token === null) throw new Error(`login: ${answer.status} ${await answer.text()}`)
    return VolumeApi.withToken(collie, token)
  }

  /** For a token from elsewhere. */
  static withToken(collie: Collie, token: string): VolumeApi {
    const headers = { 'x-auth-token': token, 'openstack-api-version': 'volume 3.65' }
    return new VolumeApi(new HttpClient(collie.info.addresses.api!, headers))
  }

  /** Creates a volume and waits until it is available: two requests or more. Answers the id. */
  async createAvailable(): Promise<string> {
    const body = { volume: { size: 1, name: 'bench' } }
    const { volume } = await this.#client.json<{ volume: { id: string } }>('POST', '/volumes', body)
    for (;;) {
      const { status } = JSON.parse(await this.show(volume.id)).volume
      if (status === 'available') return volume.id
      if (status !== 'creating') throw new Error(`the volume ${volume.id} is ${status}`)
      await sleep(POLL_MS)
    }
  }

  async delete(id: string): Promise<void> {
    await this.#client.send('DELETE', `/volumes/${id}`)
  }

  show(id: string): Promise<string> {
    return this.#client.send('GET', `/volumes/${id}`)
  }

  list(): Promise<string> {
    return this.#client.send('GET', '/volumes/detail?limit=1000')
  }

  /** Attaches and detaches, as Nova and os-brick do, without the data: `ATTACHMENT_REQUESTS` requests. */
  async attachAndDetach(volumeId: string): Promise<void> {
    const connector = { host: 'bench', ip: '127.0.0.1' }
    const reserved = await this.#client.json<{ attachment: { id: string } }>('POST', '/attachments', {
      attachment: { volume_uuid: volumeId, connector: null },
    })
    const url = `/attachments/${reserved.attachment.id}`
    await this.#client.send('PUT', url, { attachment: { connector } })
    await this.#client.send('POST', `${url}/action`, { 'os-complete': {} })
    await this.#client.send('DELETE', url)
  }

  /** Attaches for good, and answers where the volume is reached. */
  async attach(volumeId: string): Promise<string> {
    const connector = { host: 'bench', ip: '127.0.0.1' }
    const { attachment } = await this.#client.json<{ attachment: { connection_info: { uri: string } } }>(
      'POST',
      '/attachments',
      { attachment: { volume_uuid: volumeId, connector } },
    )
    return attachment.connection_info.uri
  }

  close(): void {
    this.#client.close()
  }
}

export const ATTACHMENT_REQUESTS = 4

/** The bare server of api-reference.mjs. */
export interface Reference {
  pid: number
  /** From the start of its process to its first answer. */
  startMs: number
  client: HttpClient
  stop(): Promise<void>
}

/** `show` and `list` are the answers that it is to give. */
export async function startReference(directory: string, show: string, list: string): Promise<Reference> {
  writeFileSync(path.join(directory, 'show.json'), show)
  writeFileSync(path.join(directory, 'list.json'), list)
  const startedMs = performance.now()
  const script = path.join(import.meta.dirname, 'api-reference.mjs')
  const child = spawn(process.execPath, [script, directory], { stdio: ['ignore', 'pipe', 'inherit'] })
  process.once('exit', () => child.kill('SIGKILL'))
  const [address] = (await Promise.race([
    once(child.stdout, 'data'),
    once(child, 'exit').then(([code]) => Promise.reject(new Error(`the reference ended with ${code}`))),
  ])) as [Buffer]
  const client = new HttpClient(String(address).trim())
  await client.send('GET', '/show')
  return {
    pid: child.pid!,
    startMs: performance.now() - startedMs,
    client,
    stop: async () => {
      client.close()
      const ended = once(child, 'exit')
      child.kill('SIGTERM')
      await ended
    },
  }
}

/** Resident memory of a process in MiB (Linux). */
export function residentMib(pid: number): number {
  const match = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
  return Number(match![1]) / 1024
}
