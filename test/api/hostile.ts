import fc from 'fast-check'
import { expect } from 'vitest'
import { z } from 'zod'
import { BODY_BYTES_MAX } from '../../src/api/json.ts'
import { at } from '../../src/api/microversion.ts'
import type { Route } from '../../src/api/route.ts'
import { bodiesOf, hostile } from './arbitrary.ts'
import { type Answer, createHarness, type Harness, OTHER_PROJECT, PROJECT } from './harness.ts'

/**
 * Requests made from the routes themselves, right, nearly right and hostile, and what must hold for every answer. Both the
 * suite and its long form take them from here.
 */
export interface HostileRequest {
  method: Route['method']
  url: string
  /** Another project's object stands in the URL. */
  isForeign: boolean
  headers: Record<string, string>
  roles: string
  body: string | undefined
}

/** An API with objects of two projects. */
export interface Target {
  api: Harness
  /** Ids by collection: ours, and those of another project. */
  ours: Record<string, string[]>
  foreign: Record<string, string[]>
}

const COLLECTIONS = ['volumes', 'snapshots', 'attachments', 'messages', 'types', 'extensions'] as const

export async function createTarget(): Promise<Target> {
  const api = await createHarness()
  const target: Target = {
    api,
    ours: Object.fromEntries(COLLECTIONS.map((name) => [name, []])),
    foreign: Object.fromEntries(COLLECTIONS.map((name) => [name, []])),
  }
  target.ours.extensions!.push('os-volume-actions')
  for (const project of [PROJECT, PROJECT, PROJECT, OTHER_PROJECT]) await stock(target, project)
  return target
}

/** As many of each collection are kept; older ones have been through enough. */
const KEPT = 9

/** Makes one more of everything, so that requests that end things find some to end. */
async function stock({ api, ours, foreign }: Target, project: string): Promise<void> {
  const side = project === PROJECT ? ours : foreign
  const make = async (collection: string, resource: string, content: object): Promise<string> => {
    const options = { version: '3.27', project, body: { [resource]: content } }
    const { body } = await api.ask('POST', `/v3/${collection}`, options)
    await api.services.idle()
    const id: string = body[resource]?.id ?? NOTHING[0]
    const owner = collection === 'types' ? ours : side // public ones are nobody's secret
    owner[collection]!.push(id)
    return id
  }
  const name = `type ${made++}`
  await make('types', 'volume_type', { name, extra_specs: { volume_backend_name: 'nobody' } })
  const volume_id = await make('volumes', 'volume', { size: 1, metadata: { a: 'b' } })
  await make('snapshots', 'snapshot', { volume_id, metadata: { a: 'b' } })
  await make('attachments', 'attachment', { volume_uuid: volume_id })
  await make('volumes', 'volume', { size: 1 })
  await make('volumes', 'volume', { size: 1, volume_type: name }) // fails, and so leaves a message
  const { body } = await api.ask('GET', `/v3/messages?limit=${KEPT}`, { version: '3.5', project, roles: 'member' })
  side.messages = body.messages.map(({ id }: { id: string }) => id)
  for (const [collection, ids] of [...Object.entries(ours), ...Object.entries(foreign)]) {
    for (const id of ids.splice(0, ids.length - KEPT)) {
      const query = collection === 'volumes' ? '?cascade=true&force=true' : ''
      await api.ask('DELETE', `/v3/${collection}/${id}${query}`, { version: '3.71' })
    }
  }
}

let made = 0

const NOTHING = [
  '11111111-1111-1111-1111-111111111111',
  'a',
  '%F0%9F%92%BE',
  '%00',
  '%2e%2e',
  '..%2f..',
  '%ZZ',
  '%C3%28',
  '%E2%80%8B',
  "';--",
  'x'.repeat(300),
  '%20',
  '__proto__',
  'constructor',
]

const versions = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom('3.0', '3.52', '3.53', '3.71', 'latest') },
  { weight: 12, arbitrary: fc.nat(71).map((minor) => `3.${minor}`) },
  {
    weight: 1,
    arbitrary: fc.constantFrom('', 'three', '3.72', '2.0', '3', '3.-1', '3.0001', '99999999999.1', '3.1 3.2', 'é'),
  },
)

const versionHeaders = fc.oneof(
  { weight: 20, arbitrary: versions.map((version) => `volume ${version}`) },
  { weight: 1, arbitrary: versions.map((version) => `compute 2.1, volume ${version}`) },
  { weight: 1, arbitrary: fc.constantFrom('volume', ',', 'compute 2.90', 'volume 3.1, volume 3.2', ' ') },
)

const contentTypes = fc.oneof(
  { weight: 20, arbitrary: fc.constant('application/json') },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      'application/vnd.openstack.volume+json',
      'application/json; charset=utf-16',
      'application/xml',
      'text/plain',
      'application/x-www-form-urlencoded',
      'json',
      '/',
    ),
  },
  { weight: 1, arbitrary: fc.constant(null) },
)

