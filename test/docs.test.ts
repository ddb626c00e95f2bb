import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'

const ROOT = path.resolve(import.meta.dirname, '..')
const PAGES = [
  'README.md',
  'ARCHITECTURE.md',
  'CHANGELOG.md',
  'bench/README.md',
  'docs/api.md',
  'docs/backups.md',
  'docs/cluster.md',
  'docs/configuration.md',
  'docs/encryption.md',
  'docs/hazards.md',
  'docs/metrics.md',
  'docs/nova.md',
  'docs/operations.md',
]

/** Files and directories of the repository that a page names in backquotes, and relative targets of its links. */
function pathsIn(page: string): string[] {
  const text = readFileSync(path.join(ROOT, page), 'utf8')
  const quoted = [...text.matchAll(/`((?:src|test|bench|contrib|docs|migrations|openapi|scripts)\/[\w./-]*)`/g)]
  const links = [...text.matchAll(/\]\((?!https?:|#)([^)#]+)/g)]
  return [...quoted.map(([, found]) => found!), ...links.map(([, found]) => path.join(path.dirname(page), found!))]
}

describe.each(PAGES)('%s', (page) => {
  it('names only files that are there', () => {
    const absent = pathsIn(page).filter((named) => !existsSync(path.join(ROOT, named)))
    expect(absent).toEqual([])
  })
})

it('finds what the pages name', () => {
  expect(pathsIn('ARCHITECTURE.md')).toEqual(
    expect.arrayContaining(['src/serve.ts', 'src/control/', 'bench/README.md']),
  )
})
