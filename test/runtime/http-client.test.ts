import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { expect, it, onTestFinished } from 'vitest'
import { type HttpResponse, systemHttp } from '../../src/runtime/http-client.ts'

const TIMEOUT_MS = 20_000

async function serve(answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
  const server = http.createServer(answer)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
}

const get = (url: string, timeoutMs = TIMEOUT_MS) =>
  systemHttp.request({ method: 'GET', url, headers: { a: 'b' }, timeoutMs })

async function bodyOf(response: HttpResponse): Promise<Buffer> {
  const chunks: Buffer[] = []
  for (let chunk = await response.read(); chunk !== null; chunk = await response.read()) chunks.push(chunk)
  return Buffer.concat(chunks)
}

it('answers have a head, and a body that is read as it is wanted', async () => {
  const content = Buffer.alloc(3_000_000, 'body')
  const url = await serve((request, response) =>
    response.writeHead(203, { b: request.headers.a as string }).end(content),
  )
  const response = await get(url)
  expect([response.status, response.headers.b]).toEqual([203, 'b'])
  expect((await bodyOf(response)).equals(content)).toBe(true)
})

it('a connection that ends before the body does is a failure, and so is one that is never answered', async () => {
  const cut = await serve((_, response) => {
    response.writeHead(200, { 'content-length': '1000' })
    response.write('some', () => response.destroy())
  })
  await expect(bodyOf(await get(cut))).rejects.toThrow('aborted')
  const silent = await serve(() => {})
  await expect(get(silent, 50)).rejects.toThrow('no answer within 0.05 s')
  const stalls = await serve((_, response) => {
    response.writeHead(200, { 'content-length': '1000' }).write('some')
  })
  await expect(bodyOf(await get(stalls, 50))).rejects.toThrow('no answer within 0.05 s')
  await expect(get('http://127.0.0.1:1/')).rejects.toThrow('ECONNREFUSED')
})

it('a body is sent with its length, and no more of it than is wanted', async () => {
  const lengths: (string | undefined)[] = []
  const takes = await serve((request, response) => {
    lengths.push(request.headers['content-length'])
    void buffer(request).then((body) => response.writeHead(201).end(body.subarray(0, 4)))
  })
  const headers = {}
  const upload = systemHttp.upload({ method: 'PUT', url: takes, headers, lengthBytes: 8, timeoutMs: TIMEOUT_MS })
  expect([await upload.write(Buffer.from('half')), await upload.write(Buffer.from('rest'))]).toEqual([true, true])
  const answer = await upload.end()
  expect([answer.status, String(await bodyOf(answer)), ...lengths]).toEqual([201, 'half', '8'])

  const refuses = await serve((_, response) => response.writeHead(409).end())
  const refused = systemHttp.upload({
    method: 'PUT',
    url: refuses,
    headers,
    lengthBytes: 2 ** 40,
    timeoutMs: TIMEOUT_MS,
  })
  const piece = Buffer.alloc(1_000_000)
  let isWanted = true
  while (isWanted) isWanted = await refused.write(piece)
  expect((await refused.end()).status).toBe(409)
  refused.destroy()
})
