import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll } from 'vitest'
import { systemHttp } from '../../src/runtime/http-client.ts'
import { createGlance } from '../../src/services/images/glance.ts'
import type { ImageService } from '../../src/services/images/image-service.ts'
import { freePort } from './collie.ts'
import { ForeignServer } from './foreign-server.ts'
import { type requireCommand, requireCommands } from './require-command.ts'

/**
 * Debian's Glance for the tests of one file, started when first asked for and ended with the file: SQLite, images in a directory,
 * nobody is asked who he is. It listens on loopback.
 */

const PASTE = ['/etc/glance/glance-api-paste.ini', '/usr/share/glance-common/glance-api-paste.ini']

export const withGlance: ReturnType<typeof requireCommand> = requireCommands({
  'glance-api': 'glance-api',
  'glance-manage': 'glance-api',
  'qemu-img': 'qemu-utils',
})

export interface Glance {
  url: string
  /** Asked directly, as somebody else would. */
  images: ImageService
  stop(): Promise<void>
}

let shared: Promise<Glance> | null = null

/** The server of this test file. */
export function sharedGlance(): Promise<Glance> {
  shared ??= startGlance()
  return shared
}

afterAll(async () => {
  await (await shared?.catch(() => null))?.stop()
})

async function startGlance(): Promise<Glance> {
  const directory = mkdtempSync(path.join(tmpdir(), 'collie-glance-'))
  const port = await freePort()
  const at = (name: string) => path.join(directory, name)
  for (const name of ['images', 'lock', 'staging', 'tasks']) mkdirSync(at(name))
  writeFileSync(at('glance-api.conf'), configuration(port, at))
  writeFileSync(at('glance-api-paste.ini'), readFileSync(PASTE.find((file) => existsSync(file))!)) // looked for beside the settings
  writeFileSync(at('glance-image-import.conf'), '')
  execFileSync('glance-manage', ['--config-file', at('glance-api.conf'), 'db_sync'], { stdio: 'pipe' })
  const url = `http://127.0.0.1:${port}`
  const words = ['glance-api', '--config-dir', directory, '--config-file', at('glance-api.conf')] as const
  const server = await ForeignServer.start({ words, url: `${url}/versions` })
  return {
    url,
    images: createGlance({ http: systemHttp, url, timeoutMs: 30_000 }),
    stop: async () => {
      await server.stop()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

function configuration(port: number, at: (name: string) => string): string {
  return `
[DEFAULT]
bind_host = 127.0.0.1
bind_port = ${port}
workers = 0
worker_self_reference_url = http://127.0.0.1:${port}
enabled_backends = file:file
node_staging_uri = file://${at('staging')}
[database]
connection = sqlite:///${at('glance.db')}
[glance_store]
default_backend = file
[file]
filesystem_store_datadir = ${at('images')}
[os_glance_staging_store]
filesystem_store_datadir = ${at('staging')}
[os_glance_tasks_store]
filesystem_store_datadir = ${at('tasks')}
[oslo_concurrency]
lock_path = ${at('lock')}
`
}
