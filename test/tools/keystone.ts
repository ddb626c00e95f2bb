import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import Database from 'better-sqlite3'
import { freePort } from './collie.ts'
import { ForeignServer } from './foreign-server.ts'
import { type requireCommand, requireCommands } from './require-command.ts'

/**
 * Debian's Keystone on loopback: SQLite, Fernet tokens, passwords that are cheap to check. It has the roles that `bootstrap` makes, and
 * besides `service`; accounts are made as tests want them.
 */

export const withKeystone: ReturnType<typeof requireCommand> = requireCommands({
  'keystone-manage': 'keystone',
  'keystone-wsgi-public': 'keystone',
  openstack: 'python3-openstackclient',
})

const PASSWORD = 'of-a-test'
const REGION = 'RegionOne'

export class Keystone {
  readonly #directory = mkdtempSync(path.join(tmpdir(), 'collie-keystone-'))
  readonly #port: number
  #server: ForeignServer | null = null
  #adminToken = ''

  private constructor(port: number) {
    this.#port = port
  }

  static async start(): Promise<Keystone> {
    const keystone = new Keystone(await freePort())
    await keystone.#make()
    await keystone.resume()
    keystone.#adminToken = await keystone.logIn('admin', 'admin')
    await keystone.#call('POST', '/roles', { role: { name: 'service' } })
    return keystone
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}/v3`
  }

  get password(): string {
    return PASSWORD
  }

  /** What openstackclient reads of its environment. */
  openrc(user: string, project: string): Record<string, string> {
    return {
      OS_AUTH_URL: this.url,
      OS_IDENTITY_API_VERSION: '3',
      OS_USERNAME: user,
      OS_PASSWORD: PASSWORD,
      OS_PROJECT_NAME: project,
      OS_USER_DOMAIN_ID: 'default',
      OS_PROJECT_DOMAIN_ID: 'default',
      OS_REGION_NAME: REGION,
    }
  }

  async createProject(name: string): Promise<string> {
    const made = await this.#call('POST', '/projects', { project: { name, domain_id: 'default' } })
    return made.project.id
  }

  /** An account that has the roles in the project. */
  async createUser(name: string, projectId: string, roles: readonly string[]): Promise<string> {
    const user = { name, password: PASSWORD, domain_id: 'default' }
    const { id } = (await this.#call('POST', '/users', { user })).user
    for (const role of roles) {
      const [found] = (await this.#call('GET', `/roles?name=${role}`)).roles
      await this.#call('PUT', `/projects/${projectId}/users/${id}/roles/${found.id}`)
    }
    return id
  }

  /** A service of the catalog, at all three interfaces. */
  async register(type: string, name: string, url: string): Promise<void> {
    const { id } = (await this.#call('POST', '/services', { service: { type, name } })).service
    for (const kind of ['public', 'internal', 'admin']) {
      const endpoint = { service_id: id, interface: kind, region: REGION, url }
      await this.#call('POST', '/endpoints', { endpoint })
    }
  }

  /** Resolves with a token; without a project one of no scope. */
  async logIn(user: string, project: string | null): Promise<string> {
    const identity = {
      methods: ['password'],
      password: { user: { name: user, domain: { id: 'default' }, password: PASSWORD } },
    }
    const scope = project === null ? 'unscoped' : { project: { name: project, domain: { id: 'default' } } }
    const answer = await fetch(`${this.url}/auth/tokens`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ auth: { identity, scope } }),
    })
    const token = answer.headers.get('x-subject-token')
    if (token === null) throw new Error(`Keystone gives ${user} no token: ${answer.status} ${await answer.text()}`)
    return token
  }

  async revoke(token: string): Promise<void> {
    const headers = { 'x-auth-token': this.#adminToken, 'x-subject-token': token }
    const answer = await fetch(`${this.url}/auth/tokens`, { method: 'DELETE', headers })
    if (answer.status !== 204) throw new Error(`Keystone does not revoke: ${answer.status}`)
  }

  /** Ends the server; `resume` starts it again, with what it had. */
  async pause(): Promise<void> {
    await this.#server?.stop()
    this.#server = null
  }

  async resume(): Promise<void> {
    this.#server = await ForeignServer.start({
      words: ['keystone-wsgi-public', '--host', '127.0.0.1', '--port', String(this.#port)],
      url: this.url,
      env: { OS_KEYSTONE_CONFIG_FILES: this.#at('keystone.conf'), OS_KEYSTONE_CONFIG_DIR: this.#directory },
    })
  }

  async stop(): Promise<void> {
    await this.pause()
    rmSync(this.#directory, { recursive: true, force: true })
  }

  async #make(): Promise<void> {
    for (const keys of ['fernet', 'credential']) {
      mkdirSync(this.#at(keys), { mode: 0o700 })
      for (const name of ['0', '1']) {
        writeFileSync(path.join(this.#at(keys), name), randomBytes(32).toString('base64url').padEnd(44, '='), {
          mode: 0o600,
        })
      }
    }
    writeFileSync(this.#at('keystone.conf'), this.#configuration())
    const manage = (...words: string[]) =>
      promisify(execFile)('keystone-manage', ['--config-file', this.#at('keystone.conf'), ...words])
    await manage('db_sync')
    new Database(this.#at('keystone.db')).pragma('journal_mode = WAL') // its own connections lock each other out otherwise
    const endpoints = ['public', 'internal', 'admin'].flatMap((kind) => [`--bootstrap-${kind}-url`, this.url])
    await manage('bootstrap', '--bootstrap-password', PASSWORD, '--bootstrap-region-id', REGION, ...endpoints)
  }

  #configuration(): string {
    return `
[DEFAULT]
public_endpoint = http://127.0.0.1:${this.#port}
[database]
connection = sqlite:///${this.#at('keystone.db')}
sqlite_synchronous = false
[token]
provider = fernet
[fernet_tokens]
key_repository = ${this.#at('fernet')}
[fernet_receipts]
key_repository = ${this.#at('fernet')}
[credential]
key_repository = ${this.#at('credential')}
[identity]
password_hash_rounds = 4
`
  }

  #at(name: string): string {
    return path.join(this.#directory, name)
  }

  // biome-ignore lint/suspicious/noExplicitAny: documents of another service, of which a test knows what is in them
  async #call(method: string, route: string, body?: unknown): Promise<any> {
    const answer = await fetch(this.url + route, {
      method,
      headers: { 'content-type': 'application/json', 'x-auth-token': this.#adminToken },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await answer.text()
    if (!answer.ok) throw new Error(`Keystone: ${method} ${route}: ${answer.status} ${text}`)
    return text === '' ? null : JSON.parse(text)
  }
}
