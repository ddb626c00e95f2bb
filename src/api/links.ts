import type { IncomingHttpHeaders } from 'node:http'
import { originOf } from '../identity/origin.ts'

/** The links of one request, written the way the client reached us. Paths begin with a slash: `/volumes/<id>`. */
export interface Links {
  self(path: string): string
  /** The same without the version, Cinder's permanent form. */
  bookmark(path: string): string
  /** The page after `marker` of the list that is being answered. */
  next(path: string, marker: string): string
}

export function createLinks(request: {
  url: string
  headers: IncomingHttpHeaders
  /** The project of the URL; null when the client used the form without it, which the links then repeat. */
  projectId: string | null
  publicEndpoint: string | null
}): Links {
  const project = request.projectId === null ? '' : `/${request.projectId}`
  let known: string | null = null // most answers have no links, and a list has thousands
  const origin = () => {
    known ??= originOf(request.headers, request.publicEndpoint)
    return known
  }
  return {
    self: (path) => `${origin()}/v3${project}${path}`,
    bookmark: (path) => `${origin()}${project}${path}`,
    next: (path, marker) => {
      const query = new URLSearchParams(request.url.split('?')[1] ?? '')
      query.set('marker', marker)
      return `${origin()}/v3${project}${path}?${query}`
    },
  }
}
