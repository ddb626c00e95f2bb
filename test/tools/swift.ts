import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll } from 'vitest'
import { systemClock } from '../../src/runtime/clock.ts'
import { createKeptHttp, type HttpClient } from '../../src/runtime/http-client.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { createS3Target, type S3Options } from '../../src/services/backup/s3-target.ts'
import { legacyLogin } from '../../src/services/backup/swift-login.ts'
import { createSwiftTarget, type SwiftOptions } from '../../src/services/backup/swift-target.ts'
import type { BackupTarget } from '../../src/services/backup/target.ts'
import { freePort } from './collie.ts'
import { ForeignServer } from './foreign-server.ts'
import { type requireCommand, requireCommands } from './require-command.ts'

/**
 * Debian's Swift for the tests of one file, started when first asked for and ended with the file: all of its servers in one process on
 * loopback, with one disk, which speaks S3 as well. Nobody else has it, so containers may be called anything.
 */

export const withSwift: ReturnType<typeof requireCommand> = requireCommands({
  'swift-proxy-server': 'swift-proxy',
  'swift-account-server': 'swift-account',
  'swift-container-server': 'swift-container',
  'swift-object-server': 'swift-object',
})

const SERVER = path.join(import.meta.dirname, 'serve-swift.py')
/** Debian's, which has its packages. */
const PYTHON = '/usr/bin/python3'

/** The account that there is when Swift gives its tokens itself. */
export const SWIFT_USER = 'test:tester'
export const SWIFT_PASSWORD = 'testing'
export const S3_REGION = 'eu-test-1'
/** The name of the host for S3 that takes a bucket's in front. No DNS knows either. */
export const S3_HOST = 's3.test'

export class Swift {
  readonly url: string
  readonly #server: ForeignServer
  readonly #directory: string

  private constructor(url: string, server: ForeignServer, directory: string) {
    this.url = url
    this.#server = server
    this.#directory = directory
  }

  /** `environment` tells of a Keystone, if it is to be asked. */
  static async start(environment: Readonly<Record<string, string>> = {}): Promise<Swift> {
    const directory = mkdtempSync(path.join(tmpdir(), 'collie-swift-'))
    const port = await freePort()
    const url = `http://127.0.0.1:${port}`
    const words = [PYTHON, '-W', 'ignore', SERVER, directory, String(port)] as const
    const server = await ForeignServer.start({ words, url, env: environment })
    return new Swift(url, server, directory)
  }

  async stop(): Promise<void> {
    await this.#server.stop()
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

let shared: Promise<Swift> | null = null

/** The server of this test file. */
export function sharedSwift(): Promise<Swift> {
  shared ??= Swift.start()
  return shared
}

const clients: { close(): void }[] = []

afterAll(async () => {
  for (const client of clients.splice(0)) client.close()
  await (await shared?.catch(() => null))?.stop()
})

export interface TargetPorts {
  /** What stands between the target and the network. */
  wrap?: (http: HttpClient) => HttpClient
  now?: () => number
}

function portsOf({ wrap = (http) => http, now = systemClock.now }: TargetPorts) {
  const http = createKeptHttp()
  clients.push(http)
  const clock = { now, sleep: (delayMs: number) => systemClock.sleep(delayMs / 100) }
  return { http: wrap(http), clock, random: systemRandom, close: () => http.close() }
}

const TIMEOUT_MS = 30_000

/** A target in Swift, by its own login. */
export async function openSwiftTarget(
  changes: Partial<SwiftOptions & { key: string }> = {},
  ports: TargetPorts = {},
): Promise<BackupTarget> {
  const { url } = await sharedSwift()
  const all = portsOf(ports)
  const { key = SWIFT_PASSWORD, ...options } = changes
  const login = legacyLogin(all, {
    authUrl: `${url}/auth/v1.0`,
    user: SWIFT_USER,
    key,
    url: null,
    timeoutMs: TIMEOUT_MS,
  })
  return createSwiftTarget(all, login, { container: 'backups of volumes', timeoutMs: TIMEOUT_MS, ...options })
}

export const BUCKET = 'volume-backups'

/** A target in S3; its bucket is made when first asked for. */
export async function openS3Target(changes: Partial<S3Options> = {}, ports: TargetPorts = {}): Promise<BackupTarget> {
  const { url } = await sharedSwift()
  await makeContainer(url, BUCKET)
  return createS3Target(portsOf(ports), {
    endpoint: url,
    region: S3_REGION,
    bucket: BUCKET,
    prefix: 'cloud-1/',
    accessKey: SWIFT_USER,
    secretKey: SWIFT_PASSWORD,
    addressing: 'path',
    timeoutMs: TIMEOUT_MS,
    ...changes,
  })
}

/** A bucket is a container, and who made it the one way may use it the other. */
async function makeContainer(url: string, name: string): Promise<void> {
  const headers = { 'x-auth-user': SWIFT_USER, 'x-auth-key': SWIFT_PASSWORD }
  const login = await fetch(`${url}/auth/v1.0`, { headers })
  const made = await fetch(`${login.headers.get('x-storage-url')}/${name}`, {
    method: 'PUT',
    headers: { 'x-auth-token': login.headers.get('x-auth-token')! },
  })
  if (!made.ok) throw new Error(`Swift makes no container: ${made.status}`)
}
