import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import { headerOf } from './authenticator.ts'
import { catalogOf } from './catalog.ts'
import { DOMAIN, ROLES } from './constants.ts'
import { identityError, KeystoneError } from './errors.ts'
import { isDomain, type LocalIdentity, type UserReference } from './local.ts'
import { originOf } from './origin.ts'
import type { Session } from './tokens.ts'
import { addIdentityVersions } from './versions.ts'

const Reference = z.object({
  id: z.string().max(255).optional(),
  name: z.string().max(255).optional(),
  domain: z.object({ id: z.string().optional(), name: z.string().optional() }).optional(),
})

/** `POST /v3/auth/tokens`, as far as this identity serves it. */
const AuthRequest = z.object({
  auth: z.object({
    identity: z.object({
      methods: z.array(z.string()).min(1).max(8),
      password: z.object({ user: Reference.extend({ password: z.string().max(4096) }) }).optional(),
      token: z.object({ id: z.string().max(255) }).optional(),
    }),
    scope: z.union([z.literal('unscoped'), z.object({ project: Reference.optional() }).loose()]).optional(),
  }),
})

/**
 * The part of Keystone's v3 API that clients of block storage use, for the one account of `auth: local`: tokens, the
 * catalog, and their own project and user.
 */
export function addLocalIdentity(
  app: FastifyInstance,
  identity: LocalIdentity,
  { publicEndpoint, imageUrl }: { publicEndpoint: string | null; imageUrl: string | null },
): void {
  const { account } = identity
  const project = {
    id: account.projectId,
    name: account.projectName,
    domain_id: DOMAIN.id,
    parent_id: DOMAIN.id,
    description: '',
    enabled: true,
    is_domain: false,
    tags: [],
    options: {},
  }
  const user = {
    id: account.userId,
    name: account.userName,
    domain_id: DOMAIN.id,
    enabled: true,
    password_expires_at: null,
    options: {},
  }

  app.register(
    async (keystone) => {
      keystone.setErrorHandler(async (error, request, reply) => {
        const { status, body } = identityError(error)
        if (status >= 500) request.log.error({ err: error, request_id: request.id }, 'a request for a token failed')
        if (status === 401) reply.header('www-authenticate', identity.authenticator.challenge(request.headers))
        return reply.code(status).send(body)
      })
      keystone.setNotFoundHandler(() => {
        throw new KeystoneError(404, 'The requested URL was not found on the server.')
      })
      addIdentityVersions(keystone, publicEndpoint)

      keystone.post('/v3/auth/tokens', async (request, reply) => {
        const parsed = AuthRequest.safeParse(request.body)
        if (!parsed.success) {
          const { path, message } = parsed.error.issues[0]!
          throw new KeystoneError(400, `Expecting to find ${path.join('.') || 'auth'} in the request: ${message}`)
        }
        const { auth } = parsed.data
        const { methods, parent } = await provenBy(auth.identity)
        const { token, session } = await identity.tokens.issue({ methods, parent, scoped: isScoped(auth.scope) })
        return sendToken(request, reply.code(201), token, session)
      })
      keystone.route({
        method: ['GET', 'HEAD'],
        url: '/v3/auth/tokens',
        handler: async (request, reply) => {
          await requireToken(request)
          const { token, session } = await subjectOf(request)
          return sendToken(request, reply, token, session)
        },
      })
      keystone.delete('/v3/auth/tokens', async (request, reply) => {
        await requireToken(request)
        await identity.tokens.revoke((await subjectOf(request)).token)
        return reply.code(204).send()
      })
      keystone.get('/v3/auth/catalog', async (request) => {
        const session = await requireToken(request)
        return { catalog: session.scoped ? catalogFor(request) : [], links: linksOf(request) }
      })
      for (const url of ['/v3/auth/projects', `/v3/users/${account.userId}/projects`]) {
        keystone.get(url, async (request) => {
          await requireToken(request)
          return { projects: [project], links: linksOf(request) }
        })
      }
      keystone.get<{ Querystring: { name?: string } }>('/v3/projects', async (request) => {
        await requireToken(request)
        const { name } = request.query
        return { projects: name === undefined || name === project.name ? [project] : [], links: linksOf(request) }
      })
      keystone.get<{ Params: { id: string } }>('/v3/projects/:id', async (request) => {
        await requireToken(request)
        if (request.params.id !== project.id) throw notFound('project', request.params.id)
        return { project: { ...project, links: linksOf(request) } }
      })
      keystone.get<{ Params: { id: string } }>('/v3/users/:id', async (request) => {
        await requireToken(request)
        if (request.params.id !== user.id) throw notFound('user', request.params.id)
        return { user: { ...user, links: linksOf(request) } }
      })
    },
    { prefix: '/identity' },
  )

  /** Checks what the request offers as proof; a token that proves another cannot make it live longer. */
  async function provenBy(
    proof: z.output<typeof AuthRequest>['auth']['identity'],
  ): Promise<{ methods: string[]; parent: Session | null }> {
    const [method] = proof.methods
    if (method === 'password' && proof.password !== undefined) {
      const { password, ...reference } = proof.password.user
      if (!(await identity.authenticate(reference, password))) throw unauthorized()
      return { methods: ['password'], parent: null }
    }
    if (method === 'token' && proof.token !== undefined) {
      const session = await identity.tokens.find(proof.token.id)
      if (session === null) throw unauthorized()
      return { methods: [...new Set([...session.methods, 'token'])], parent: session }
    }
    throw new KeystoneError(401, `Attempted to authenticate with an unsupported method.`)
  }

  function isScoped(scope: z.output<typeof AuthRequest>['auth']['scope']): boolean {
    if (scope === undefined || scope === 'unscoped') return false
    if (scope.project === undefined || !isOwnProject(scope.project)) throw unauthorized()
    return true
  }

  function isOwnProject(reference: UserReference): boolean {
    if (reference.id !== undefined) return reference.id === project.id
    return reference.name === project.name && isDomain(reference.domain)
  }

  async function requireToken(request: FastifyRequest): Promise<Session> {
    const session = await identity.tokens.find(headerOf(request.headers, 'x-auth-token') ?? '')
    if (session === null) throw unauthorized()
    return session
  }

  async function subjectOf(request: FastifyRequest): Promise<{ token: string; session: Session }> {
    const token = headerOf(request.headers, 'x-subject-token') ?? ''
    const session = await identity.tokens.find(token)
    if (session === null) throw new KeystoneError(404, 'Could not find token.')
    return { token, session }
  }

  function sendToken(request: FastifyRequest, reply: FastifyReply, token: string, session: Session): FastifyReply {
    const { nocatalog } = request.query as { nocatalog?: string }
    return reply.headers({ 'x-subject-token': token, vary: 'X-Auth-Token' }).send({
      token: {
        methods: session.methods,
        user: { id: user.id, name: user.name, domain: DOMAIN, password_expires_at: null },
        audit_ids: [session.auditId],
        issued_at: stamp(session.issuedAt),
        expires_at: stamp(session.expiresAt),
        ...(session.scoped
          ? {
              project: { id: project.id, name: project.name, domain: DOMAIN },
              is_domain: false,
              roles: ROLES.map((name) => ({ id: name, name })),
              ...(nocatalog === undefined ? { catalog: catalogFor(request) } : {}),
            }
          : {}),
      },
    })
  }

  function catalogFor(request: FastifyRequest) {
    return catalogOf(originOf(request.headers, publicEndpoint), account.projectId, imageUrl)
  }

  function linksOf(request: FastifyRequest) {
    return { self: originOf(request.headers, publicEndpoint) + request.url, previous: null, next: null }
  }
}

function unauthorized(): KeystoneError {
  return new KeystoneError(401, 'The request you have made requires authentication.')
}

function notFound(kind: string, id: string): KeystoneError {
  return new KeystoneError(404, `Could not find ${kind}: ${id}.`)
}

/** As Keystone prints times: with microseconds. */
function stamp(milliseconds: number): string {
  return new Date(milliseconds).toISOString().replace('Z', '000Z')
}
