import type { IncomingHttpHeaders } from 'node:http'

/** Where a server is reached when a request does not say so (HTTP/1.0 without a Host header). */
const UNKNOWN_HOST = 'localhost'

/**
 * Scheme, host and prefix under which the client reached this server, without a slash at the end: links and catalogs
 * repeat it, so that they work through proxies and from any network. `publicEndpoint`, when set, wins.
 */
export function originOf(headers: IncomingHttpHeaders, publicEndpoint: string | null): string {
  if (publicEndpoint !== null) return publicEndpoint.replace(/\/+$/, '')
  const host = [lastOf(headers['x-forwarded-host']), headers.host].find((name) => name && HOST.test(name))
  const scheme = lastOf(headers['x-forwarded-proto']) === 'https' ? 'https' : 'http'
  const prefix = lastOf(headers['x-forwarded-prefix']) ?? ''
  return `${scheme}://${host ?? UNKNOWN_HOST}${PREFIX.test(prefix) ? prefix.replace(/\/+$/, '') : ''}`
}

const HOST = /^[A-Za-z0-9.\-_]+(:\d{1,5})?$|^\[[0-9a-fA-F:.]+\](:\d{1,5})?$/
const PREFIX = /^(\/[A-Za-z0-9.\-_~]+)+\/?$/

/** A proxy appends its own value, so the last one of a list is from the proxy that is nearest. */
function lastOf(header: string | string[] | undefined): string | undefined {
  const values = Array.isArray(header) ? header.join(',') : header
  return values?.split(',').at(-1)?.trim()
}
