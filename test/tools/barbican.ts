import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { freePort } from './collie.ts'
import { ForeignServer } from './foreign-server.ts'
import type { Keystone } from './keystone.ts'
import { commandExists } from './require-command.ts'

/** Debian's Barbican on loopback: SQLite, secrets encrypted by its simple plugin, tokens checked by a Keystone. */

const PYTHON = '/usr/bin/python3'
const SERVER = path.join(import.meta.dirname, 'serve-barbican.py')

/** Why there is no Barbican to start, or false. */
export function withoutBarbican(): string | false {
  const missing = 'barbican is missing: apt-get install python3-barbican'
  if (!commandExists(PYTHON)) return missing
  try {
    execFileSync(PYTHON, ['-c', 'import barbican.api.app'], { stdio: 'ignore' })
    return false
  } catch {
    return missing
  }
}

export class Barbican {
  readonly url: string
  readonly #directory: string
  readonly #server: ForeignServer

  private constructor(url: string, directory: string, server: ForeignServer) {
    this.url = url
    this.#directory = directory
    this.#server = server
  }

  /** `user` is an account of Keystone's that may validate tokens, in the project `service`. */
  static async start(keystone: Keystone, user: string): Promise<Barbican> {
    const directory = mkdtempSync(path.join(tmpdir(), 'collie-barbican-'))
    const port = await freePort()
    const url = `http://127.0.0.1:${port}`
    writeFileSync(path.join(directory, 'paste.ini'), PIPELINES)
    writeFileSync(path.join(directory, 'barbican.conf'), configuration(url, directory, keystone, user))
    const server = await ForeignServer.start({ words: [PYTHON, SERVER, directory, String(port)], url })
    return new Barbican(url, directory, server)
  }

  async stop(): Promise<void> {
    await this.#server.stop()
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

const PIPELINES = `
[composite:main]
use = egg:Paste#urlmap
/: versions
/v1: v1
[app:versions]
paste.app_factory = barbican.api.app:create_version_app
[pipeline:v1]
pipeline = authtoken context api
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
[filter:context]
paste.filter_factory = barbican.api.middleware.context:ContextMiddleware.factory
[app:api]
paste.app_factory = barbican.api.app:create_main_app
`

const configuration = (url: string, directory: string, keystone: Keystone, user: string): string => `
[DEFAULT]
host_href = ${url}
sql_connection = sqlite:///${directory}/barbican.db
db_auto_create = true
[oslo_policy]
enforce_new_defaults = true
enforce_scope = true
[secretstore]
namespace = barbican.secretstore.plugin
enabled_secretstore_plugins = store_crypto
[crypto]
namespace = barbican.crypto.plugin
enabled_crypto_plugins = simple_crypto
[simple_crypto_plugin]
kek = ${randomBytes(32).toString('base64')}
[keystone_authtoken]
auth_type = password
auth_url = ${keystone.url}
www_authenticate_uri = ${keystone.url}
username = ${user}
password = ${keystone.password}
project_name = service
user_domain_id = default
project_domain_id = default
`
