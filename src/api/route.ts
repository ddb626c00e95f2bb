import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import { ServiceError } from '../errors.ts'
import type { RequestContext } from '../services/context.ts'
import type { Services } from '../services/services.ts'
import { createLinks, type Links } from './links.ts'
import { at, type Client, inRange, minorOf, type Version } from './microversion.ts'
import { refusedFilters } from './paging.ts'
import type { Rule } from './policy.ts'
import { check, shorten, unknownProperties, type Words } from './validation.ts'
import { visitOf } from './visit.ts'

/**
 * A route of the Cinder API is data: where it is, since which microversion, which rule guards it, and what goes in and
 * out. One function serves them all, in this order:
 *
 * 1. The token and the version header were checked when the request came in (visit.ts), so that also an unknown path
 *    tells nothing to strangers.
 * 2. Version range of the route (404), project of the URL (400).
 * 3. Query and body against the schemas that this client sees (400). Validation comes before policy, as in Cinder.
 * 4. The rule, for the caller's own project (403). An object that the caller may not see is not found (404) even for one
 *    whom the rule forbids to touch it: upstream reads it first, and a refusal would tell that the rule is all there is.
 *    Whether the object is the caller's is the service's to check.
 * 5. The handler; its answer goes out through the response schema that this client sees.
 */
export interface Route {
  method: Method
  /** Below `/v3` and `/v3/{project_id}`, with `:name` parameters. */
  url: string
  /** The key of the body that selects this route among those with the same URL (`os-extend`); null for plain routes. */
  action: string | null
  /** For the OpenAPI document: `verb_resource`, unique. */
  operation: string
  summary: string
  since: number
  until: number | undefined
  /** Null: anyone with a token for a project. */
  policy: Rule | null
  query: z.ZodType
  /** Null: the route takes no body, and one that is sent is ignored. For an action, what is below its key. */
  body: z.ZodType | null
  /** Null: the answer has no body. */
  response: z.ZodType | null
  status: number
  /** Finds what the request is about, or rejects with …NotFound; null when that is not one object. */
  target: ((request: Target<unknown, Record<string, string>>) => Promise<unknown>) | null
  /** The rule that some requests are asked when `policy` refuses them; the service asks all that apply. */
  refusedAs: ((request: Refused<unknown, unknown>) => Rule | false) | null
  handler: (request: ApiRequest<unknown, unknown, Record<string, string>>) => unknown
}

type Target<Body, Params> = Pick<ApiRequest<Body, unknown, Params>, 'services' | 'context' | 'params' | 'body'>

interface Refused<Body, Query> {
  body: Body
  query: Query
  /** What `target` found. */
  target: unknown
  supports(version: Version): boolean
}

export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'

export interface ApiRequest<Body, Query, Params> {
  services: Services
  settings: ApiSettings
  context: RequestContext
  params: Params
  query: Query
  body: Body
  links: Links
  headers: IncomingHttpHeaders
  client: Client
  /** For behaviour (not shape) that came with a microversion. */
  supports(version: Version): boolean
  setHeader(name: string, value: string): void
}

/** What handlers may know of the settings. */
export interface ApiSettings {
  /** Scheme, host and prefix for links when requests must not decide; usually null. */
  publicEndpoint: string | null
}

type ParamsOf<Url extends string> = Url extends `${string}:${infer Name}/${infer Rest}`
  ? Record<Name, string> & ParamsOf<Rest>
  : Url extends `${string}:${infer Name}`
    ? Record<Name, string>
    : unknown

interface RouteOptions<
  Url extends string,
  Body extends z.ZodType,
  Query extends z.ZodType,
  Response extends z.ZodType,
> {
  method: Method
  url: Url
  action?: string
  operation: string
  summary: string
  since?: Version
  until?: Version
  policy: Rule | null
  query?: Query
  body?: Body
  response?: Response
  status?: number
  /** For routes whose object the URL does not name. */
  target?: (request: Target<z.output<Body>, ParamsOf<Url>>) => Promise<unknown>
  refusedAs?: (request: Refused<z.output<Body>, z.output<Query>>) => Rule | false
  handler: (
    request: ApiRequest<z.output<Body>, z.output<Query>, ParamsOf<Url>>,
  ) => Promise<z.input<Response>> | z.input<Response>
}

export function defineRoute<
  Url extends string,
  Body extends z.ZodType = z.ZodVoid,
  Query extends z.ZodType = z.ZodObject<Record<string, never>>,
  Response extends z.ZodType = z.ZodVoid,
>(options: RouteOptions<Url, Body, Query, Response>): Route {
  return {
    method: options.method,
    url: options.url,
    action: options.action ?? null,
    operation: options.operation,
    summary: options.summary,
    since: minorOf(options.since ?? '3.0'),
    until: options.until === undefined ? undefined : minorOf(options.until),
    policy: options.policy,
    query: options.query ?? z.object({}),
    body: options.body ?? null,
    response: options.response ?? null,
    status: options.status ?? 200,
    target: (options.target as Route['target'] | undefined) ?? targetOf(options.url),
    refusedAs: (options.refusedAs as Route['refusedAs'] | undefined) ?? null,
    handler: options.handler as Route['handler'], // `serve` calls it with what the schemas of this same route let through
  }
}