const texts = fc.oneof(
  fc.string(),
  fc.string({ unit: 'binary', maxLength: 20 }),
  fc.constantFrom('1', '0', '-1', 'true', 'none', "{'a': 'b'}", '{', 'name:asc', 'gt:2020-01-01', '1e3', 'NaN', '0x1'),
  fc.constantFrom('9'.repeat(400), 'é'.repeat(256), 'x'.repeat(5000), '\0', 'created_at:desc,id:asc,id:desc', ':', ','),
)

const PARAMETERS = [
  ...['limit', 'offset', 'marker', 'sort', 'sort_key', 'sort_dir', 'all_tenants', 'with_count'],
  ...['name', 'name~', 'status~', 'size', 'project_id', 'host', 'force', 'cascade', 'resource', 'é', '__proto__', ''],
]

function queriesOf({ query }: Route): fc.Arbitrary<string> {
  const own = query instanceof z.ZodObject ? Object.keys(query.shape) : []
  const names = fc.oneof(fc.constantFrom(...own, ...PARAMETERS), fc.string({ maxLength: 8 }))
  const pairs = fc.array(fc.tuple(names, texts), { maxLength: 4 }).map((list) => new URLSearchParams(list).toString())
  return fc.oneof(
    { weight: 4, arbitrary: fc.constant('') },
    { weight: 8, arbitrary: pairs },
    { weight: 1, arbitrary: fc.constantFrom('%', '&&==', 'limit=%ZZ', 'a[b]=c', 'limit', '?', 'name=%ED%A0%80') },
  )
}

function urlsOf(route: Route, { ours, foreign }: Target): fc.Arbitrary<{ url: string; isForeign: boolean }> {
  const collection = route.url.split('/')[1]!
  const prefixes = fc.oneof(
    { weight: 20, arbitrary: fc.constantFrom('/v3', `/v3/${PROJECT}`) },
    { weight: 1, arbitrary: fc.constantFrom(`/v3/${OTHER_PROJECT}`, '/v3/no-project', '/v3/', '/v2') },
  )
  const suffixes = fc.oneof(
    { weight: 20, arbitrary: fc.constant('') },
    { weight: 1, arbitrary: fc.constantFrom('/', '.json', '.xml', '//', '/..', '%2F', ';a=b', '.json/') },
  )
  const ids = fc.oneof(
    { weight: 6, arbitrary: anyOf(() => ours[collection] ?? [], false) },
    { weight: 2, arbitrary: anyOf(() => foreign[collection] ?? [], true) },
    { weight: 2, arbitrary: fc.constantFrom(...NOTHING).map((id) => ({ id, isForeign: false })) },
  )
  const keys = fc.constantFrom('a', 'b', 'encryption_key_id', ...NOTHING)
  return fc.tuple(prefixes, suffixes, ids, keys).map(([prefix, suffix, { id, isForeign }, key]) => ({
    url: prefix + route.url.replace(/:key/, key).replace(/:\w+/, id) + suffix,
    isForeign: isForeign && route.url.includes(':') && suffix === '',
  }))
}

/** One of what exists when the request is made; nothing exists of some collections. */
function anyOf(list: () => string[], isForeign: boolean): fc.Arbitrary<{ id: string; isForeign: boolean }> {
  return fc.nat().map((index) => {
    const id = list()[index % Math.max(1, list().length)]
    return id === undefined ? { id: NOTHING[0]!, isForeign: false } : { id, isForeign }
  })
}

/** What is no JSON document, or more than one reader would agree on. */
const rawBodies = fc.oneof(
  fc.constantFrom(
    '',
    ' ',
    '{',
    '}',
    'null',
    '[]',
    '"volume"',
    '1',
    'NaN',
    '{"volume": NaN}',
    "{'volume': {}}",
    '\uFEFF{}',
  ),
  fc.constantFrom('{"volume": {}, "volume": {"size": 1}}', '{"volume": {"size": 1, "size": "x"}}', '{"__proto__": {}}'),
  fc.constantFrom('[', '{"a":').map((opening) => opening.repeat(5000)),
  fc.constantFrom('[', '{"a":').map((opening) => {
    const closing = opening === '[' ? ']' : '}'
    return `{"volume": {"metadata": ${opening.repeat(33)}1${closing.repeat(33)}}}`
  }),
  fc.nat(10).map((more) => JSON.stringify({ volume: { name: 'x'.repeat(BODY_BYTES_MAX - 30 + more) } })),
  fc.string({ unit: 'binary' }),
)

