import assert from 'node:assert/strict'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { ServiceError } from '../errors.ts'
import { type Authenticator, headerOf, type Principal } from '../identity/authenticator.ts'
import type { RequestContext } from '../services/context.ts'
import { parseVersionHeader } from './microversion.ts'
import type { Policy } from './policy.ts'

/** What is known of a request once it is through the door: who asks, and in which version of the API. */
export interface Visit {
  context: RequestContext
  minor: number
}

declare module 'fastify' {
  interface FastifyRequest {
    visit: Visit | null
  }
}

/**
 * The door of everything below `/v3`: checks the token, then the version header, before a body is read or a path is
 * looked at, and sets the headers that every answer of the API has.
 */
export function addDoor(app: FastifyInstance, authenticator: Authenticator, policy: Policy): void {
  app.addHook('onRequest', async (request, reply) => {
    const principal = await authenticator.authenticate(request.headers)
    const minor = addVersionHeaders(request, reply)
    request.visit = { context: contextOf(principal, policy, request), minor }
  })
}

/** The door of other APIs than Cinder's, which know no microversions. */
export function addContextDoor(app: FastifyInstance, authenticator: Authenticator, policy: Policy): void {
  app.addHook('onRequest', async (request) => {
    const principal = await authenticator.authenticate(request.headers)
    request.visit = { context: contextOf(principal, policy, request), minor: 0 }
  })
}

/** Reads the microversion that is asked for, and says in the answer which one it is; returns what follows `3.`. */
export function addVersionHeaders(request: FastifyRequest, reply: FastifyReply): number {
  reply.header('vary', 'OpenStack-API-Version')
  const minor = parseVersionHeader(headerOf(request.headers, 'openstack-api-version'))
  reply.header('openstack-api-version', `volume 3.${minor}`)
  return minor
}

export function visitOf(request: FastifyRequest): Visit {
  assert(request.visit !== null, 'a route below /v3 is served without its door')
  return request.visit
}

function contextOf(principal: Principal, policy: Policy, request: FastifyRequest): RequestContext {
  const { projectId } = principal
  // A token without a project is genuine, but nothing here belongs to nobody.
  if (projectId === null) throw new ServiceError('PolicyNotAuthorized', { action: 'volume:get' })
  const context: RequestContext = {
    requestId: request.id,
    globalRequestId: globalRequestIdOf(request),
    userId: principal.userId,
    projectId,
    roles: principal.roles,
    isAdmin: policy.isAdmin({ ...principal, projectId }),
    isService: principal.isService,
    token: headerOf(request.headers, 'x-auth-token') ?? '',
    authorize: (rule, target) => policy.authorize(rule, context, target),
    allows: (rule) => policy.isAllowed(rule, context, context),
  }
  return context
}

/** The caller's id of a whole chain of requests; only ids of the usual form, because they end up in the log. */
export function globalRequestIdOf(request: FastifyRequest): string | null {
  const id = headerOf(request.headers, 'x-openstack-request-id')
  return id !== undefined && /^req-[0-9a-fA-F-]{36}$/.test(id) ? id : null
}
