import type { FastifyReply, FastifyRequest } from 'fastify'
import { ServiceError } from '../errors.ts'

/**
 * What nobody answers. Upstream's resources answer each of their methods, be it with a fault; a path that leads to no resource is
 * refused before, by its web framework, with a page in what the client accepts: HTML first, then JSON, else plain text.
 */
const STATUS = '404 Not Found'
const REASON = 'The resource could not be found.'

/** What stands between the reason and nothing, as the framework has it. */
const HTML_BODY = `${REASON}<br /><br />\n\n\n`
const PAGES = {
  'text/html': `<html>\n <head>\n  <title>${STATUS}</title>\n </head>\n <body>\n  <h1>${STATUS}</h1>\n  ${HTML_BODY}\n </body>\n</html>`,
  'application/json': JSON.stringify({ message: HTML_BODY, code: STATUS, title: 'Not Found' }),
} as const
const PLAIN_PAGE = `${STATUS}\n\n${REASON}\n\n\n`

/** Methods that every resource of upstream's is asked with. */
const RESOURCE_METHODS: readonly string[] = ['POST', 'PUT', 'DELETE']

export function createUnmatchedHandler(urls: readonly string[]) {
  const paths = urls.map((url) => new RegExp(`^/v3(/[^/]+)?${url.replace(/:\w+/g, '[^/]+')}/?$`))

  return async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    const path = request.url.split('?')[0]!
    if (RESOURCE_METHODS.includes(request.method) && paths.some((known) => known.test(path))) {
      throw new ServiceError('ResourceNotFound')
    }
    const type = preferred(request.headers.accept)
    const page = type === 'text/plain' ? PLAIN_PAGE : PAGES[type]
    const isJson = type === 'application/json'
    return reply
      .code(404)
      .type(isJson ? type : `${type}; charset=UTF-8`)
      .send(page)
  }
}

/** Which of the two kinds of pages a client accepts rather; plain text when neither. */
export function preferred(accept: string | undefined): 'text/html' | 'application/json' | 'text/plain' {
  const ranges = (accept ?? '*/*').split(',').map((range) => {
    const [name = '', ...parameters] = range.split(';').map((part) => part.trim().toLowerCase())
    const quality = parameters.find((parameter) => parameter.startsWith('q='))
    return { name, quality: quality === undefined ? 1 : Number(quality.slice(2)) || 0 }
  })
  const qualityOf = (type: string) => {
    const [family] = type.split('/')
    const found = [type, `${family}/*`, '*/*'].flatMap((name) => ranges.filter((range) => range.name === name))
    return found[0]?.quality ?? 0
  }
  const [html, json] = [qualityOf('text/html'), qualityOf('application/json')]
  if (html === 0 && json === 0) return 'text/plain'
  return html >= json ? 'text/html' : 'application/json'
}