/** Replaces, removes or adds something, somewhere in a document. */
function damaged(documents: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> {
  return fc.tuple(documents, fc.nat(), fc.constantFrom('replace', 'remove', 'add'), hostile).map(damage)
}

function damage([document, where, how, value]: [unknown, number, string, unknown]): unknown {
  if (typeof document !== 'object' || document === null || Array.isArray(document)) return value
  const entries = Object.entries(document)
  if (how === 'add' || entries.length === 0) return { ...document, surplus: value }
  const index = where % entries.length
  const [key, child] = entries[index]!
  if (typeof child === 'object' && child !== null && where % 3 > 0) {
    entries[index] = [key, damage([child, Math.floor(where / 3), how, value])]
  } else if (how === 'remove') entries.splice(index, 1)
  else entries[index] = [key, value]
  return Object.fromEntries(entries)
}

/** Bodies from the schema as one version and one role see it, made once for each. */
function documentsOf(
  route: Route,
  { ours, foreign }: Target,
): (version: string, roles: string) => fc.Arbitrary<unknown> {
  const made = new Map<z.ZodType, fc.Arbitrary<unknown>>()
  const known = () => [...ours.volumes!, ...ours.volumes!, ...foreign.volumes!, ...ours.snapshots!]
  return (version, roles) => {
    const minor = Number(/3\.(\d{1,2})$/.exec(version)?.[1] ?? 0)
    const schema = at(route.body ?? z.null(), { minor, admin: roles.includes('admin') })
    const documents = made.get(schema) ?? bodiesOf(schema, known)
    made.set(schema, documents)
    return documents
  }
}

export function requestsOf(route: Route, target: Target): fc.Arbitrary<HostileRequest> {
  const bodies = documentsOf(route, target)
  const roleSets = fc.constantFrom('admin', 'admin', 'member', 'member', 'reader', 'admin+service', 'nobody')
  return fc.tuple(versionHeaders, roleSets).chain(([versionHeader, roles]) => {
    const documents = bodies(versionHeader, roles).map((body) =>
      route.action === null ? body : { [route.action]: body ?? null },
    )
    const text = (of: fc.Arbitrary<unknown>) => of.map((document) => JSON.stringify(document))
    const body: fc.Arbitrary<string | undefined> =
      route.body === null
        ? fc.oneof({ weight: 9, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: rawBodies })
        : fc.oneof(
            { weight: 6, arbitrary: text(documents) },
            { weight: 5, arbitrary: text(damaged(documents)) },
            { weight: 1, arbitrary: rawBodies },
          )
    return fc
      .record({ at: urlsOf(route, target), query: queriesOf(route), body, type: contentTypes })
      .map(({ at: { url, isForeign }, query, body: payload, type }) => ({
        method: route.method,
        url: query === '' ? url : `${url}?${query}`,
        isForeign,
        roles,
        headers: {
          'openstack-api-version': versionHeader,
          ...(type === null || payload === undefined ? {} : { 'content-type': type }),
        },
        body: payload,
      }))
  })
}

const FAULT_NAMES: Record<number, string> = {
  400: 'badRequest',
  401: 'unauthorized',
  403: 'forbidden',
  404: 'itemNotFound',
  406: 'computeFault',
  409: 'conflictingRequest',
  413: 'overLimit',
  415: 'badMediaType',
  503: 'serviceUnavailable',
}

/** Makes the request and checks what holds for every answer; resolves with it. */
export async function probe(target: Target, request: HostileRequest): Promise<Answer> {
  const { api } = target
  const { method, url, headers, roles, body } = request
  const answer = await api.ask(method, url, { roles, headers, ...(body === undefined ? {} : { body }) })
  const context = `${answer.text} ${answer.status >= 500 ? api.logged.at(-2) : ''}`
  // Upstream's word for a service that is not there to whoever would have it manage something.
  const isNoService = answer.status === 503 && /"(Cluster|Host) '.*' not found"/.test(answer.text)
  if (!isNoService) expect(answer.status, context).toBeLessThan(500)
  expect(answer.headers['x-openstack-request-id']).toMatch(/^req-/)
  expect(answer.headers['x-compute-request-id']).toBe(answer.headers['x-openstack-request-id'])
  if (answer.status === 412) expect(answer.text).toBe('')
  else if (answer.status === 404 && answer.text.includes('<h1>404 Not Found</h1>')) {
    // A path that leads nowhere: no object was looked for.
    expect(answer.headers['content-type']).toBe('text/html; charset=UTF-8')
  } else if (answer.status >= 400) {
    expect(Object.keys(answer.body), context).toEqual([FAULT_NAMES[answer.status]])
    const { code, message } = answer.body[FAULT_NAMES[answer.status]!]
    expect([code, typeof message], context).toEqual([answer.status, 'string'])
    expect(message.length, context).toBeLessThan(1500)
    expect(message, 'a reason, and not that of a library').not.toMatch(
      /^$|^Invalid input$|expected .*received|undefined/,
    )
  }
  if (answer.status === 413 && !/Exceed|exceed/.test(answer.text)) {
    expect(Buffer.byteLength(body ?? '')).toBeGreaterThan(BODY_BYTES_MAX)
  }
  if (request.isForeign && !roles.includes('admin')) {
    // An object of others: whatever else is wrong is said first, but never that it is there.
    expect([400, 404, 406, 413, 415], context).toContain(answer.status)
  }
  if (method !== 'GET' && answer.status < 300) await stock(target, PROJECT)
  return answer
}
