import swagger from '@fastify/swagger'
import { type FastifyInstance, type FastifySchema, fastify } from 'fastify'
import { z } from 'zod'
import { MAX_VERSION, MIN_VERSION, openApiMark } from './microversion.ts'
import { groupBy, type Route } from './route.ts'

/**
 * The OpenAPI document, collected by @fastify/swagger from the routes. It describes the newest form of everything and
 * marks what has not always been there, in OpenStack's words: `x-openstack: {min-ver, max-ver}`.
 *
 * The routes are put on an instance of their own that answers nothing, so that the server neither compiles nor keeps a
 * schema of which only readers of the document know.
 */
export async function createDocumentedApp(routes: readonly Route[]): Promise<FastifyInstance> {
  const app = fastify({ exposeHeadRoutes: false })
  app.setValidatorCompiler(() => () => true)
  app.setSerializerCompiler(() => (data) => JSON.stringify(data))
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Collie Block Storage API',
        version: MAX_VERSION,
        description:
          `OpenStack Block Storage (Cinder) API v3, microversions ${MIN_VERSION} to ${MAX_VERSION}, asked for with the ` +
          'header `OpenStack-API-Version: volume 3.x`. Every path works without `{project_id}` too.',
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      components: { securitySchemes: { token: { type: 'apiKey', in: 'header', name: 'X-Auth-Token' } } },
      security: [{ token: [] }],
    },
  })
  for (const sameMethod of groupBy(routes, ({ method, url }) => `${method} ${url}`).values()) {
    app.route({
      method: sameMethod[0]!.method,
      url: `/v3/:project_id${sameMethod[0]!.url}`,
      schema: schemaOf(sameMethod),
      handler: () => null,
    })
  }
  return app
}

export async function openApiDocument(routes: readonly Route[]): Promise<unknown> {
  const app = await createDocumentedApp(routes)
  await app.ready()
  return app.swagger()
}

/** What FastifySchema takes, and what @fastify/swagger passes through for us. */
type DocumentedSchema = FastifySchema & {
  summary: string
  operationId: string
  tags: string[]
  'x-openstack'?: Record<string, unknown>
}

/** One operation, or several actions that share a path and are told apart by the key of the body. */
function schemaOf(routes: readonly Route[]): DocumentedSchema {
  const route = routes[0]!
  const actions = route.action !== null
  const names = [...route.url.matchAll(/:(\w+)/g)].map((match) => match[1]!)
  const body = actions ? { oneOf: routes.map(actionBody) } : route.body && toJson(route.body, 'input')
  const marks = rangeOf(route)
  return {
    summary: actions ? 'Act on the resource' : route.summary,
    operationId: actions ? `act_on_${route.url.split('/')[1]}` : route.operation,
    tags: [route.url.split('/')[1]!],
    params: {
      type: 'object',
      properties: Object.fromEntries(['project_id', ...names].map((name) => [name, { type: 'string' }])),
      required: ['project_id', ...names],
    },
    querystring: toJson(route.query, 'input'),
    ...(body === null ? {} : { body }),
    response: Object.fromEntries(
      [...new Set(routes.map(({ status }) => status))].map((status) => {
        const answer = routes.find((other) => other.status === status)!.response
        return [status, answer === null ? { type: 'null', description: 'No body' } : toJson(answer, 'output')]
      }),
    ),
    'x-openstack': actions
      ? { discriminator: 'action' }
      : { ...marks, ...(route.policy === null ? {} : { policy: route.policy }) },
  }
}

function actionBody(route: Route) {
  return {
    type: 'object',
    title: route.operation,
    description: route.summary,
    properties: { [route.action!]: route.body === null ? {} : toJson(route.body, 'input') },
    required: [route.action],
    additionalProperties: false,
    'x-openstack': { 'action-name': route.action, policy: route.policy, ...rangeOf(route) },
  }
}

function rangeOf({ since, until }: Route): Record<string, string> {
  return {
    ...(since === 0 ? {} : { 'min-ver': `3.${since}` }),
    ...(until === undefined ? {} : { 'max-ver': `3.${until}` }),
  }
}

function toJson(schema: z.ZodType, io: 'input' | 'output'): Record<string, unknown> {
  const { $schema: _, ...json } = z.toJSONSchema(schema, {
    io,
    unrepresentable: 'any',
    override: ({ zodSchema, jsonSchema }) => {
      const mark = openApiMark(zodSchema)
      if (mark !== undefined) Object.assign(jsonSchema, { 'x-openstack': mark })
      if (zodSchema instanceof z.ZodObject && jsonSchema.required !== undefined) {
        // Required of a reader of every version is only what every version has.
        jsonSchema.required = jsonSchema.required.filter((name) => openApiMark(zodSchema.shape[name]) === undefined)
      }
    },
  })
  return json
}
