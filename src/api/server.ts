import { type FastifyBaseLogger, type FastifyInstance, type FastifyReply, fastify, LogController } from 'fastify'
import { ServiceError } from '../errors.ts'
import type { Authenticator } from '../identity/authenticator.ts'
import type { Log } from '../runtime/log.ts'
import type { Random } from '../runtime/random.ts'
import type { Services } from '../services/services.ts'
import { addDocs } from './docs.ts'
import { faultOf } from './faults.ts'
import { BODY_BYTES_MAX, parseBody } from './json.ts'
import { addKeyManager } from './key-manager.ts'
import { addMetrics, type MetricsDoor } from './metrics.ts'
import type { Pace } from './pace.ts'
import { createPolicy, type Policy } from './policy.ts'
import { type ApiSettings, registerRoutes } from './route.ts'
import { createUnmatchedHandler } from './unmatched.ts'
import { ROUTES } from './v3/index.ts'
import { addVersion, addVersions } from './v3/versions.ts'
import { addDoor, globalRequestIdOf } from './visit.ts'

export interface ApiServerOptions {
  services: Services
  authenticator: Authenticator
  /** Upstream's defaults when there is none. */
  policy?: Policy
  log: Log
  random: Random
  settings: ApiSettings
  /** Whether keys are kept here, and so are here to be asked for; false when absent. */
  servesKeys?: boolean
  /** Null when requests can be served, else the reason why not; asked by /healthcheck. */
  unready?: () => Promise<string | null>
  /** Without it, nothing is counted and there is no /metrics. */
  metrics?: MetricsDoor
  /** Without it, no request waits for others. */
  pace?: Pace
}

/**
 * The HTTP server of the block storage API, not yet listening. Others add their own doors to the same listener with
 * `register` (the local identity, metrics) before they call `listen`.
 */
export function createApiServer(options: ApiServerOptions): FastifyInstance {
  const { services, authenticator, policy = createPolicy(), log, random, settings, metrics, pace } = options
  const { unready = async () => null } = options
  const app = fastify({
    loggerInstance: log as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: 'request_id' }),
    bodyLimit: BODY_BYTES_MAX,
    childLoggerFactory: (logger) => logger, // a line or none per request is not worth a logger of its own
    genReqId: () => `req-${random.uuid()}`,
    routerOptions: { maxParamLength: 1024 },
    return503OnClosing: true,
    rewriteUrl: ({ url = '/' }) => routedUrl(url),
    frameworkErrors: (error, request, reply) => sendFault(error, request.id, reply),
  })
  app.decorateRequest('visit', null)
  acceptJson(app)
  if (pace) addPace(app, pace)
  addHeadersAndLog(app, log)
  if (metrics) addMetrics(app, metrics)
  app.setErrorHandler((error, request, reply) => {
    if (isUnauthorized(error)) reply.header('www-authenticate', authenticator.challenge(request.headers))
    return sendFault(error, request.id, reply)
  })
  const unmatched = createUnmatchedHandler(ROUTES.map(({ url }) => url))
  app.setNotFoundHandler(unmatched)
  app.get('/healthcheck', async (_request, reply) => {
    const reason = await unready()
    return reply
      .code(reason === null ? 200 : 503)
      .type('text/plain')
      .send(reason ?? 'OK')
  })
  addVersions(app, settings)
  addDocs(app)
  if (options.servesKeys) addKeyManager(app, { keys: services.keys, authenticator, policy, settings, log })
  app.register(
    async (v3) => {
      addDoor(v3, authenticator, policy)
      v3.setNotFoundHandler(unmatched)
      addVersion(v3, settings)
      registerRoutes(v3, ROUTES, { services, settings })
    },
    { prefix: '/v3' },
  )
  return app

  function sendFault(error: unknown, requestId: string, reply: FastifyReply): FastifyReply {
    const fault = faultOf(error)
    addRequestId(reply, requestId) // again, for what is refused before the hooks run
    if (fault.unexpected) log.error({ err: error, request_id: requestId }, 'a request failed')
    reply.code(fault.status).headers(fault.headers)
    if (fault.body === null) return reply.send()
    return reply.type('application/json').send(JSON.stringify(fault.body))
  }
}

/** For those who ask whether all is well. Attaching is not urgent: whoever waits does so for milliseconds, and its disk is what others wait for. */
const URGENT: ReadonlySet<string | undefined> = new Set(['/healthcheck', '/metrics'])

/** To be called first: a request that is held has cost nothing yet but its head. */
function addPace(app: FastifyInstance, pace: Pace): void {
  app.addHook('onRequest', (request, _reply, done) => {
    if (URGENT.has(request.routeOptions.url)) done()
    else pace.enter(done)
  })
}

/** Takes JSON under the two names that upstream takes. A body of another type is refused with 415, one of no type ignored. */
function acceptJson(app: FastifyInstance): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser(
    ['application/json', 'application/vnd.openstack.volume+json'],
    { parseAs: 'buffer' },
    (_request, source, done) => {
      try {
        done(null, parseBody(source as Buffer))
      } catch (error) {
        done(error as Error)
      }
    },
  )
  app.addContentTypeParser('*', { parseAs: 'string' }, (request, _source, done) => {
    const type = request.headers['content-type']
    if (type === undefined) done(null, null)
    else done(new ServiceError('UnsupportedMediaType'))
  })
}

function addHeadersAndLog(app: FastifyInstance, log: Log): void {
  const requests = log.child({}, { redact: [] }) // no secret is among these keys, and to look for them costs as much as the line
  app.addHook('onRequest', async (request, reply) => {
    addRequestId(reply, request.id)
    if (request.method === 'OPTIONS') return reply.code(200).send() // as upstream's CORS filter, before it looks for a token or a path
    if (request.url.split('?')[0]!.includes('%00')) throw new ServiceError('ResourceNotFound') // no name of ours has a NUL in it
  })
  app.addHook('onResponse', async (request, reply) => {
    const context = request.visit?.context
    requests.info(
      {
        request_id: request.id,
        method: request.method,
        url: request.url,
        status: reply.statusCode,
        ms: Math.round(reply.elapsedTime * 10) / 10,
        global_request_id: globalRequestIdOf(request) ?? undefined,
        user_id: context?.userId,
        project_id: context?.projectId,
      },
      'request',
    )
  })
}

function addRequestId(reply: FastifyReply, id: string): void {
  reply.header('x-openstack-request-id', id)
  reply.header('x-compute-request-id', id)
}

/**
 * `/v3/volumes.json` is `/v3/volumes`, as upstream: old clients write the format into the path. `/v3/volumes/` is nothing, as upstream:
 * clients that have lost an id ask for that. Outside of the API a slash at the end does not matter.
 */
function routedUrl(url: string): string {
  return url.startsWith('/v3') ? url.replace(/^([^?]*)\.json(?=\?|$)/, '$1') : url.replace(/^([^?]+)\/(?=\?|$)/, '$1')
}

function isUnauthorized(error: unknown): boolean {
  return error instanceof ServiceError && error.code === 'Unauthorized'
}
