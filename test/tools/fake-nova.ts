import { randomUUID } from 'node:crypto'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { json as jsonOf } from 'node:stream/consumers'
import { onTestFinished } from 'vitest'
import { beginSwap, ComputeHostLost, finishSwap, type ServerVolume, type SwapWorld } from './nova-swap.ts'

/**
 * As much of Keystone and of Nova as the service talks to: `POST /identity/v3/auth/tokens`, whose catalog names Nova,
 * `POST /compute/v2.1/os-server-external-events`, and `PUT` and `GET /compute/v2.1/servers/…/os-volume_attachments/…`, with Nova's
 * checks of token, microversion and body.
 */
export interface FakeNova {
  authUrl: string
  computeUrl: string
  /** Events that it took, in order. */
  events: NovaEvent[]
  /** Calls of Nova with their headers, whatever the answer. */
  calls: { path: string; headers: IncomingMessage['headers'] }[]
  /** How often it was asked for a token, refused ones included. */
  tokensAsked(): number
  /** The next call of Nova is answered so. */
  answerNext(answer: { status: number; document?: unknown }): void
  /** Ends every token that it gave out. */
  revokeAll(): void
  /** Of tokens from now on. */
  tokenLifetimeMs: number
  /** Servers that are on no host: Nova takes no event for them. */
  homeless: Set<string>
  /** The volumes that its servers have, by server and id. */
  servers: Map<string, Map<string, ServerVolume>>
  /** Whose volumes they are, and how they are copied; to be set before a swap. */
  world: SwapWorld | null
  /** Resolves when no swap goes on. */
  swapped(): Promise<void>
  /** What storage refused, and what else failed, of swaps. */
  swapErrors: unknown[]
  close(): Promise<void>
}

export interface NovaEvent {
  name: string
  server_uuid: string
  tag: string
}

export const NOVA_ACCOUNT = {
  userName: 'cinder',
  password: 'of the service',
  projectName: 'service',
  userDomainName: 'Default',
  projectDomainName: 'Default',
}

/** Since when Nova knows them. */
const EVENTS_SINCE: Record<string, number> = { 'volume-extended': 51, 'volume-reimaged': 93 }

