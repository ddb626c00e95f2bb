import { mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { listenForPages } from '../../src/runtime/http-pages.ts'
import type { Listener } from '../../src/runtime/network.ts'

let listener: Listener
let directory: string
let defects: string[]
const socketPath = () => path.join(directory, 'pages.sock')

const PAGES = {
  '/hello': async () => ({ contentType: 'text/plain', text: 'wörld' }),
  '/ill': async () => ({ status: 503, contentType: 'text/plain', text: 'not well' }),
  '/broken': async () => {
    throw new Error('out of ink')
  },
}

beforeEach(async () => {
  directory = mkdtempSync(path.join(tmpdir(), 'collie-pages-'))
  defects = []
  listener = await listenForPages(socketPath(), PAGES, (error, page) => defects.push(`${page}: ${error}`))
})
afterEach(async () => {
  await listener.close()
  rmSync(directory, { recursive: true })
})

async function ask(page: string, method = 'GET'): Promise<[number | undefined, string]> {
  const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
    http.request({ socketPath: socketPath(), path: page, method }, resolve).once('error', reject).end()
  })
  return [response.statusCode, await text(response)]
}

it('shows its pages, each with its status', async () => {
  expect(await ask('/hello')).toEqual([200, 'wörld'])
  expect(await ask('/hello?and=more')).toEqual([200, 'wörld'])
  expect(await ask('/hello', 'HEAD')).toEqual([200, ''])
  expect(await ask('/ill')).toEqual([503, 'not well'])
})

it('has no others, and changes nothing', async () => {
  for (const page of ['/', '/hell', '/hello/', '/constructor', '/%2e%2e/hello']) expect((await ask(page))[0]).toBe(404)
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) expect((await ask('/hello', method))[0]).toBe(405)
})

it('tells of a page that could not be made, and goes on', async () => {
  expect((await ask('/broken'))[0]).toBe(500)
  expect(defects).toEqual(['/broken: Error: out of ink'])
  expect((await ask('/hello'))[0]).toBe(200)
})

it('takes the place of a socket that was left behind, and ends although a reader stays', async () => {
  const agent = new http.Agent({ keepAlive: true })
  const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
    http.get({ socketPath: socketPath(), path: '/hello', agent }, resolve).once('error', reject)
  })
  expect(await text(response)).toBe('wörld')
  await listener.close()
  agent.destroy()
  listener = await listenForPages(socketPath(), PAGES, () => {})
  expect((await ask('/hello'))[0]).toBe(200)
})
