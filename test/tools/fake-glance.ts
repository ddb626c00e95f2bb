import { createHash, randomUUID } from 'node:crypto'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { onTestFinished } from 'vitest'

/**
 * As much of Glance as the service talks to, for what a real one cannot be made to do: to break off, to hold back, to give what does
 * not match its checksum, to be away. What Glance does when all is well is tested with Glance.
 */
export interface FakeGlance {
  url: string
  images: Map<string, FakeImage>
  /** What happens to the next requests of a kind; the rest are answered as they should be. */
  misbehave(kind: 'show' | 'download' | 'upload', how: Misbehaviour, times?: number): void
  /** An image that is active. */
  add(content: Buffer, fields?: Record<string, unknown>): string
  /** How often content was asked for, or sent. */
  counts: { download: number; upload: number }
  /** What it was asked with. */
  tokens: Set<string>
  /** Resolves once a held answer has begun. */
  held(): Promise<void>
  /** From then on nobody answers. */
  close(): void
}

export interface FakeImage {
  document: Record<string, unknown> & { id: string; status: string }
  content: Buffer
}

export type Misbehaviour =
  | { status: number }
  /** Ends the connection after that part of the body. */
  | { cutAt: number }
  /** Sends that part of the body, and then nothing until it is let go on. */
  | { holdAt: number; until: Promise<void> }
  | 'wrong bytes'

export async function startFakeGlance(): Promise<FakeGlance> {
  const images = new Map<string, FakeImage>()
  const planned: Record<string, Misbehaviour[]> = { show: [], download: [], upload: [] }
  const counts = { download: 0, upload: 0 }
  const tokens = new Set<string>()
  let tellHeld = () => {}
  const held = new Promise<void>((resolve) => {
    tellHeld = resolve
  })

  const server = http.createServer((request, response) => {
    void answer(request, response).catch((error: Error) => response.destroy(error))
  })

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    tokens.add(String(request.headers['x-auth-token']))
    const [, , , id, file] = request.url!.split('?')[0]!.split('/')
    const image = id === undefined ? undefined : images.get(id)
    if (request.method === 'POST') {
      const document = { ...base(), ...JSON.parse(String(await buffer(request))) }
      images.set(document.id, { document, content: Buffer.alloc(0) })
      return json(response, 201, document)
    }
    if (id === undefined) return json(response, 200, { images: named(new URL(request.url!, 'http://fake')) })
    const kind = file === undefined ? 'show' : request.method === 'PUT' ? 'upload' : 'download'
    if (kind !== 'show') counts[kind]++
    const how = request.method === 'DELETE' ? undefined : planned[kind]!.shift()
    if (how !== undefined && typeof how === 'object' && 'status' in how) return json(response, how.status, {})
    if (image === undefined) return json(response, 404, {})
    if (request.method === 'DELETE') {
      images.delete(id)
      response.writeHead(204).end()
      return
    }
    if (kind === 'show') return json(response, 200, image.document)
    if (kind === 'download') return send(response, image, how)
    if (image.document.status !== 'queued') return json(response, 409, {})
    image.document.status = 'saving'
    try {
      image.content = await received(request, how)
    } catch {
      image.document.status = 'queued'
      return
    }
    Object.assign(image.document, { status: 'active', ...facts(image.content) })
    if (how === 'wrong bytes') image.document.os_hash_value = '00'
    response.writeHead(204).end()
  }

  function named(url: URL): object[] {
    const name = url.searchParams.get('name')?.replace(/^eq:/, '')
    return [...images.values()].map(({ document }) => document).filter((document) => document.name === name)
  }

  async function send(response: ServerResponse, { content }: FakeImage, how: Misbehaviour | undefined): Promise<void> {
    response.writeHead(200, { 'content-length': String(content.length) })
    if (how === undefined) return void response.end(content)
    if (how === 'wrong bytes') return void response.end(Buffer.from(content).fill(1, 0, 1))
    if ('cutAt' in how) {
      response.write(content.subarray(0, how.cutAt), () => response.destroy())
    } else if ('holdAt' in how) {
      response.write(content.subarray(0, how.holdAt), tellHeld)
      await how.until
      response.end(content.subarray(how.holdAt))
    }
  }

  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const close = () => {
    server.closeAllConnections()
    server.close()
  }
  onTestFinished(close)
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    images,
    counts,
    tokens,
    held: () => held,
    close,
    misbehave: (kind, how, times = 1) => {
      for (let left = times; left > 0; left--) planned[kind]!.push(how)
    },
    add: (content, fields = {}) => {
      const document = { ...base(), status: 'active', ...facts(content), ...fields }
      images.set(document.id, { document, content })
      return document.id
    },
  }
}

async function received(request: IncomingMessage, how: Misbehaviour | undefined): Promise<Buffer> {
  if (how === undefined || how === 'wrong bytes' || 'status' in how) return buffer(request)
  if ('cutAt' in how) {
    request.destroy()
    throw new Error('cut')
  }
  await how.until
  return buffer(request)
}

function base() {
  return {
    id: randomUUID(),
    status: 'queued',
    name: 'image',
    disk_format: 'raw',
    container_format: 'bare',
    min_disk: 0,
    min_ram: 0,
    protected: false,
    visibility: 'private',
  }
}

function facts(content: Buffer) {
  const digest = (algorithm: string) => createHash(algorithm).update(content).digest('hex')
  return {
    size: content.length,
    checksum: digest('md5'),
    os_hash_algo: 'sha512',
    os_hash_value: digest('sha512'),
  }
}

function json(response: ServerResponse, status: number, document: object): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(document))
}
