import type { FastifyInstance, InjectOptions } from 'fastify'
import type { Pace } from '../../src/api/pace.ts'
import type { Policy } from '../../src/api/policy.ts'
import { createApiServer } from '../../src/api/server.ts'
import { openDatabase } from '../../src/db/database.ts'
import { createMemoryBackend, createMemoryDriver } from '../../src/drivers/memory.ts'
import { ServiceError } from '../../src/errors.ts'
import { type Authenticator, headerOf } from '../../src/identity/authenticator.ts'
import { systemClock } from '../../src/runtime/clock.ts'
import { createLog } from '../../src/runtime/log.ts'
import { systemRandom } from '../../src/runtime/random.ts'
import { createServices, type RunningServices } from '../../src/services/create-services.ts'
import type { ImageOptions } from '../../src/services/images/images.ts'
import { createSeal, SEAL_KEY_BYTES } from '../../src/services/seal.ts'
import { DEFAULT_SETTINGS, type ServiceSettings } from '../../src/services/settings.ts'
import { openBackupTarget } from '../tools/backup-target.ts'

export const PROJECT = '0123456789abcdef0123456789abcdef'
export const OTHER_PROJECT = 'fedcba9876543210fedcba9876543210'

/** An API over the real services, a database in memory and the memory driver; `close` ends them all. */
export interface Harness {
  app: FastifyInstance
  services: RunningServices
  /** What was logged, one JSON object a line. */
  logged: string[]
  ask(method: Method, path: string, options?: AskOptions): Promise<Answer>
  close(): Promise<void>
}

type Method = 'GET' | 'POST' | 'PUT' | 'DELETE' | 'PATCH' | 'HEAD'

export interface AskOptions {
  /** Microversion; none sends no header. */
  version?: string
  roles?: string
  project?: string
  body?: unknown
  headers?: Record<string, string>
}

export interface Answer {
  status: number
  headers: Record<string, unknown>
  // biome-ignore lint/suspicious/noExplicitAny: tests look into documents of every shape
  body: any
  text: string
}

export async function createHarness(
  options: { images?: ImageOptions; pace?: Pace; policy?: Policy; settings?: Partial<ServiceSettings> } = {},
): Promise<Harness> {
  const logged: string[] = []
  const log = createLog('info', { write: (line) => logged.push(line) })
  const db = await openDatabase({ file: ':memory:' })
  const services = createServices({
    db,
    backupTarget: await openBackupTarget(),
    images: options.images ?? null,
    keys: { seal: createSeal(systemRandom.bytes(SEAL_KEY_BYTES), systemRandom), manager: null },
    backends: [
      { name: 'memory', availabilityZone: 'nova', driver: createMemoryDriver(createMemoryBackend(), systemRandom) },
    ],
    clock: systemClock,
    random: systemRandom,
    log,
    settings: {
      ...DEFAULT_SETTINGS,
      hostName: 'test',
      quota: { ...DEFAULT_SETTINGS.quota, volumes: 2000 },
      ...options.settings,
    },
  })
  await services.start()
  const app = createApiServer({
    services,
    authenticator: tokensThatNameRoles,
    ...(options.policy && { policy: options.policy }),
    ...(options.pace && { pace: options.pace }),
    log,
    random: systemRandom,
    settings: { publicEndpoint: null },
    servesKeys: true,
  })
  await app.ready()
  return {
    app,
    services,
    logged,
    ask: async (method, path, { version, roles = 'admin', project = PROJECT, body, headers = {} } = {}) => {
      const request: InjectOptions = {
        method,
        url: path,
        headers: {
          host: 'cinder.example:8776',
          'x-auth-token': `user:${project}:${roles}`,
          ...(version === undefined ? {} : { 'openstack-api-version': `volume ${version}` }),
          ...headers,
        },
        ...(body === undefined ? {} : { payload: body as object }),
      }
      const answer = await app.inject(request)
      const isJson = answer.body !== '' && String(answer.headers['content-type']).startsWith('application/json')
      return {
        status: answer.statusCode,
        headers: answer.headers,
        text: answer.body,
        body: isJson ? answer.json() : null,
      }
    },
    close: async () => {
      await app.close()
      await services.stop()
      await db.destroy()
    },
  }
}

/** Tokens that carry what they stand for, `user:project:role+role`, so that a test can be anybody. */
const tokensThatNameRoles: Authenticator = {
  authenticate: async (headers) => {
    const [userId, projectId, roles] = (headerOf(headers, 'x-auth-token') ?? '').split(':')
    if (!userId) throw new ServiceError('Unauthorized')
    return {
      userId,
      projectId: projectId || null,
      roles: roles?.split('+') ?? [],
      isService: headerOf(headers, 'x-service-token') !== undefined,
    }
  },
  challenge: () => 'Keystone uri="http://keystone.example/identity"',
}