export async function startFakeNova(now: () => number = Date.now): Promise<FakeNova> {
  const tokens = new Set<string>()
  const planned: { status: number; document?: unknown }[] = []
  const swaps: Promise<void>[] = []
  let asked = 0

  const server = http.createServer((request, response) => {
    void answer(request, response).catch((error: Error) => response.destroy(error))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const document = request.method === 'GET' ? null : await jsonOf(request)
    if (request.url === '/identity/v3/auth/tokens') return authenticate(document, response)
    fake.calls.push({ path: request.url!, headers: request.headers })
    const next = planned.shift()
    if (next !== undefined) return send(response, next.status, next.document ?? {})
    if (!tokens.has(String(request.headers['x-auth-token']))) return send(response, 401, {})
    const swap = /\/compute\/v2\.1\/servers\/([^/]+)\/os-volume_attachments\/([^/]+)$/.exec(request.url!)
    if (swap !== null && request.method === 'PUT') return swapVolumes(swap[1]!, swap[2]!, document, response)
    if (swap !== null && request.method === 'GET') return showAttachment(swap[1]!, swap[2]!, minorOf(request), response)
    if (!request.url!.endsWith('/compute/v2.1/os-server-external-events')) return send(response, 404, {})
    const minor = minorOf(request)
    const { events } = document as { events: NovaEvent[] }
    if (events.some(({ name }) => (EVENTS_SINCE[name] ?? Number.POSITIVE_INFINITY) > minor)) {
      return send(response, 400, { badRequest: { code: 400, message: 'Invalid input for field/attribute name.' } })
    }
    const outcomes = events.map((event) => {
      const taken = !fake.homeless.has(event.server_uuid)
      if (taken) fake.events.push(event)
      return { ...event, ...(taken ? { status: 'completed', code: 200 } : { status: 'failed', code: 422 }) }
    })
    send(response, outcomes.every(({ code }) => code === 200) ? 200 : 207, { events: outcomes })
  }

  function showAttachment(serverId: string, volumeId: string, minor: number, response: ServerResponse): void {
    const held = fake.servers.get(serverId)?.get(volumeId)
    if (held === undefined) {
      const message = `Instance ${serverId} could not be found.`
      return send(response, 404, { itemNotFound: { code: 404, message } })
    }
    const own = minor < 89 ? { id: volumeId } : { attachment_id: held.attachmentId, bdm_uuid: randomUUID() }
    send(response, 200, { volumeAttachment: { ...own, device: '/dev/vdb', serverId, volumeId, tag: null } })
  }

  async function swapVolumes(server: string, oldId: string, document: unknown, response: ServerResponse) {
    const held = fake.servers.get(server)
    const body = document as { volumeAttachment?: { volumeId?: string } }
    const newId = body.volumeAttachment?.volumeId
    const refuse = (status: number, kind: string, message: string) =>
      send(response, status, { [kind]: { code: status, message } })
    if (Object.keys(body).length !== 1 || newId === undefined) {
      return refuse(
        400,
        'badRequest',
        "Invalid input for field/attribute volumeAttachment. Value: {}. 'volumeId' is a required property",
      )
    }
    if (held === undefined) return refuse(404, 'itemNotFound', `Instance ${server} could not be found.`)
    if (!held.has(oldId)) return refuse(404, 'itemNotFound', `Volume ${oldId} could not be found.`)
    const { world } = fake
    if (world === null) return refuse(409, 'conflictingRequest', `Cannot 'swap_volume' instance ${server}`)
    const swap = { server, oldId, newId, held }
    try {
      const attachmentId = await beginSwap(world, swap)
      const finished = finishSwap(world, swap, attachmentId, fake.swapErrors).catch((error: unknown) => {
        if (!(error instanceof ComputeHostLost)) throw error
      })
      swaps.push(finished)
    } catch (error) {
      return refuse(400, 'badRequest', (error as Error).message)
    }
    response.writeHead(202).end()
  }

  function authenticate(document: unknown, response: ServerResponse): void {
    asked++
    const { identity, scope } = (document as { auth: Record<string, Record<string, never>> }).auth
    const expected = {
      methods: ['password'],
      password: {
        user: {
          name: NOVA_ACCOUNT.userName,
          password: NOVA_ACCOUNT.password,
          domain: { name: NOVA_ACCOUNT.userDomainName },
        },
      },
    }
    const project = { name: NOVA_ACCOUNT.projectName, domain: { name: NOVA_ACCOUNT.projectDomainName } }
    if (JSON.stringify([identity, scope]) !== JSON.stringify([expected, { project }])) {
      const message = 'The request you have made requires authentication.'
      return send(response, 401, { error: { code: 401, message, title: 'Unauthorized' } })
    }
    const token = randomUUID()
    tokens.add(token)
    response.setHeader('x-subject-token', token)
    const endpoint = (region: string, kind: string, url: string) => ({
      interface: kind,
      region,
      region_id: region,
      url,
    })
    send(response, 201, {
      token: {
        expires_at: new Date(now() + fake.tokenLifetimeMs).toISOString().replace('Z', '000Z'),
        catalog: [
          { type: 'volumev3', endpoints: [endpoint('one', 'public', `${base}/volume`)] },
          {
            type: 'compute',
            endpoints: [
              endpoint('one', 'internal', `${base}/internal/compute/v2.1`),
              endpoint('one', 'public', `${base}/compute/v2.1`),
              endpoint('two', 'public', `${base}/two/compute/v2.1`),
            ],
          },
        ],
      },
    })
  }

  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    })
  onTestFinished(close)

  const fake: FakeNova = {
    authUrl: `${base}/identity`,
    computeUrl: `${base}/compute/v2.1`,
    events: [],
    calls: [],
    tokensAsked: () => asked,
    answerNext: (how) => planned.push(how),
    revokeAll: () => tokens.clear(),
    tokenLifetimeMs: 3_600_000,
    homeless: new Set(),
    servers: new Map(),
    world: null,
    swapped: async () => {
      await Promise.all(swaps)
    },
    swapErrors: [],
    close,
  }
  return fake
}

function minorOf({ headers }: IncomingMessage): number {
  return Number(/^compute 2\.(\d+)$/.exec(String(headers['openstack-api-version']))?.[1] ?? 1)
}

function send(response: ServerResponse, status: number, document: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(document))
}
