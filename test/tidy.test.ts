import { existsSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { VERSION } from '../src/version.ts'

/**
 * Rules that the whole source keeps and no linter knows. A failure names the file, the line and what to do instead.
 */

const ROOT = path.resolve(import.meta.dirname, '..')

/**
 * Which part of src may import which: only downwards. An entry is a directory or a file, and may be a file within a
 * directory that is otherwise closed.
 */
const LAYERS: Record<string, readonly string[]> = {
  'errors.ts': [],
  'version.ts': [],
  runtime: ['errors.ts'],
  protocol: [],
  'results.ts': ['errors.ts', 'protocol'],
  settings: ['runtime'],
  'settings.ts': ['settings'],
  'config.ts': ['settings.ts', 'errors.ts', 'runtime'],
  'own-store.ts': ['config.ts'],
  control: ['errors.ts', 'runtime'],

  sheep: ['protocol', 'results.ts', 'errors.ts', 'runtime'],
  vdi: ['protocol', 'results.ts', 'errors.ts', 'runtime'],
  exports: ['vdi', 'errors.ts', 'runtime'],
  'open-sheep.ts': ['sheep', 'protocol', 'config.ts', 'runtime'],
  'node-cluster.ts': ['open-sheep.ts', 'sheep', 'control'],
  'node.ts': [
    'open-sheep.ts',
    'node-cluster.ts',
    'node-metrics.ts',
    'sheep',
    'vdi',
    'exports',
    'protocol',
    'results.ts',
    'control',
    'config.ts',
    'version.ts',
    'errors.ts',
    'runtime',
  ],

  metrics: ['runtime'],
  'node-metrics.ts': ['sheep', 'exports', 'metrics', 'runtime'],
  'status-listener.ts': ['control', 'metrics', 'version.ts', 'runtime'],
  'app-metrics.ts': ['api', 'services', 'control', 'metrics', 'version.ts', 'runtime'],

  drivers: ['vdi', 'protocol', 'results.ts', 'errors.ts', 'runtime'],
  scheduler: ['drivers/driver.ts', 'errors.ts'],
  db: ['errors.ts', 'config.ts', 'runtime', '../migrations'],
  luks: ['drivers/driver.ts', 'runtime'],
  services: ['scheduler', 'db', 'drivers/driver.ts', 'luks', 'keystone', 'errors.ts', 'runtime'],
  keystone: ['errors.ts', 'runtime'],
  identity: ['keystone', 'errors.ts', 'runtime'],
  api: ['services', 'identity', 'errors.ts', 'runtime', 'version.ts'],
  'service-control.ts': ['services', 'control'],
  'app-policy.ts': ['api', 'errors.ts', 'runtime'],
  'app-backends.ts': ['services', 'drivers', 'vdi', 'control', 'own-store.ts', 'config.ts', 'errors.ts', 'runtime'],
  'app-backup-target.ts': ['services', 'keystone', 'config.ts', 'errors.ts', 'runtime'],
  'app-volume-copies.ts': ['app-backends.ts', 'app-backup-target.ts', 'services', 'control', 'config.ts', 'runtime'],
  'volume-copy-worker.ts': ['app-volume-copies.ts', 'volume-copy-thread.ts', 'services', 'config.ts', 'errors.ts'],
  'volume-copy-thread.ts': ['services', 'config.ts', 'errors.ts'],
  'app-settings.ts': ['services/settings.ts', 'config.ts'],
  'app.ts': [
    'app-backup-target.ts',
    'app-settings.ts',
    'app-metrics.ts',
    'app-policy.ts',
    'app-backends.ts',
    'service-control.ts',
    'status-listener.ts',
    'api',
    'identity',
    'keystone',
    'services',
    'db',
    'control',
    'own-store.ts',
    'config.ts',
    'version.ts',
    'errors.ts',
    'runtime',
  ],

  cli: [
    'sheep/cluster/cluster-secret.ts',
    'sheep/cluster/corosync-files.ts',
    'sheep/cluster/join-token.ts',
    'vdi',
    'exports',
    'protocol',
    'control',
    'config.ts',
    'settings.ts',
    'version.ts',
    'errors.ts',
    'runtime',
  ],
  'node-worker.ts': ['node.ts', 'control', 'config.ts', 'version.ts', 'runtime'],
  'store-thread.ts': ['control', 'config.ts', 'runtime'],
  'serve.ts': [
    'volume-copy-thread.ts',
    'app.ts',
    'store-thread.ts',
    'status-listener.ts',
    'cli',
    'control',
    'own-store.ts',
    'config.ts',
    'version.ts',
    'errors.ts',
    'runtime',
  ],
  'db-maintenance.ts': [
    'app-backends.ts',
    'app-backup-target.ts',
    'db',
    'drivers/driver.ts',
    'scheduler',
    'services',
    'cli',
    'control',
    'config.ts',
    'runtime',
  ],
  'db-commands.ts': ['db-maintenance.ts', 'cli'],
  'backup-maintenance.ts': [
    'app-backup-target.ts',
    'app-settings.ts',
    'db-maintenance.ts',
    'db',
    'services',
    'cli',
    'config.ts',
    'errors.ts',
    'runtime',
  ],
  'backup-commands.ts': ['backup-maintenance.ts', 'cli'],
  'dev-cluster.ts': ['cli', 'config.ts', 'control', 'errors.ts', 'sheep', 'runtime'],
  'main.ts': ['serve.ts', 'dev-cluster.ts', 'db-commands.ts', 'backup-commands.ts', 'cli', 'runtime'],
}

interface Ban {
  pattern: RegExp
  /** Paths from the root that the ban is for, and those of them that may. */
  within: RegExp
  except?: RegExp
  instead: string
}

const SOURCE = /^src\//
const RUNTIME = /^src\/runtime\//
const CODE = /^(src|test|bench|scripts|migrations)\//

const BANS: readonly Ban[] = [
  {
    pattern: /\bDate\.now\(|\bnew Date\(\)/,
    within: SOURCE,
    except: RUNTIME,
    instead: 'ask the Clock that was passed in',
  },
  {
    pattern: /\b(setTimeout|setInterval|setImmediate|performance\.now|process\.hrtime)\b/,
    within: SOURCE,
    except: RUNTIME,
    instead: 'use timer, afterInput or monotonicMs of the Clock that was passed in',
  },
  {
    pattern: /from 'node:fs(\/promises)?'/,
    within: SOURCE,
    except: /^src\/(runtime\/|main\.ts)/,
    instead: 'use the Disk port, or runtime/files.ts for a file that is read or written whole',
  },
  {
    pattern: /^import (?!type |\{ STATUS_CODES \}).*from 'node:(net|tls|dgram|http|https|http2)'/,
    within: SOURCE,
    except: RUNTIME,
    instead: 'use the Network port',
  },
  {
    pattern: /\bMath\.random\(|\b(randomBytes|randomUUID|randomInt|getRandomValues)\b/,
    within: SOURCE,
    except: RUNTIME,
    instead: 'ask the Random that was passed in',
  },
  { pattern: /\bprocess\.env\b/, within: SOURCE, except: /^src\/main\.ts$/, instead: 'add a setting to settings.ts' },
  { pattern: /\bconsole\.\w/, within: SOURCE, instead: 'use the log, or CommandIo in a command' },
  {
    pattern: /\b(it|test|describe)\.(only|todo|skip)\(/,
    within: /^test\//,
    except: /^test\/tools\//,
    instead: 'run it, or say with requireCommand what it needs',
  },
  { pattern: /@ts-(ignore|nocheck)/, within: CODE, instead: 'give it the type that it has' },
  { pattern: /\b(TODO|FIXME|XXX)\b/, within: CODE, instead: 'finish it, or leave it out' },
  {
    pattern: /(?<![\w.$}])\/(home|root|work|Users)\/[\w.-]+/,
    within: /./,
    instead:
      'a path of one machine means nothing on another: use one relative to the repository, or a temporary directory',
  },
]

const THIS_FILE = 'test/tidy.test.ts' // it has to spell what it bans
const SKIPPED = new Set(['node_modules', 'dist', 'data', 'coverage', '.git', 'package-lock.json'])
const TEXT = /\.(ts|mjs|js|json|md|ya?ml|sh|conf|txt)$|\/run$|^Dockerfile$/

function textFiles(directory = ''): string[] {
  return readdirSync(path.join(ROOT, directory), { withFileTypes: true }).flatMap((entry) => {
    const file = path.posix.join(directory, entry.name)
    if (SKIPPED.has(entry.name)) return []
    if (entry.isDirectory()) return textFiles(file)
    return entry.isFile() && TEXT.test(file) ? [file] : []
  })
}

function bannedLines(file: string, text: string, bans: readonly Ban[] = BANS): string[] {
  const applying = bans.filter(({ within, except }) => within.test(file) && !except?.test(file))
  return text
    .split('\n')
    .flatMap((line, index) =>
      applying
        .filter(({ pattern }) => pattern.test(line))
        .map(({ pattern, instead }) => `${file}:${index + 1}: ${pattern.exec(line)?.[0].trim()} - ${instead}`),
    )
}

/** Imports that go up or sideways. `file` is a path from the root, below src. */
function wrongImports(file: string, text: string): string[] {
  const part = file.split('/')[1]!
  const allowed = LAYERS[part]
  if (allowed === undefined) return [`${file}:1: ${part} has no row in LAYERS; say what it may import`]
  return text.split('\n').flatMap((line, index) => {
    const specifier = /(?:\bfrom|\bimport\() ?'(\.[^']*)'/.exec(line)?.[1]
    if (specifier === undefined) return []
    const target = path.posix.relative('src', path.posix.join(path.posix.dirname(file), specifier))
    const isAllowed = [part, ...allowed].some((entry) => target === entry || target.startsWith(`${entry}/`))
    return isAllowed
      ? []
      : [
          `${file}:${index + 1}: ${part} may not import ${target}, only ${allowed.join(', ') || 'nothing'}; pass it in as an argument`,
        ]
  })
}

const FILES = textFiles().filter((file) => file !== THIS_FILE)
const read = (file: string) => readFileSync(path.join(ROOT, file), 'utf8')

describe('the source', () => {
  it('imports downwards only', () => {
    const sources = FILES.filter((file) => /^src\/.*\.ts$/.test(file))
    expect(sources.length).toBeGreaterThan(20)
    expect(sources.flatMap((file) => wrongImports(file, read(file)))).toEqual([])
  })

  it('has a row for every part and a part for every row', () => {
    const rows = Object.entries(LAYERS).flatMap(([part, allowed]) => [part, ...allowed])
    expect(rows.filter((row) => !existsSync(path.join(ROOT, 'src', row)))).toEqual([])
  })

  it('does nothing that has a better place', () => {
    expect(FILES.flatMap((file) => bannedLines(file, read(file)))).toEqual([])
  })

  it('says one version', () => {
    expect(JSON.parse(read('package.json')).version).toBe(VERSION)
  })
})

describe('these checks', () => {
  it('find what they look for, and say where and what to do', () => {
    expect(bannedLines('src/sheep/x.ts', 'const a = 1\nconst now = Date.now()')).toEqual([
      'src/sheep/x.ts:2: Date.now( - ask the Clock that was passed in',
    ])
    expect(bannedLines('src/runtime/x.ts', 'Date.now()')).toEqual([])
    expect(bannedLines('src/api/x.ts', 'new Date(row.createdAt)')).toEqual([])
    expect(bannedLines('src/api/x.ts', "import type { IncomingHttpHeaders } from 'node:http'")).toEqual([])
    expect(bannedLines('src/api/x.ts', "import { request } from 'node:http'")).toHaveLength(1)
    expect(bannedLines('docs/x.md', ['see', '/home/me/collie'].join(' '))).toHaveLength(1)
    expect(bannedLines('docs/x.md', 'see ./home/me and https://example.org/home/me')).toEqual([])
  })

  it('know up from down', () => {
    expect(wrongImports('src/sheep/a.ts', "import { x } from '../protocol/oid.ts'")).toEqual([])
    expect(wrongImports('src/sheep/cluster/a.ts', "import { x } from '../../runtime/clock.ts'")).toEqual([])
    expect(wrongImports('src/vdi/a.ts', "\nimport { x } from '../sheep/ring.ts'")).toEqual([
      expect.stringMatching(/^src\/vdi\/a\.ts:2: vdi may not import sheep\/ring\.ts/),
    ])
    expect(wrongImports('src/services/a.ts', "import type { X } from '../drivers/driver.ts'")).toEqual([])
    expect(wrongImports('src/services/a.ts', "import type { X } from '../drivers/memory.ts'")).toHaveLength(1)
    expect(wrongImports('src/new/a.ts', '')).toHaveLength(1)
  })
})