/** Objects of which upstream reads the row before it asks the rule. Of others, such as types, it asks the rule first. */
const FINDERS: Readonly<Record<string, (services: Services, context: RequestContext, id: string) => Promise<unknown>>> =
  {
    volumes: ({ volumes }, context, id) => volumes.get(context, id),
    snapshots: ({ snapshots }, context, id) => snapshots.get(context, id),
    attachments: ({ attachments }, context, id) => attachments.get(context, id),
    groups: ({ groups }, context, id) => groups.get(context, id),
    group_snapshots: ({ groupSnapshots }, context, id) => groupSnapshots.get(context, id),
    consistencygroups: ({ groups }, context, id) => groups.get(context, id),
    cgsnapshots: ({ groupSnapshots }, context, id) => groupSnapshots.get(context, id),
    messages: ({ messages }, context, id) => messages.get(context, id),
  }

function targetOf(url: string): Route['target'] {
  const [, collection = '', parameter = ''] = /^\/(\w+)\/:(\w+)/.exec(url) ?? []
  const find = Object.hasOwn(FINDERS, collection) ? FINDERS[collection]! : null
  return find && (({ services, context, params }) => find(services, context, params[parameter]!))
}

/** Registers every route below both prefixes. Other methods on the same paths are not found, HEAD included, as upstream. */
export function registerRoutes(
  app: FastifyInstance,
  routes: readonly Route[],
  parts: { services: Services; settings: ApiSettings },
): void {
  const byUrl = groupBy(routes, (route) => route.url)
  for (const [url, sameUrl] of byUrl) {
    const methods = groupBy(sameUrl, (route) => route.method)
    for (const prefix of ['', '/:project_id']) {
      for (const [method, candidates] of methods) {
        app.route({
          method,
          url: prefix + url,
          exposeHeadRoute: false,
          handler: (request, reply) => serve(select(candidates, request), request, reply, parts),
        })
      }
    }
  }
}

/** The only route of a plain URL, or the one that the single key of the body names. */
function select(candidates: readonly Route[], request: FastifyRequest): Route {
  if (candidates.length === 1 && candidates[0]!.action === null) return candidates[0]!
  const keys = isObject(request.body) ? Object.keys(request.body) : []
  if (keys.length !== 1) throw new ServiceError('InvalidInput', { reason: 'Malformed request body' })
  const route = candidates.find(({ action }) => action === keys[0])
  if (route !== undefined) return route
  throw new ServiceError('InvalidInput', {
    reason: `There is no such action: ${shorten(keys[0]!, 100)}. Verify the request body and Content-Type header and try again.`,
  })
}

async function serve(
  route: Route,
  request: FastifyRequest,
  reply: FastifyReply,
  { services, settings }: { services: Services; settings: ApiSettings },
): Promise<FastifyReply> {
  const { context, minor } = visitOf(request)
  if (!inRange(minor, route.since, route.until)) throw new ServiceError('VersionNotFound', { version: `3.${minor}` })
  const { project_id: projectInUrl, ...params } = request.params as Record<string, string>
  if (projectInUrl !== undefined && projectInUrl !== context.projectId) {
    if (!PROJECT_ID.test(projectInUrl)) throw new ServiceError('ResourceNotFound')
    throw new ServiceError('InvalidInput', { reason: 'Malformed request url' })
  }

  const supports = (version: Version) => minor >= minorOf(version)
  const client = { minor, admin: context.isAdmin }
  const query = check(at(route.query, client), lastValues(request.query as Record<string, string | string[]>), QUERY)
  const sent = route.action === null ? request.body : (request.body as Record<string, unknown>)[route.action]
  const body =
    route.body === null
      ? undefined
      : check(at(route.body, client), sent ?? null, { root: route.action, unknown: unknownProperties })
  if (route.policy !== null && !context.allows(route.policy)) {
    const target = await route.target?.({ services, context, params, body })
    context.authorize(route.refusedAs?.({ body, query, target, supports }) || route.policy, context)
  }

  const answer = await route.handler({
    services,
    settings,
    context,
    params,
    query,
    body,
    links: createLinks({
      url: request.url,
      headers: request.headers,
      projectId: projectInUrl ?? null,
      publicEndpoint: settings.publicEndpoint,
    }),
    headers: request.headers,
    client,
    supports,
    setHeader: (name, value) => reply.header(name, value),
  })
  reply.code(route.status)
  if (route.response === null) return reply.send()
  const document = at(route.response, client).parse(answer)
  return reply.type('application/json').send(document === null ? '' : JSON.stringify(document)) // None says nothing, as in Cinder
}

/** What may be the id of a project in a path, as upstream's project_id_regex; anything else is no path of the API. */
const PROJECT_ID = /^[0-9a-f-]+$/

const QUERY: Words = { root: null, unknown: refusedFilters }

/** A parameter that is given several times counts with its last value, as in Cinder. */
function lastValues(query: Record<string, string | string[]>): Record<string, string> {
  const values: Record<string, string> = {}
  for (const [key, value] of Object.entries(query)) values[key] = Array.isArray(value) ? (value.at(-1) ?? '') : value
  return values
}

/** `Map.groupBy`, which Node 20 has not. */
export function groupBy<Key, Item>(items: readonly Item[], keyOf: (item: Item) => Key): Map<Key, Item[]> {
  const groups = new Map<Key, Item[]>()
  for (const item of items) {
    const key = keyOf(item)
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [item])
    else group.push(item)
  }
  return groups
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
