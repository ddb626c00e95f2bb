import type { FastifyInstance } from 'fastify'
import { ROUTES } from './v3/index.ts'

/**
 * `/docs`: the OpenAPI document with a page to read it. Nothing of it is loaded before somebody looks: the page, its
 * files and the document live in an app of their own, which this one asks.
 */
export function addDocs(app: FastifyInstance): void {
  let loaded: Promise<FastifyInstance> | null = null
  app.addHook('onClose', async () => (await loaded)?.close())
  for (const url of ['/docs', '/docs/*']) {
    app.get(url, async (request, reply) => {
      loaded ??= load()
      const answer = await (await loaded).inject({ method: 'GET', url: request.url })
      const { 'content-length': _, connection: __, 'transfer-encoding': ___, date: ____, ...headers } = answer.headers
      return reply.code(answer.statusCode).headers(headers).send(answer.rawPayload)
    })
  }
}

async function load(): Promise<FastifyInstance> {
  const [{ createDocumentedApp }, { default: swaggerUi }] = await Promise.all([
    import('./openapi.ts'),
    import('@fastify/swagger-ui'),
  ])
  const docs = await createDocumentedApp(ROUTES)
  await docs.register(swaggerUi, { routePrefix: '/docs' })
  await docs.ready()
  return docs
}
