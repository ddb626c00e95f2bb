import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { buffer } from 'node:stream/consumers'
import { afterAll, describe, expect, it, onTestFinished } from 'vitest'
import { createHttp, createKeptHttp, type HttpResponse, systemHttp } from '../../src/runtime/http-client.ts'
import { loadAuthorities } from '../../src/runtime/tls.ts'
import { type Certificates, makeCertificates } from '../tools/certificates.ts'
import { requireCommand } from '../tools/require-command.ts'
import { scratchDirectory } from '../tools/scratch.ts'
import { startTlsFront } from '../tools/tls-front.ts'

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

describe('over https', () => {
  const withOpenssl = requireCommand('openssl', 'openssl')
  const SETTING = 'service.cafile'
  let made: Promise<Certificates[]> | null = null

  /** Of two authorities. */
  const certificates = () => {
    made ??= Promise.all([makeCertificates(), makeCertificates()])
    return made
  }
  afterAll(async () => {
    for (const one of (await made) ?? []) one.remove()
  })

  function scratch(): string {
    const directory = scratchDirectory('authorities-')
    onTestFinished(() => rmSync(directory, { recursive: true }))
    return directory
  }

  async function serveSecurely(): Promise<string> {
    const [own] = await certificates()
    const front = await startTlsFront(await serve((_, response) => response.end('there')), own!.server)
    onTestFinished(() => front.close())
    return front.url
  }

  withOpenssl('whoever an authority of the file vouches for is believed', async () => {
    const [own, other] = await certificates()
    const url = await serveSecurely()
    const both = path.join(scratch(), 'ca.pem')
    const files = [other, own].map((one) => readFileSync(one!.server.authorities, 'utf8'))
    writeFileSync(both, files.join('# and the other\n'))
    for (const file of [own!.server.authorities, both]) {
      const kept = createKeptHttp(loadAuthorities(SETTING, file))
      for (const http of [createHttp(loadAuthorities(SETTING, file)), kept]) {
        const response = await http.request({ method: 'GET', url, headers: {}, timeoutMs: TIMEOUT_MS })
        expect(String(await bodyOf(response))).toBe('there')
      }
      kept.close()
    }
  })

  withOpenssl('nobody else is, and the reason names the setting', async () => {
    const [, other] = await certificates()
    const url = await serveSecurely()
    const asked = { url, headers: {}, timeoutMs: TIMEOUT_MS }
    const wrong = createHttp(loadAuthorities(SETTING, other!.server.authorities))
    const reason = `its certificate is not signed by one of ${SETTING}: `
    await expect(wrong.request({ ...asked, method: 'GET' })).rejects.toThrow(reason)
    const upload = wrong.upload({ ...asked, method: 'PUT', lengthBytes: 4 })
    await expect(upload.write(Buffer.from('body')).then(() => upload.end())).rejects.toThrow(reason)
    const none = createHttp(loadAuthorities(SETTING, null)).request({ ...asked, method: 'GET' })
    await expect(none).rejects.toThrow(`not signed by a well-known authority, and ${SETTING} names no other: `)
  })

  it('a file with nobody to believe is refused, by the name of the setting', () => {
    const file = path.join(scratch(), 'ca.pem')
    const load = (text: string) => {
      writeFileSync(file, text)
      return () => loadAuthorities(SETTING, file)
    }
    expect(() => loadAuthorities(SETTING, `${file}-absent`)).toThrow(/^service\.cafile: .*absent is not there$/)
    expect(load('')).toThrow(/^service\.cafile: .*ca\.pem has no certificate in PEM$/)
    expect(load('-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n')).toThrow(/^service\.cafile: /)
  })
})
