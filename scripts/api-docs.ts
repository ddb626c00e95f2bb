import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { ROUTES } from '../src/api/v3/index.ts'

/**
 * `npx tsx scripts/api-docs.ts` writes the tables of operations into docs/api.md, between the two marks; the rest of the
 * page is written by hand. A test fails while the committed tables differ.
 */
export const API_PAGE = new URL('../docs/api.md', import.meta.url)

const OPERATIONS = new URL('../docs/api-operations.tsv', import.meta.url)

export interface Operation {
  resource: string
  method: string
  /** Without `/v3/{project_id}`, but for the few that are not below it. */
  path: string
  /** The key of the body that selects it; empty for most. */
  action: string
  /** The first microversion that has it. */
  since: string
}

/** Served, but not by a route of the table of routes: they need no project. */
export const ELSEWHERE: readonly string[] = ['GET /', 'GET /v3/', 'GET /healthcheck']

/** Every operation that upstream has. */
export function upstreamOperations(): Operation[] {
  const [, ...lines] = readFileSync(OPERATIONS, 'utf8').trimEnd().split('\n')
  return lines.map((line) => {
    const [resource, method, path, action, since] = line.split('\t') as [string, string, string, string, string]
    return { resource, method, path, action, since }
  })
}

/** What two names of one operation have in common: parameters may be called anything, and a query is no other path. */
export function identityOf({ method, path, action }: Pick<Operation, 'method' | 'path' | 'action'>): string {
  const place = path.replace(/\?.*/, '').replace(/\{[^}]*\}|:\w+/g, '{}')
  return [method, place, action].filter((part) => part !== '').join(' ')
}

/** Our operations by identity, with the first microversion that has them. */
export function servedOperations(): Map<string, string> {
  const ofRoutes = ROUTES.map(({ method, url, action, since }) => {
    const identity = identityOf({ method, path: url, action: action ?? '' })
    return [identity, `3.${since}`] as const
  })
  return new Map([...ELSEWHERE.map((identity) => [identity, '3.0'] as const), ...ofRoutes])
}

const BEGIN = '<!-- operations: written by scripts/api-docs.ts -->'
const END = '<!-- operations: end -->'

/** The page with fresh tables. */
export function withTables(page: string): string {
  const [before, rest] = page.split(BEGIN)
  const after = rest?.split(END)[1]
  if (before === undefined || after === undefined) throw new Error('docs/api.md has lost the marks around its tables')
  return `${before}${BEGIN}\n\n${tables()}\n${END}${after}`
}

function tables(): string {
  const served = servedOperations()
  const operations = upstreamOperations().map((operation) => ({
    ...operation,
    isServed: served.has(identityOf(operation)),
  }))
  const resources = [...new Set(operations.map(({ resource }) => resource))]
  const of = (resource: string) => operations.filter((operation) => operation.resource === resource)
  const servedAmong = (some: typeof operations) => some.filter(({ isServed }) => isServed).length
  const sections = resources.map((resource) => {
    const rows = of(resource).map(({ method, path, action, since, isServed }) => {
      const name = action === '' ? '' : ` \`${action}\``
      return `| ${method} \`${path}\`${name} | ${since} | ${isServed ? 'yes' : ''} |`
    })
    return [`### ${resource}`, '', '| operation | since | served |', '|---|---|---|', ...rows, ''].join('\n')
  })
  return [
    `Served are ${servedAmong(operations)} of ${operations.length}.`,
    '',
    '| resource | served | of |',
    '|---|---|---|',
    ...resources.map((resource) => `| ${resource} | ${servedAmong(of(resource))} | ${of(resource).length} |`),
    '',
    ...sections,
  ].join('\n')
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(API_PAGE, withTables(readFileSync(API_PAGE, 'utf8')))
}
